"""Damage to inputs: to their bytes, or to values within their structure. A random generator decides all of it."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from collections.abc import Sequence
from typing import Any

EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
MAX_BYTES = 1 << 20
"""Longest input; repeated duplication would grow without end."""

DEPTHS = (40, 5_000)
"""Levels of nested lists: a little above the protocol's 32, and above Python's own limit of recursion."""


def mutate_bytes(data: bytes, rng: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """Return the data with one to four damages; `others` are inputs to splice with."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        data = _damaged(data, rng, others)[:MAX_BYTES]
    return data


def _damaged(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    at, to = sorted((rng.randint(0, len(data)), rng.randint(0, len(data))))
    match rng.randrange(9):
        case 0 | 1 if at < len(data):
            return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        case 2:
            return data[:at]
        case 3:
            return data[:at] + data[at : at + rng.randint(1, 64)] * rng.randint(2, 16) + data[at:]
        case 4:
            return data[:at] + data[to:]
        case 5 if others:
            other = rng.choice(others)
            return data[:at] + other[rng.randint(0, len(other)) :]
        case 6:
            code = rng.choice("BHIQ")
            number = rng.choice(EXTREMES) & (1 << 8 * struct.calcsize(code)) - 1
            word = struct.pack(rng.choice("<>") + code, number)
            return data[:at] + word + data[at + len(word) :]
        case 7:
            return data[:at] + rng.randbytes(rng.randint(1, 16)) + data[to:]
    return data[:at] + rng.randbytes(rng.randint(1, 4)) + data[at:]


class Repeated(dict[str, Any]):
    """An object that is written with one of its keys twice."""

    def items(self) -> Any:
        """Return the pairs, and the first again with the last one's value."""
        pairs = list(super().items())
        return [*pairs, (pairs[0][0], pairs[-1][1])] if pairs else pairs


def nested(depth: int) -> Any:
    """Return lists within lists."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def _other_value(value: Any, rng: random.Random) -> Any:
    """Return another value of the same type, or of any type."""
    if isinstance(value, bool):
        near: list[Any] = [not value]
    elif isinstance(value, int) and abs(value) < 2**64:
        near = [value + 1, value - 1, -value, value ^ 1 << rng.randrange(40), value + 0.5, float(value)]
    elif isinstance(value, float):
        near = [value * 2, -value, value + 1e-9, value * 1e300, 5e-324]
    elif isinstance(value, str):
        cut = rng.randint(0, len(value))
        near = [
            value[:cut],
            value + value,
            value.upper(),
            value[:cut] + "\u00e9\n" + value[cut:],
            "../" + value,
        ]
    elif isinstance(value, list):
        near = [value[:-1], value + value, value[::-1], value * 50]
    elif isinstance(value, dict):
        near = [dict(list(value.items())[1:]), value | {"more": 1}, Repeated(value)]
    else:
        near = [0]
    far = [
        None, True, -1, 0, 2**31, 2**53, 2**64, 10**400, -(10**30), 1e308, float("nan"), float("-inf"), "",
        "x" * 5_000, "\ud800", "\0", [], {}, [[]], [None] * 300,
    ]  # fmt: skip
    return rng.choice(near if rng.random() < 0.6 else far)


def mutate_value(value: Any, rng: random.Random) -> Any:
    """Return a JSON value with another value at one random place."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        if rng.random() < 0.1:
            return {name: item for name, item in value.items() if name != key}
        return {**value, key: mutate_value(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        index = rng.randrange(len(value))
        return [*value[:index], mutate_value(value[index], rng), *value[index + 1 :]]
    return _other_value(value, rng)


def mutate_json(
    text: bytes, rng: random.Random, separators: tuple[str, str] = (",", ":"), **style: Any
) -> bytes:
    """Return a JSON document with other values, or nested too deeply; unreadable text is damaged as bytes."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return mutate_bytes(text, rng)
    for _ in range(rng.choice((1, 1, 2, 3))):
        value = mutate_value(value, rng)
    written = json.dumps(value, separators=separators, **style).encode()
    if rng.random() < 0.02:
        depth = rng.choice(DEPTHS)
        written = written.replace(b"null", b"[" * depth + b"]" * depth, 1) or written
    return written[:MAX_BYTES]


def mutate_text(text: bytes, rng: random.Random) -> bytes:
    """Return lines of text with one line removed, repeated, moved, or with another value after its `=` or comma."""
    lines = text.split(b"\n")
    at = rng.randrange(len(lines))
    match rng.randrange(5):
        case 0:
            del lines[at]
        case 1:
            lines.insert(rng.randrange(len(lines)), lines[at])
        case 2:
            lines.insert(rng.randrange(len(lines)), lines.pop(at))
        case _:
            mark = b"=" if b"=" in lines[at] else b","
            parts = lines[at].split(mark)
            try:
                value = json.dumps(_other_value(json.loads(parts[-1]), rng))
            except ValueError:
                value = json.dumps(_other_value(parts[-1].decode(errors="replace"), rng))
            parts[rng.randrange(len(parts)) if mark == b"," else -1] = value.encode()
            lines[at] = mark.join(parts)
    return b"\n".join(lines)[:MAX_BYTES]


def zipped(files: Sequence[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip of these files, of which several may have one name."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in files:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return out.getvalue()


def mutate_zip(data: bytes, rng: random.Random) -> bytes:
    """Return a zip with another name, content, order or compression of one entry; else it is damaged as bytes."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    except Exception:
        return mutate_bytes(data, rng)
    if not files:
        return mutate_bytes(data, rng)
    at = rng.randrange(len(files))
    name, content = files[at]
    match rng.randrange(4):
        case 0:
            names = (
                "../" + name,
                "/" + name,
                name + "/",
                name.upper(),
                "a" * 300 + name,
                "x\\" + name,
                "",
                name + "/x",
            )
            files[at] = rng.choice(names), content
        case 1:
            files[at] = name, mutate_bytes(content, rng)
        case 2:
            files.insert(rng.randrange(len(files)), (name, mutate_bytes(content, rng)))
        case _:
            del files[at]
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    return zipped(files, rng.choice(methods))
