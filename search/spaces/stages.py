"""Stages and how their values become blocks, heads and the maps that they read.

A kind of stage, a classifier and a head of another task are registered by name; a plug-in adds its own.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar

from luts.format.errors import UsageError, unknown
from luts.format.registry import Registry
from search.blocks import BlockSpec

Value = int | float

IMAGE_CHANNELS = 3

FIRST_STRIDE = 16
"""Stride of the first map that a detector predicts on (MobileNetV2, section 6.2; MobileViT, section 4.2.1)."""

Expand = Callable[[dict[str, Value], int, int], list[BlockSpec]]
"""A stage's constants and values by name, channels and side in pixels of its input -> its blocks in order."""

Slots = Callable[[dict[str, Value]], list[str]]
"""A stage's constants and values by name -> names of the supernet slots that its modules take, in order."""

MakeHead = Callable[[int, int, int], BlockSpec]
"""Side in pixels and channels of the last map, classes -> the classifier."""

MakeEnds = Callable[[tuple[int, ...], int, int], Sequence[BlockSpec]]
"""Sides in pixels of the maps that the head reads, channels of the last one, classes -> the blocks after it."""


@dataclass(frozen=True)
class Stage:
    """One stage: its family of blocks, what is fixed, and what is searched.

    Attributes:
        name: Unique in the space, for example `transformer2`.
        kind: Name of the registered function that makes its blocks.
        fixed: Named constants (stride, expansion, head_dim, ...); a stage always has `stride`.
        choices: Named tuples of candidate values in ascending order; a stage always has `width`.
    """

    name: str
    kind: str
    fixed: tuple[tuple[str, Value], ...]
    choices: tuple[tuple[str, tuple[Value, ...]], ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the searched values, in order."""
        return tuple(name for name, _ in self.choices)

    @cached_property
    def options(self) -> tuple[tuple[Value, ...], ...]:
        """Every combination of values, in lexicographic order."""
        return tuple(itertools.product(*(values for _, values in self.choices)))

    def value(self, values: tuple[Value, ...], name: str) -> Value:
        """Return the value called `name` of one combination."""
        return values[self.names.index(name)]

    def width(self, values: tuple[Value, ...]) -> int:
        """Return the output channels of one combination."""
        return int(self.value(values, "width"))

    def named(self, values: tuple[Value, ...]) -> dict[str, Value]:
        """Return constants and the values of one combination, by name."""
        return dict(self.fixed) | dict(zip(self.names, values, strict=True))

    def out_resolution(self, resolution: int) -> int:
        """Return the side of the map after the stage."""
        return (resolution - 1) // int(dict(self.fixed)["stride"]) + 1

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without cached properties."""
        return Stage, (self.name, self.kind, self.fixed, self.choices)


@dataclass(frozen=True)
class StageKind:
    """How stages of one kind become blocks.

    Attributes:
        expand: Makes the blocks of one combination of values.
        slots: Names the supernet slots of the modules; None if the n-th module always takes the n-th slot.
    """

    expand: Expand
    slots: Slots | None = None


@dataclass(frozen=True)
class TaskHead:
    """What a network of another task than classification has instead of a classifier.

    Attributes:
        task: The task.
        classes: Categories by default, without the background.
        ends: Makes the blocks after the last map; raises `UsageError` if the maps are too small.
        side: Makes the block after each earlier map that the head reads; None if it reads only the last map.
    """

    task: Literal["detection", "segmentation"]
    classes: int
    ends: MakeEnds
    side: MakeHead | None = None


STAGE_KINDS: Registry[StageKind] = Registry("stage kind")
HEADS: Registry[MakeHead] = Registry("head")
TASK_HEADS: Registry[TaskHead] = Registry("head")

Function = TypeVar("Function", bound=Expand)


def register_stage(kind: str, slots: Slots | None = None) -> Callable[[Function], Function]:
    """Register a function that makes the blocks of a kind of stage (decorator).

    Args:
        kind: Value of `Stage.kind`.
        slots: Needed if the n-th module of a stage is not always the same kind of block. Modules that take
            the same slot of a supernet share weights.
    """

    def register(expand: Function) -> Function:
        STAGE_KINDS.add(kind, StageKind(expand, slots))
        return expand

    return register


def register_head(name: str, make: MakeHead) -> None:
    """Register a classifier under the name that a space's `heads` use."""
    HEADS.add(name, make)


def register_task_head(name: str, head: TaskHead) -> None:
    """Register a head of another task under the name that follows the dot in `SPACE.HEAD`."""
    TASK_HEADS.add(name, head)


@functools.lru_cache(maxsize=1 << 16)
def expand_stage(
    stage: Stage, values: tuple[Value, ...], channels: int, resolution: int
) -> tuple[BlockSpec, ...]:
    """Return the blocks of one stage for the channels and side in pixels of its input.

    Raises:
        UsageError: unknown kind of stage.
    """
    return tuple(STAGE_KINDS.get(stage.kind).expand(stage.named(values), channels, resolution))


def names_slots(stage: Stage) -> bool:
    """Whether the stage's values decide which supernet slots its modules take."""
    return STAGE_KINDS.get(stage.kind).slots is not None


def stage_slots(stage: Stage, values: tuple[Value, ...], modules: int) -> list[str]:
    """Return the names of the supernet slots that a stage's modules take, in order."""
    slots = STAGE_KINDS.get(stage.kind).slots
    if slots is not None:
        return [f"{stage.name}_{role}" for role in slots(stage.named(values))[:modules]]
    return [f"{stage.name}_{index}" for index in range(modules)]


def expand_head(head: str, channels: int, sides: tuple[int, ...], classes: int) -> tuple[BlockSpec, ...]:
    """Return the classifier, or the blocks of a task's head after the last map.

    Args:
        head: Its name.
        channels: Channels of the last map.
        sides: Sides in pixels of the maps that the head reads, the last map's at the end.
        classes: Categories, without the background.

    Raises:
        UsageError: unknown head, or its maps are too small.
    """
    if head in TASK_HEADS:
        return tuple(TASK_HEADS.get(head).ends(sides, channels, classes))
    if head not in HEADS:
        known = (*HEADS.names(), *TASK_HEADS.names())
        raise UsageError(unknown("head", head, known), code="unknown_head")
    return (HEADS.get(head)(sides[-1], channels, classes),)


def expand_side(head: str, channels: int, resolution: int, classes: int) -> BlockSpec:
    """Return the block of a task's head after an earlier map that it reads."""
    make = TASK_HEADS.get(head).side
    assert make is not None
    return make(resolution, channels, classes)


def tapped_stages(stages: Sequence[Stage], head: str) -> frozenset[int]:
    """Return the indices of the stages, before the last, whose map a head reads; none for a classifier.

    Of stages with maps of one size the last counts. Of those sizes all from stride `FIRST_STRIDE` on count,
    or the last two if fewer are as coarse (images of 32 or 64 px).

    Args:
        stages: The network's stages, in order.
        head: Name of the head.
    """
    if head not in TASK_HEADS or TASK_HEADS.get(head).side is None:
        return frozenset()
    return _coarse_stages(tuple(int(dict(stage.fixed)["stride"]) for stage in stages))


@functools.lru_cache(maxsize=1024)
def _coarse_stages(strides: tuple[int, ...]) -> frozenset[int]:
    last = len(strides) - 1
    ends = [index for index in range(len(strides)) if index == last or strides[index + 1] > 1]
    coarse = [index for index in ends if math.prod(strides[: index + 1]) >= FIRST_STRIDE]
    return frozenset(coarse if len(coarse) > 1 else ends[-2:]) - {last}


def map_sides(stages: Sequence[Stage], head: str, resolution: int) -> tuple[int, ...]:
    """Return the sides in pixels of the maps of these stages that a head reads, the last map's at the end."""
    sides, side = [], resolution
    tapped = tapped_stages(stages, head)
    for index, stage in enumerate(stages):
        side = stage.out_resolution(side)
        if index in tapped:
            sides.append(side)
    return (*sides, side)
