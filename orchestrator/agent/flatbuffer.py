"""Read FlatBuffers by their schema, from files that nobody has vouched for.

ExecuTorch brings the schemas (.fbs) of programs and of XNNPACK's payloads, but Python classes of the first
alone, and those read a vector as long as it says it is. Here fields are read when they are asked for, and the
number of elements is bounded.
"""

from __future__ import annotations

import functools
import importlib.util
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from mmap import mmap
from pathlib import Path
from typing import Any, NamedTuple

PROGRAM_SCHEMA = ("exir/_serialize/scalar_type.fbs", "exir/_serialize/program.fbs")
XNNPACK_SCHEMA = ("backends/xnnpack/serialization/schema.fbs",)
"""Files of the `executorch` package."""

MAX_ELEMENTS = 1_000_000
"""Most elements of vectors that are read; a network of 49 delegates has tens of thousands."""

MAX_TEXT = 256
"""Longest text in bytes; what follows is cut off."""

_SCALARS = {
    "bool": "?", "byte": "b", "ubyte": "B", "short": "h", "ushort": "H", "int": "i", "uint": "I", "uint32": "I",
    "float": "f", "double": "d", "long": "q", "int64": "q", "ulong": "Q", "uint64": "Q",
}  # fmt: skip
_DEFINITION = re.compile(r"(table|union|enum)\s+(\w+)\s*(?::\s*(\w+)\s*)?\{([^}]*)\}")
_FIELD = re.compile(r"(\w+)\s*:\s*(\[?\w+\]?)[^;]*;")

Data = bytes | memoryview | mmap


class _Enum(NamedTuple):
    code: str
    values: type[IntEnum]


@functools.cache
def read_schema(files: tuple[str, ...]) -> Mapping[str, Any]:
    """Return the types of a schema in files of the `executorch` package, which is not imported.

    They are by name: a code of `struct` for scalars, an `_Enum`, a list of tables for unions, and for tables a
    subclass of `FlatTable` with that name.
    """
    spec = importlib.util.find_spec("executorch")
    folder = Path(next(iter(spec.submodule_search_locations or ()))) if spec else Path()
    text = re.sub(r"//[^\n]*", "", "".join((folder / name).read_text(encoding="utf-8") for name in files))
    found = _DEFINITION.findall(text)
    types: dict[str, Any] = dict(_SCALARS)
    for kind, name, code, body in found:
        if kind == "enum":
            values = dict(re.findall(r"(\w+)\s*=\s*(\d+)", body))
            numbers = {each: int(number) for each, number in values.items()}
            types[name] = _Enum(_SCALARS[code], IntEnum(name, numbers))  # type: ignore[arg-type]
        elif kind == "table":
            types[name] = type(name, (FlatTable,), {"fields": {}})
    for _, name, _, body in (each for each in found if each[0] == "union"):
        layouts = re.findall(r"(\w+)(?:\s*:\s*(\w+))?", body)
        types[name] = [type(each, (types[layout or each],), {}) for each, layout in layouts]
    for _, name, _, body in (each for each in found if each[0] == "table"):
        slot = 0
        for each, of in _FIELD.findall(body):
            slot += isinstance(types.get(of), list)  # a union has two slots: its member's number, its table
            types[name].fields[each] = slot, of
            slot += 1
    return types


@dataclass
class FlatBuffer:
    """Data with their schema; `left` is how many elements may still be read, of this and of parts of it."""

    data: Data
    types: Mapping[str, Any]
    left: list[int] = field(default_factory=lambda: [MAX_ELEMENTS])

    def number(self, code: str, place: int) -> Any:
        """Return the number at a place; struct.error if the data end before."""
        return struct.unpack_from(f"<{code}", self.data, place)[0]

    def table(self, name: str, place: int = 0) -> Any:
        """Return the table that the offset at a place leads to, by default the root."""
        return self.types[name](self, place + self.number("I", place))

    def value(self, of: str, place: int) -> Any:
        """Return the scalar, text, vector or table at a place; a vector of bytes is not copied."""
        kind = self.types.get(of)
        if isinstance(kind, str):
            return self.number(kind, place)
        if isinstance(kind, _Enum):
            return kind.values(self.number(kind.code, place))
        if kind is not None:
            return self.table(of, place)
        start = place + self.number("I", place)
        length = self.number("I", start)
        if of == "string":
            return bytes(self.data[start + 4 : start + 4 + min(length, MAX_TEXT)]).decode()
        if of == "[ubyte]":
            return part_of(self.data, start + 4, length)
        self.left[0] -= length
        if self.left[0] < 0:
            raise ValueError(f"more than {MAX_ELEMENTS} elements")
        inner = self.types[of[1:-1]]
        if isinstance(inner, str):
            return list(struct.unpack_from(f"<{length}{inner}", self.data, start + 4))
        return [self.table(of[1:-1], start + 4 + 4 * index) for index in range(length)]


def part_of(data: Data, start: int, length: int) -> memoryview:
    """Return a part of data without a copy; raises ValueError if they end before."""
    part = memoryview(data)[start : start + length]
    if len(part) < length:
        raise ValueError(f"{length - len(part)} bytes are missing")
    return part


class FlatTable:
    """A table; its fields are attributes, each read once: None, 0, "" or [] where the table does not have it."""

    fields: Mapping[str, tuple[int, str]]

    def __init__(self, buffer: FlatBuffer, place: int):
        """Take the buffer and where in it the table begins."""
        self.buffer, self._place = buffer, place

    def __getattr__(self, name: str) -> Any:
        """Return a field; AttributeError if the schema does not have it."""
        if name not in self.fields:
            raise AttributeError(name)
        slot, of = self.fields[name]
        kind, place = self.buffer.types.get(of), self._position(slot)
        if isinstance(kind, list):
            number = self.buffer.number("B", self._position(slot - 1)) if place else 0
            value = kind[number - 1](self.buffer, place + self.buffer.number("I", place)) if number else None
        elif place:
            value = self.buffer.value(of, place)
        elif isinstance(kind, _Enum):
            value = kind.values(0)
        else:
            value = 0 if isinstance(kind, str) else "" if of == "string" else [] if kind is None else None
        setattr(self, name, value)
        return value

    def _position(self, slot: int) -> int:
        """Return where a slot's value is; 0 if it is absent."""
        vtable = self._place - self.buffer.number("i", self._place)
        if vtable < 0 or 4 + 2 * slot >= self.buffer.number("H", vtable):
            return 0
        offset: int = self.buffer.number("H", vtable + 4 + 2 * slot)
        return self._place + offset if offset else 0


def open_program(data: bytes | mmap) -> tuple[Any, Any]:
    """Return the `Program` of a .pte and its method `forward`; ValueError or struct.error if it has none."""
    if data[4:6] != b"ET":
        raise ValueError("no ExecuTorch program")
    program = FlatBuffer(data, read_schema(PROGRAM_SCHEMA)).table("Program")
    for plan in program.execution_plan:
        if plan.name == "forward":
            return program, plan
    raise ValueError("no method 'forward'")
