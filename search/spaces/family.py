"""How a stage's choice becomes blocks: by the stage's kind, each of which a family's file registers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from luts.format.errors import UsageError, unknown
from search.blocks import BlockSpec
from search.spaces.layout import Stage, Value

Expand = Callable[[dict[str, Value], int, int], list[BlockSpec]]
"""A stage's constants and values by name, channels and side in pixels of its input -> its blocks in order."""

Slots = Callable[[dict[str, Value]], list[str]]
"""A stage's constants and values by name -> names of the slots in a supernet that its modules take, in order; those
that fewer modules leave over stay empty."""

MakeHead = Callable[[int, int, int], BlockSpec]
"""Side in pixels and channels of the last map, classes -> the classifier."""

MakeEnds = Callable[[tuple[int, ...], int, int], Sequence[BlockSpec]]
"""Sides in pixels of the maps that the head takes, channels of the last one, classes -> the blocks after it."""

Task = Literal["detection", "segmentation"]


@dataclass(frozen=True)
class TaskHead:
    """What another task than classification has in the classifier's place.

    Attributes:
        task: Which.
        classes: Categories by default, the background not among them.
        ends: Makes the blocks after the last map; `UsageError` where the maps are too small.
        side: Makes the block after each earlier map that the head takes; None where it takes the last map alone.
    """

    task: Task
    classes: int
    ends: MakeEnds
    side: MakeHead | None = None


Known = TypeVar("Known")

_STAGES: dict[str, Expand] = {}
_SLOTS: dict[str, Slots] = {}
_HEADS: dict[str, MakeHead] = {}
_TASK_HEADS: dict[str, TaskHead] = {}


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


def register_task_head(name: str, head: TaskHead) -> None:
    """Make a head of another task known, by the name that siblings of spaces have behind their dot."""
    _add(_TASK_HEADS, "head", name, head)


def is_head(name: str) -> bool:
    """Whether a classifier is known by that name."""
    return name in _HEADS


def task_heads() -> dict[str, TaskHead]:
    """Heads of other tasks than classification, by name."""
    return dict(_TASK_HEADS)


def task_head(name: str) -> TaskHead | None:
    """The head of another task by that name; None for a classifier."""
    return _TASK_HEADS.get(name)


def _add(table: dict[str, Known], what: str, name: str, made: Known) -> None:
    if name in table:
        raise UsageError(f"{what} {name!r} is registered twice, first in {table[name].__module__}")
    table[name] = made


@functools.lru_cache(maxsize=1 << 16)
def expand_stage(
    stage: Stage, values: tuple[Value, ...], channels: int, resolution: int
) -> tuple[BlockSpec, ...]:
    """Blocks of one stage, given its input's channels and side in pixels; `UsageError` for an unknown kind."""
    if stage.kind not in _STAGES:
        raise UsageError(unknown("stage kind", stage.kind, _STAGES))
    return tuple(_STAGES[stage.kind](stage.named(values), channels, resolution))


def names_slots(stage: Stage) -> bool:
    """Whether the values of a stage's choices decide which slots of a supernet its modules take."""
    return stage.kind in _SLOTS


def stage_slots(stage: Stage, values: tuple[Value, ...], modules: int) -> list[str]:
    """Names of the supernet's slots that a stage's modules take, in order."""
    if stage.kind in _SLOTS:
        return [f"{stage.name}_{role}" for role in _SLOTS[stage.kind](stage.named(values))[:modules]]
    return [f"{stage.name}_{index}" for index in range(modules)]


def expand_head(head: str, channels: int, sides: tuple[int, ...], classes: int) -> tuple[BlockSpec, ...]:
    """The classifier, or the blocks of a task's head after the last map.

    Args:
        head: Its name.
        channels: Of the last map.
        sides: Of the maps that the head takes, in pixels, the last map's at the end; a classifier takes that alone.
        classes: Categories, the background not among them.

    Raises:
        UsageError: an unknown head, or maps that are too small for it.
    """
    if head in _TASK_HEADS:
        return tuple(_TASK_HEADS[head].ends(sides, channels, classes))
    if head not in _HEADS:
        raise UsageError(unknown("head", head, _HEADS | _TASK_HEADS))
    return (_HEADS[head](sides[-1], channels, classes),)


def expand_side(head: str, channels: int, resolution: int, classes: int) -> BlockSpec:
    """The block of a task's head after an earlier map that it takes."""
    make = _TASK_HEADS[head].side
    assert make is not None
    return make(resolution, channels, classes)
