"""How a stage's choice becomes blocks: by the stage's kind, each of which a family's file registers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from luts.format.errors import UsageError
from luts.format.messages import unknown
from search.blocks import BlockSpec
from search.spaces.layout import Stage, Value

Expand = Callable[[dict[str, Value], int, int], list[BlockSpec]]
"""A stage's constants and values by name, channels and side in pixels of its input -> its blocks in order."""

Slots = Callable[[dict[str, Value]], list[str]]
"""A stage's constants and values by name -> names of the slots in a supernet that its modules take, in order; those
that fewer modules leave over stay empty."""

MakeHead = Callable[[int, int, int], BlockSpec]
"""Side in pixels and channels of the last map, classes -> the classifier."""

Function = TypeVar("Function", bound=Callable[..., Any])

_STAGES: dict[str, Expand] = {}
_SLOTS: dict[str, Slots] = {}
_HEADS: dict[str, MakeHead] = {}


def register_stage(kind: str, slots: Slots | None = None) -> Callable[[Expand], Expand]:
    """Decorator: make a kind of stage known.

    Args:
        kind: What `Stage.kind` says.
        slots: Needed where the n-th module of a stage isn't always of the same kind of block: modules that take
            the same slot of a supernet share weights.
    """

    def known(expand: Expand) -> Expand:
        _add(_STAGES, "stage kind", kind, expand)
        if slots is not None:
            _SLOTS[kind] = slots
        return expand

    return known


def register_head(name: str, make: MakeHead) -> None:
    """Make a classifier known by the name that a space's `heads` have."""
    _add(_HEADS, "head", name, make)


def is_head(name: str) -> bool:
    """Whether a classifier is known by that name."""
    return name in _HEADS


def _add(table: dict[str, Function], what: str, name: str, function: Function) -> None:
    if name in table:
        raise UsageError(f"{what} {name!r} is registered twice, first in {table[name].__module__}")
    table[name] = function


@functools.lru_cache(maxsize=1 << 16)
def expand_stage(
    stage: Stage, values: tuple[Value, ...], channels: int, resolution: int
) -> tuple[BlockSpec, ...]:
    """Blocks of one stage, given its input's channels and side in pixels; `UsageError` for an unknown kind."""
    if stage.kind not in _STAGES:
        raise UsageError(unknown("stage kind", stage.kind, _STAGES))
    return tuple(_STAGES[stage.kind](stage.named(values), channels, resolution))


def stage_slots(stage: Stage, values: tuple[Value, ...], modules: int) -> list[str]:
    """Names of the supernet's slots that a stage's modules take, in order."""
    if stage.kind in _SLOTS:
        return [f"{stage.name}_{role}" for role in _SLOTS[stage.kind](stage.named(values))[:modules]]
    return [f"{stage.name}_{index}" for index in range(modules)]


def expand_head(head: str, channels: int, resolution: int, classes: int) -> BlockSpec:
    """The classifier block; `UsageError` for an unknown one."""
    if head not in _HEADS:
        raise UsageError(unknown("head", head, _HEADS))
    return _HEADS[head](resolution, channels, classes)
