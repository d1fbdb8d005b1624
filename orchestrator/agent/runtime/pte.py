"""Reads from a .pte what ExecuTorch's Python binding does not tell: delegates, operators and planned memory.

Table and field numbers are those of executorch/schema/program.fbs, whose fields are never renumbered.
"""

from __future__ import annotations

import mmap
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from flatbuffers.table import Table  # type: ignore[import-untyped]

from orchestrator.wire.replies import Delegate

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
    """Delegates of the method by backend, and the bytes of activations that it plans."""

    delegates: tuple[Delegate, ...]
    planned_bytes: int


def read_pte(path: Path, method: str = "forward") -> PteSummary:
    """Summary of `method` in the .pte at `path`; ValueError where the file is not a readable .pte."""
    return _read(path, method, _summarise)


def operators_outside(path: Path, method: str = "forward") -> dict[str, int]:
    """Calls of each operator outside the delegates, such as `aten.mean.out`; ValueError as above."""
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
    """Position of `field`'s value relative to the table, 0 where it is absent."""
    return int(table.Offset(4 + 2 * field))


def _list(table: Table, field: int) -> tuple[int, int]:
    """First element's position and number of elements."""
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
