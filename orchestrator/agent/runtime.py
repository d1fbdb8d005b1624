"""The agent's Runtime interface, what its implementations share, and a reader of .pte files."""

from __future__ import annotations

import mmap
import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from orchestrator.agent.device import free_memory_bytes, threads_by_default, usable_cores
from orchestrator.agent.flatbuffer import open_program
from orchestrator.wire.errors import AgentError
from orchestrator.wire.messages import (
    Delegate,
    OptionInfo,
    OptionValue,
    Placement,
    RuntimeInfo,
    TensorSpec,
    TracedOperation,
    spec_of,
)


class Model:
    """A loaded model; this base class is one without inputs and outputs.

    Attributes:
        inputs: Specs of the inputs.
        outputs: Specs of the outputs.
        options: The load options in effect, including defaults.
        delegates: Delegated parts by backend; None if the runtime does not report them.
        placement: Compute units of operations; None if the runtime does not report them.
        execute: Executes the model once: the runtime's own call, with nothing around it.
        time_visits: Calls prepared models of this class in turn and returns the nanoseconds of each execution,
            without work of the interpreter between two of them; setting the inputs is not timed. Raises
            RuntimeError if the runtime fails. None if the runtime does not time executions itself.
        load_ns: Nanoseconds in which the runtime opened the program and loaded its method; None if the whole of
            `Runtime.load` was that.
        on_close: Called once the model is freed.
    """

    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    options: Mapping[str, OptionValue]
    delegates: tuple[Delegate, ...] | None = None
    placement: Placement | None = None
    load_ns: int | None = None
    execute: Callable[[], object]
    time_visits: Callable[[Sequence[Any]], np.ndarray] | None = None
    on_close: Callable[[], object] | None = None

    def prepare(self, arrays: Sequence[np.ndarray]) -> Callable[[], object]:
        """Return a call that sets `arrays` as the next execution's inputs; conversion is done once, here.

        A call that this returned earlier may then set these arrays too.

        Raises:
            AgentError: `bad_input` if they are not what the model takes.
        """
        got = tuple(spec_of(array) for array in arrays)
        if got != self.inputs:
            raise AgentError("bad_input", f"the model takes {_show(self.inputs)}, got {_show(got)}")
        return self.bind([np.array(array, order="C") for array in arrays])

    def bind(self, arrays: Sequence[np.ndarray]) -> Callable[[], object]:
        """Return a call that sets these arrays, which have the specs of the inputs and belong to the model."""
        del arrays
        return lambda: None

    def get_outputs(self) -> list[np.ndarray]:
        """Return copies of the outputs of the last execution."""
        return []

    def take_operations(self, skip: int) -> list[TracedOperation]:
        """Return the operations of one execution in order, from the executions since the last call.

        The first `skip` executions are left out. Empty if the model was not loaded to be traced.
        """
        del skip
        return []

    def close(self) -> None:
        """Free the model."""
        if self.on_close is not None:
            self.on_close()


class Runtime(Protocol):
    """A way to execute model files."""

    def describe(self) -> RuntimeInfo:
        """Return version, backends and load options."""

    def load(self, path: Path, options: Mapping[str, OptionValue]) -> Model:
        """Load a file, sharing nothing with earlier loads of it.

        Raises:
            AgentError: `bad_option`, `options_conflict`, `out_of_memory` or `bad_model`.
        """


_SPARE_MEMORY_BYTES = 256 << 20
"""Memory left to the rest of the system, so that a load never makes the machine swap."""


def require_memory(needed_bytes: int) -> None:
    """Raise AgentError `out_of_memory` if a load is expected to need more than is free."""
    free_bytes = free_memory_bytes()
    if free_bytes is not None and needed_bytes + _SPARE_MEMORY_BYTES > free_bytes:
        raise AgentError(
            "out_of_memory",
            f"the model needs about {needed_bytes >> 20} MiB and {free_bytes >> 20} MiB are free "
            f"({_SPARE_MEMORY_BYTES >> 20} MiB are reserved); unload models or use a smaller one",
        )


def load_error(runtime: str, reason: object, out_of_memory: bool = False) -> AgentError:
    """Return the error of a runtime (name and version) that can't load a model."""
    code = "out_of_memory" if out_of_memory else "bad_model"
    text = " ".join(str(reason).split())[:200]
    return AgentError(code, f"{runtime} can't load the model ({text}); export it again")


def threads_option() -> OptionInfo:
    """Return the option `threads` of a runtime on this machine."""
    return OptionInfo(type="int", default=threads_by_default(), min=1, max=usable_cores())


_OPTION_TYPES: dict[str, tuple[type, str]] = {
    "bool": (bool, "true or false"),
    "int": (int, "a whole number"),
    "str": (str, "text"),
}


def checked_options(
    runtime: str, given: Mapping[str, OptionValue], known: Mapping[str, OptionInfo]
) -> dict[str, OptionValue]:
    """Return all options in effect; raises AgentError `bad_option` for an unknown one, another type or range."""
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise AgentError("bad_option", f"{runtime} has no option {unknown[0]!r}; it has: {', '.join(known)}")
    checked = {name: info.default for name, info in known.items()} | dict(given)
    for name, info in known.items():
        value, (kind, wanted) = checked[name], _OPTION_TYPES[info.type]
        if info.min is not None and info.max is not None:
            wanted = f"{info.min} to {info.max} here"
        if type(value) is not kind or (isinstance(value, int) and not _in_range(value, info)):
            raise AgentError("bad_option", f"{name} must be {wanted}, got {value!r}")
    return checked


def _in_range(value: int, info: OptionInfo) -> bool:
    return (info.min is None or value >= info.min) and (info.max is None or value <= info.max)


def _show(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{spec.dtype}{spec.shape}" for spec in specs) or "no inputs"


@dataclass(frozen=True)
class PteSummary:
    """What a method of a .pte consists of.

    Attributes:
        delegates: Its delegates by backend.
        planned_bytes: Bytes of activations that it plans.
        operators: Calls of each operator outside the delegates, such as `aten.mean.out`.
    """

    delegates: tuple[Delegate, ...]
    planned_bytes: int
    operators: dict[str, int]


def read_pte(path: Path) -> PteSummary:
    """Return a summary of the method `forward` of a .pte file; raises ValueError if it is not a readable .pte."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _summarise(open_program(data)[1])
    except (struct.error, IndexError, UnicodeDecodeError, TypeError, OverflowError) as error:
        raise ValueError(f"no readable ExecuTorch program ({error})") from None


def _summarise(plan: Any) -> PteSummary:
    backends = Counter(delegate.id for delegate in plan.delegates)
    names = [_operator_name(operator) for operator in plan.operators]
    calls = (instruction.instr_args for chain in plan.chains for instruction in chain.instructions)
    called = Counter(names[call.op_index] for call in calls if type(call).__name__ == "KernelCall")
    if any(size < 0 for size in plan.non_const_buffer_sizes):
        raise ValueError("a negative buffer size")
    return PteSummary(
        tuple(Delegate(backend=name, count=count) for name, count in sorted(backends.items())),
        sum(plan.non_const_buffer_sizes),
        dict(sorted(called.items())),
    )


def _operator_name(operator: Any) -> str:
    name: str = operator.name.replace("::", ".")
    return f"{name}.{operator.overload}" if operator.overload else name
