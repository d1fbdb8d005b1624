"""Kinds of blocks by name, and blocks by their keys."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import TypeVar

from luts.format.errors import UsageError, close_names
from search.blocks.spec import BlockSpec

MAX_KEY_CHARS = 200
"""Longest key that is parsed; the longest of any registered space has 61 characters."""

MAX_VALUE = 1 << 16
"""Largest number in a key: keeps products of a hostile key within machine integers."""

_KEY = re.compile(r"(?P<kind>[a-z][a-z0-9_.]*)\((?P<params>[^()]*)\)@(?P<resolution>[1-9][0-9]{0,4})")
_KIND = re.compile(r"[a-z][a-z0-9_.]*")
_NUMBER = re.compile(r"[0-9]{1,6}(\.[0-9]{1,4})?")
_KINDS: dict[str, type[BlockSpec]] = {}

Spec = TypeVar("Spec", bound=type[BlockSpec])


def register(cls: Spec) -> Spec:
    """Class decorator: make a kind known to `parse_key`.

    Raises:
        UsageError: the kind is known already, lacks something, or its examples are not keys of it.
    """
    kind = getattr(cls, "kind", "")
    if not _KIND.fullmatch(kind):
        raise UsageError(f"block {cls.__name__} needs a `kind` of a-z, 0-9, dots and _, not {kind!r}")
    if kind in _KINDS:
        raise UsageError(f"block kind {kind!r} is registered twice, first in {_KINDS[kind].__module__}")
    if missing := sorted(getattr(cls, "__abstractmethods__", ())):
        raise UsageError(f"block kind {kind!r} does not say {', '.join(missing)}")
    if not getattr(cls, "examples", ()):
        raise UsageError(f"block kind {kind!r} has no `examples`; give the keys of small ones")
    _KINDS[kind] = cls
    try:
        _check_examples(cls)
    except UsageError:
        del _KINDS[kind]
        raise
    return cls


def _check_examples(cls: type[BlockSpec]) -> None:
    """`UsageError` where a key that a kind gives as an example is not one of it."""
    for example in cls.examples:
        try:
            spec = parse_key(example)
        except UsageError as error:
            raise UsageError(f"block kind {cls.kind!r}: wrong example; {error}") from error
        if type(spec) is not cls:
            raise UsageError(f"block kind {cls.kind!r}: {example!r} is not an example of it")


def kinds() -> dict[str, type[BlockSpec]]:
    """Every registered kind."""
    return dict(_KINDS)


def parse_key(key: str) -> BlockSpec:
    """Turn a key back into its block; `parse_key(spec.key) == spec`.

    Raises:
        UsageError: the text is not a key, its kind is unknown, or a parameter is missing, extra or malformed.
    """
    match = _KEY.fullmatch(key) if len(key) <= MAX_KEY_CHARS else None
    if match is None:
        raise UsageError(f"{key[:80]!r} is not a block key; keys read kind(name=value,...)@resolution")
    cls = _KINDS.get(match["kind"])
    if cls is None:
        near = close_names(match["kind"], _KINDS, 3, 0.4)
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
                f"{part!r} is not a parameter of {match['kind']} in {key!r}; it takes {', '.join(fields)}"
            )
        if field.type in ("int", int) and number != int(number):
            raise UsageError(f"{name} must be a whole number in {key!r}")
        values[field.name] = int(number) if field.type in ("int", int) else number
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
