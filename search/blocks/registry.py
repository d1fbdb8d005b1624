"""Kinds of blocks by name, and blocks by their keys."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import TypeVar

from luts.format.errors import UsageError, close_names
from luts.format.registry import Registry
from search.blocks.spec import BlockSpec

MAX_KEY_CHARS = 200
"""Longest key that is parsed; the longest of any registered space has 61 characters."""

MAX_VALUE = 1 << 16
"""Largest number in a key: keeps products of a hostile key within machine integers."""

_KEY = re.compile(r"(?P<kind>[a-z][a-z0-9_.]*)\((?P<params>[^()]*)\)@(?P<resolution>[1-9][0-9]{0,4})")
_KIND = re.compile(r"[a-z][a-z0-9_.]*")
_NUMBER = re.compile(r"[0-9]{1,6}(\.[0-9]{1,4})?")

KINDS: Registry[type[BlockSpec]] = Registry("block kind")

Spec = TypeVar("Spec", bound=type[BlockSpec])


def register(cls: Spec) -> Spec:
    """Register a kind of block, so that `parse_key` knows it (class decorator).

    Raises:
        UsageError: the name is invalid or taken, something is missing, or an example is not a key of the kind.
    """
    kind = getattr(cls, "kind", "")
    if not _KIND.fullmatch(kind):
        raise UsageError(
            f"block {cls.__name__} needs a `kind` of a-z, 0-9, dots and _, not {kind!r}",
            code="incomplete_block_kind",
        )
    if missing := sorted(getattr(cls, "__abstractmethods__", ())):
        raise UsageError(
            f"block kind {kind!r} does not define {', '.join(missing)}", code="incomplete_block_kind"
        )
    if not getattr(cls, "examples", ()):
        raise UsageError(
            f"block kind {kind!r} has no `examples`; add keys of small blocks", code="incomplete_block_kind"
        )
    KINDS.add(kind, cls)
    try:
        _check_examples(cls)
    except UsageError:
        del KINDS.items[kind]
        raise
    return cls


def _check_examples(cls: type[BlockSpec]) -> None:
    """Raise `UsageError` if one of the kind's examples is not a key of it."""
    for example in cls.examples:
        try:
            spec = parse_key(example)
        except UsageError as error:
            raise UsageError(
                f"block kind {cls.kind!r}: wrong example; {error}", code="wrong_block_example"
            ) from error
        if type(spec) is not cls:
            raise UsageError(
                f"block kind {cls.kind!r}: {example!r} is a key of another kind", code="wrong_block_example"
            )


def kinds() -> dict[str, type[BlockSpec]]:
    """Return every registered kind by name."""
    return dict(KINDS.items)


def parse_key(key: str) -> BlockSpec:
    """Return the block of a key; `parse_key(spec.key) == spec`.

    Raises:
        UsageError: the text is not a key, its kind is unknown, or a parameter is missing, extra or malformed.
    """
    match = _KEY.fullmatch(key) if len(key) <= MAX_KEY_CHARS else None
    if match is None:
        raise _invalid(f"{key[:80]!r} is not a block key; keys read kind(name=value,...)@resolution")
    cls = KINDS.items.get(match["kind"])
    if cls is None:
        raise _unknown_kind(match["kind"])
    fields = {field.metadata["key"]: field for field in dataclasses.fields(cls) if "key" in field.metadata}
    values: dict[str, int | float] = {}
    for part in match["params"].split(","):
        name, _, text = part.partition("=")
        field = fields.get(name)
        number = float(text) if _NUMBER.fullmatch(text) else None
        if field is None or field.name in values or number is None or not 0 < number <= MAX_VALUE:
            raise _invalid(
                f"{part!r} is not a parameter of {match['kind']} in {key!r}; it takes {', '.join(fields)}"
            )
        whole = field.type in ("int", int)
        if whole and number != int(number):
            raise _invalid(f"{name} must be a whole number in {key!r}")
        values[field.name] = int(number) if whole else number
    missing = [name for name, field in fields.items() if field.name not in values]
    if missing:
        raise _invalid(f"{key!r} lacks {', '.join(missing)}")
    spec = cls(resolution=int(match["resolution"]), **values)
    if spec.key != key:
        raise _invalid(f"{key!r} is not in canonical form; write {spec.key!r}")
    return spec


def _invalid(message: str) -> UsageError:
    return UsageError(message, code="invalid_block_key")


def _unknown_kind(kind: str) -> UsageError:
    near = close_names(kind, KINDS.items, 3, 0.4)
    families = sorted({name.partition(".")[0] for name in KINDS.items})
    hint = f"did you mean {' or '.join(near)}?" if near else f"known families: {', '.join(families)}"
    return UsageError(f"unknown block kind {kind[:40]!r}; {hint}", code="unknown_block_kind")


def parse_keys(keys: Iterable[str]) -> tuple[BlockSpec, ...]:
    """Return the blocks of a sequence of keys."""
    return tuple(parse_key(key) for key in keys)
