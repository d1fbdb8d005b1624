"""Kinds of blocks by name, and blocks by their keys."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import TypeVar

from luts.errors import UsageError
from search.blocks.spec import BlockSpec

MAX_KEY_CHARS = 200
"""Longest key that is parsed; the longest of any registered space has 61 characters."""

MAX_VALUE = 1 << 16
"""Largest number in a key: keeps products of a hostile key within machine integers."""

_KEY = re.compile(r"(?P<kind>[a-z][a-z0-9_.]*)\((?P<params>[^()]*)\)@(?P<resolution>[1-9][0-9]{0,4})")
_NUMBER = re.compile(r"[0-9]{1,6}(\.[0-9]{1,4})?")
_KINDS: dict[str, type[BlockSpec]] = {}

Spec = TypeVar("Spec", bound=type[BlockSpec])


def register(cls: Spec) -> Spec:
    """Class decorator: make a kind known to `parse_key`."""
    if cls.kind in _KINDS:
        raise ValueError(f"block kind {cls.kind!r} is registered twice")
    _KINDS[cls.kind] = cls
    return cls


def kinds() -> dict[str, type[BlockSpec]]:
    """Every registered kind."""
    return dict(_KINDS)


def parse_key(key: str) -> BlockSpec:
    """Turn a key back into its block; `parse_key(spec.key) == spec`.

    Raises:
        UsageError: the text is no key, its kind is unknown, or a parameter is missing, extra or malformed.
    """
    match = _KEY.fullmatch(key) if len(key) <= MAX_KEY_CHARS else None
    if match is None:
        raise UsageError(f"{key[:80]!r} is no block key; keys read kind(name=value,...)@resolution")
    cls = _KINDS.get(match["kind"])
    if cls is None:
        near = get_close_matches(match["kind"], _KINDS, cutoff=0.4)
        families = sorted({kind.partition(".")[0] for kind in _KINDS})
        raise UsageError(
            f"unknown block kind {match['kind'][:40]!r}; "
            + (f"the nearest known: {', '.join(near)}" if near else f"known families: {', '.join(families)}")
        )
    fields = {field.metadata["key"]: field for field in dataclasses.fields(cls) if "key" in field.metadata}
    values: dict[str, int | float] = {}
    for part in match["params"].split(","):
        name, _, text = part.partition("=")
        field = fields.get(name)
        number = float(text) if _NUMBER.fullmatch(text) else None
        if field is None or field.name in values or number is None or not 0 < number <= MAX_VALUE:
            raise UsageError(
                f"{part!r} is no parameter of {match['kind']} in {key!r}; it takes {', '.join(fields)}"
            )
        if field.type == "int" and number != int(number):
            raise UsageError(f"{name} must be a whole number in {key!r}")
        values[field.name] = int(number) if field.type == "int" else number
    missing = [name for name, field in fields.items() if field.name not in values]
    if missing:
        raise UsageError(f"{key!r} lacks {', '.join(missing)}")
    spec = cls(resolution=int(match["resolution"]), **values)
    if spec.key != key:
        raise UsageError(f"{key!r} is not in canonical form; write {spec.key!r}")
    return spec


def parse_keys(keys: Iterable[str]) -> tuple[BlockSpec, ...]:
    """`parse_key` for a sequence."""
    return tuple(parse_key(key) for key in keys)
