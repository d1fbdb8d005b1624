"""The agent's Runtime interface, what its implementations share, and a reader of .pte files."""

from __future__ import annotations

import mmap
import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from flatbuffers.table import Table  # type: ignore[import-untyped]

from orchestrator.agent.device import free_memory_bytes, threads_by_default, usable_cores
from orchestrator.wire.errors import OpError
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


class Model(Protocol):
    """A loaded model; `execute` is a property, so that a runtime exposes its own call with nothing around it."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Specs of the inputs."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Specs of the outputs."""

    @property
    def options(self) -> Mapping[str, OptionValue]:
        """The load options in effect, including defaults."""

    @property
    def delegates(self) -> tuple[Delegate, ...] | None:
        """Delegated parts by backend; None if the runtime does not report them."""

    @property
    def placement(self) -> Placement | None:
        """Compute units of operations; None if the runtime does not report them."""

    @property
    def execute(self) -> Callable[[], object]:
        """A call that executes the model once."""

    def prepare(self, arrays: Sequence[np.ndarray]) -> Callable[[], object]:
        """Return a call that sets `arrays` as the next execution's inputs; conversion is done once, here.

        A call that this returned earlier may then set these arrays too.

        Raises:
            OpError: `bad_input` if they are not what the model takes.
        """

    def get_outputs(self) -> list[np.ndarray]:
        """Return copies of the outputs of the last execution."""

    def close(self) -> None:
        """Free the model."""


@runtime_checkable
class Traceable(Protocol):
    """A model whose runtime can report the time of each operation."""

    def take_operations(self, skip: int) -> list[TracedOperation]:
        """Return the operations of one execution in order, from the executions since the last call.

        The first `skip` executions are left out. Empty if the model was not loaded to be traced.
        """


@runtime_checkable
class TimesVisits(Protocol):
    """A model whose runtime times executions itself, without work of the interpreter between two of them."""

    @staticmethod
    def time_visits(models: Sequence[Any]) -> np.ndarray:
        """Call prepared models of this class in turn and return the nanoseconds of each execution.

        Setting the inputs is not timed.

        Raises:
            RuntimeError: The runtime failed.
        """


class Runtime(Protocol):
    """A way to execute model files."""

    def describe(self) -> RuntimeInfo:
        """Return version, backends and load options."""

    def load(self, path: Path, options: Mapping[str, OptionValue]) -> Model:
        """Load a file, sharing nothing with earlier loads of it.

        Raises:
            OpError: `bad_option`, `options_conflict`, `out_of_memory` or `bad_model`.
        """


_SPARE_MEMORY_BYTES = 256 << 20
"""Memory left to the rest of the system, so that a load never makes the machine swap."""


class LoadError(Exception):
    """The runtime can't load a model.

    Attributes:
        out_of_memory: Whether memory was the reason.
    """

    def __init__(self, reason: str, out_of_memory: bool) -> None:
        """Create the error with its reason."""
        super().__init__(reason)
        self.out_of_memory = out_of_memory


@dataclass(frozen=True)
class Loading:
    """What is known of a model before it is loaded, and what to call after it is freed."""

    options: Mapping[str, OptionValue]
    delegates: tuple[Delegate, ...]
    on_close: Callable[[], None]


class Loader(Protocol):
    """Loads models for the process's pool of threads."""

    @property
    def version(self) -> str:
        """How it calls the runtime, and what else (besides the agent's own sources) decides what it measures."""

    def backends(self) -> list[str]:
        """Return the available backends."""

    def set_threads(self, threads: int) -> None:
        """Set the size of the pool; only while no model is loaded."""

    def load(self, path: Path, loading: Loading) -> Model:
        """Load `forward` of a file that read_pte accepts; raises LoadError."""


def require_inputs(wanted: tuple[TensorSpec, ...], arrays: Sequence[np.ndarray]) -> None:
    """Raise OpError `bad_input` if the arrays are not what a model takes."""
    got = tuple(spec_of(array) for array in arrays)
    if got != wanted:
        raise OpError("bad_input", f"the model takes {_show(wanted)}, got {_show(got)}")


def require_memory(needed_bytes: int) -> None:
    """Raise OpError `out_of_memory` if a load is expected to need more than is free."""
    free_bytes = free_memory_bytes()
    if free_bytes is not None and needed_bytes + _SPARE_MEMORY_BYTES > free_bytes:
        raise OpError(
            "out_of_memory",
            f"the model needs about {needed_bytes >> 20} MiB and {free_bytes >> 20} MiB are free "
            f"({_SPARE_MEMORY_BYTES >> 20} MiB are reserved); unload models or use a smaller one",
        )


def threads_option() -> OptionInfo:
    """Return the option `threads` of a runtime on this machine."""
    return OptionInfo(type="int", default=threads_by_default(), min=1, max=usable_cores())


