"""Times of a program's operators by the runtime's event tracer, where the agent has one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from luts.format.operators import parse_operator
from orchestrator.export.lower.kinds import base_name
from orchestrator.journal.log import MeasurementLog, traces
from orchestrator.journal.records import TraceRecord
from orchestrator.measure.readiness import DeviceConnection
from orchestrator.wire.client import ModelFile
from orchestrator.wire.errors import AgentError, AgentLostError
from orchestrator.wire.messages import TracedOperation

EXECUTIONS, WARMUP = 20, 3
"""Executions of each program, of which the agent takes the faster half, and those before."""

TRUNCATED_MS = 0.0005
"""Added to each event: XNNPACK tells whole microseconds, cut off."""

LONGEST_MS = 1e6
"""Longest time that is taken from an agent, a quarter of an hour."""


def record_traces(
    connection: DeviceConnection,
    files: Mapping[str, ModelFile],
    log: MeasurementLog,
    operators: Mapping[str, Sequence[str]],
    notify: Callable[[str], None],
) -> None:
    """Trace each program alone and write the times of its operators to the log, once for each program.

    `operators` are the programs' keys in order. Does nothing without a tracer, and leaves out programs of which the
    agent returns no trace. A program that fails here fails again in its batch.
    """
    runtime = connection.hello().runtimes.get(connection.runtime)
    if runtime is None or "trace" not in runtime.options:
        return
    known = traces(log.records)
    for number, (model, keys) in enumerate(operators.items(), 1):
        if model in known:
            continue
        try:
            operations = _trace(connection, files[model])
        except AgentError:
            continue
        except AgentLostError:
            connection.drop()
            continue
        times = operator_times(operations, keys)
        if any(times):
            log.append(TraceRecord(model=model, operator_ms=times))
            notify(f"traced {model} ({number}/{len(operators)})")


def _trace(connection: DeviceConnection, file: ModelFile) -> Sequence[TracedOperation]:
    connection.client.ensure(file.path, file.sha256)
    loaded = connection.client.load(
        file.sha256, file.runtime or connection.runtime, {**connection.options, "trace": True}
    )
    result = connection.client.run([loaded.handle], [[0]] * EXECUTIONS, WARMUP)
    connection.client.unload(loaded.handle)
    return result.operations[0] if result.operations else ()


def operator_times(operations: Sequence[TracedOperation], keys: Sequence[str]) -> list[float]:
    """Return milliseconds of a program's operators, by their keys in order; 0 where no event is theirs."""
    words = [operation_word(parse_operator(key).kind.removeprefix("portable.")) for key in keys]
    times = [0.0] * len(keys)
    own = partners([event_word(operation.name) for operation in operations], words)
    for operation, place in zip(operations, own, strict=True):
        if place is not None:
            cut = TRUNCATED_MS if operation.call is not None else 0.0
            times[place] = round(min(operation.ns / 1e6, LONGEST_MS) + cut, 7)
    return times


_SYNONYMS: Mapping[str, str] = {
    "weights": "fullyconnected conv convolution depthwiseconv convtranspose deconvolution "
    "gemm gemm_dynamic grouped depthwise depthwise_large conv_transpose",
    "bmm": "batchmatrixmultiply",
    "permute": "statictranspose transpose",
    "view": "staticreshape",
    "slice": "staticslice",
    "cat": "concatenate copy",
    "pad": "staticconstantpad constantpad",
    "mul": "square multiply",
    "sub": "subtract",
    "div": "divide",
    "sqrt": "squareroot",
    "rsqrt": "reciprocalsquareroot",
    "mean": "globalavgpooling globalaveragepooling",
    "avg_pool": "avgpooling averagepooling",
    "max_pool": "maxpooling",
}
"""Words for names of XNNPACK's nodes and events, in lower case without spaces, and for kinds of operators in
a LUT; other names are their own word."""
_WORDS = {name: word for word, names in _SYNONYMS.items() for name in names.split()}
_DETAIL = re.compile(r" *(\(.*| #[0-9]+)$")


def event_word(name: str) -> str:
    """Return `permute` for XNNPACK's `Transpose (ND, X32) #3` and ExecuTorch's `native_call_permute_copy.out`."""
    if name.startswith("native_call_"):
        return operation_word(name)
    plain = _DETAIL.sub("", name).lower().replace(" ", "")
    return _WORDS.get(plain, plain)


def operation_word(operation: str) -> str:
    """Return the word of an operation of PyTorch or XNNPACK, or of a kind of operators in a LUT."""
    name = base_name(operation).removesuffix("_broadcast")
    return _WORDS.get(name, name)


def partners(events: Sequence[str], operators: Sequence[str]) -> list[int | None]:
    """Return the place of each event's operator in a longest common subsequence of words; None without one.

    XNNPACK merges some operators into others and has events of its own.
    """
    longest, words = np.zeros((len(events) + 1, len(operators) + 1), np.int16), np.array(operators, np.str_)
    for row, event in enumerate(events):
        best = np.maximum(longest[row, 1:], longest[row, :-1] + (words == event))
        np.maximum.accumulate(best, out=longest[row + 1, 1:])
    found: list[int | None] = [None] * len(events)
    row, place = longest.shape[0] - 1, longest.shape[1] - 1
    while row and place:
        if longest[row, place] == longest[row - 1, place]:
            row -= 1
        elif longest[row, place] == longest[row, place - 1]:
            place -= 1
        else:
            row, place = row - 1, place - 1
            found[row] = place
    return found