def checked_threads(
    runtime: str, options: Mapping[str, OptionValue], threads: OptionInfo
) -> dict[str, OptionValue]:
    """Return all options in effect of a runtime that only has `threads`; raises OpError `bad_option`."""
    unknown = sorted(set(options) - {"threads"})
    if unknown:
        raise OpError("bad_option", f"{runtime} has no option {unknown[0]!r}; it has: threads")
    chosen = options.get("threads", threads.default)
    if type(chosen) is not int or not 1 <= chosen <= int(threads.max or 1):
        raise OpError("bad_option", f"threads must be 1 to {threads.max} here, got {chosen!r}")
    return {"threads": chosen}


def _show(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{spec.dtype}{spec.shape}" for spec in specs) or "no inputs"


_PROGRAM_EXECUTION_PLAN = 1
_PLAN_NAME = 0
_PLAN_CHAINS = 5
_PLAN_OPERATORS = 6
_PLAN_DELEGATES = 7
_PLAN_NON_CONST_BUFFER_SIZES = 8
_CHAIN_INSTRUCTIONS = 2
_INSTRUCTION_KIND = 0
_INSTRUCTION_CALL = 1
_KERNEL_CALL = 1
_KERNEL_CALL_OPERATOR = 0
_OPERATOR_NAME = 0
_OPERATOR_OVERLOAD = 1
_DELEGATE_ID = 0

_MAX_LIST = 100_000

_T = TypeVar("_T")


@dataclass(frozen=True)
class PteSummary:
    """Delegates of a method by backend, and the bytes of activations that it plans."""

    delegates: tuple[Delegate, ...]
    planned_bytes: int


def read_pte(path: Path, method: str = "forward") -> PteSummary:
    """Return a summary of `method` in a .pte file; raises ValueError if it is not a readable .pte."""
    return _read(path, method, _summarise)


def operators_outside(path: Path, method: str = "forward") -> dict[str, int]:
    """Return calls of each operator outside the delegates, such as `aten.mean.out`; raises ValueError."""
    return _read(path, method, _operators)


def _read(path: Path, method: str, of: Callable[[Table], _T]) -> _T:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data[4:6] != b"ET":
                raise ValueError("no ExecuTorch program")
            root = Table(data, struct.unpack_from("<I", data, 0)[0])
            for plan in _tables(root, _PROGRAM_EXECUTION_PLAN):
                if _string(plan, _PLAN_NAME) == method:
                    return of(plan)
            raise ValueError(f"no method {method!r}")
    except (struct.error, IndexError, UnicodeDecodeError, TypeError, OverflowError) as error:
        raise ValueError(f"no readable ExecuTorch program ({error})") from None


def _summarise(plan: Table) -> PteSummary:
    backends = Counter(_string(delegate, _DELEGATE_ID) for delegate in _tables(plan, _PLAN_DELEGATES))
    return PteSummary(
        tuple(Delegate(backend=name, count=count) for name, count in sorted(backends.items())),
        sum(_int64s(plan, _PLAN_NON_CONST_BUFFER_SIZES)),
    )


def _operators(plan: Table) -> dict[str, int]:
    known = [_operator_name(operator) for operator in _tables(plan, _PLAN_OPERATORS)]
    called: Counter[str] = Counter()
    for chain in _tables(plan, _PLAN_CHAINS):
        for instruction in _tables(chain, _CHAIN_INSTRUCTIONS):
            if _number(instruction, _INSTRUCTION_KIND, "<B") == _KERNEL_CALL:
                position = instruction.Pos + _offset(instruction, _INSTRUCTION_CALL)
                call = Table(instruction.Bytes, int(instruction.Indirect(position)))
                called[known[_number(call, _KERNEL_CALL_OPERATOR, "<i")]] += 1
    return dict(sorted(called.items()))


def _operator_name(operator: Table) -> str:
    name = _string(operator, _OPERATOR_NAME).replace("::", ".")
    overload = _string(operator, _OPERATOR_OVERLOAD)
    return f"{name}.{overload}" if overload else name


def _number(table: Table, field: int, kind: str) -> int:
    offset = _offset(table, field)
    return int(struct.unpack_from(kind, table.Bytes, table.Pos + offset)[0]) if offset else 0


def _offset(table: Table, field: int) -> int:
    """Return the position of a field's value relative to the table; 0 if it is absent."""
    return int(table.Offset(4 + 2 * field))


def _list(table: Table, field: int) -> tuple[int, int]:
    """Return the first element's position and the number of elements."""
    offset = _offset(table, field)
    if not offset:
        return 0, 0
    length = int(table.VectorLen(offset))
    if length > _MAX_LIST:
        raise ValueError(f"a list of {length} elements")
    return int(table.Vector(offset)), length


def _tables(table: Table, field: int) -> list[Table]:
    start, length = _list(table, field)
    return [Table(table.Bytes, int(table.Indirect(start + 4 * i))) for i in range(length)]


def _string(table: Table, field: int) -> str:
    offset = _offset(table, field)
    return bytes(table.String(table.Pos + offset))[:256].decode() if offset else ""


def _int64s(table: Table, field: int) -> list[int]:
    start, length = _list(table, field)
    sizes = struct.unpack_from(f"<{length}q", table.Bytes, start) if length else ()
    if any(size < 0 for size in sizes):
        raise ValueError("a negative buffer size")
    return list(sizes)
