"""Stages and how their values become blocks, heads and the maps that they read.

Kinds of stages and heads are registered by name; a plug-in adds its own. The space `SPACE.HEAD` has a head of
detection or segmentation instead of a classifier, and is profiled, searched and read as any space is. So are
networks by name: `mobilevit-xxs.ssdlite`, with 10 classes `mobilevit-xxs.ssdlite10`.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar, get_args

from luts.format.errors import UsageError
from luts.format.registry import Registry
from search.blocks import BlockSpec
from search.blocks.spec import conv_out
from search.blocks.task_heads import (
    BOXES,
    DEEPLAB_LEAST_SIDE,
    DEEPLAB_RATE,
    DEEPLAB_WIDTH,
    EXTRA_WIDTHS,
    FINEST_SIDE,
    DeepLab,
    DeepLabLite,
    SsdExtra,
    SsdPredict,
)

Value = int | float

Task = Literal["classification", "detection", "segmentation"]

TASKS: tuple[Task, ...] = get_args(Task)

DEFAULT_HEADS: Mapping[str, str] = {"detection": "ssdlite", "segmentation": "deeplablite"}
"""Head of a task that names none."""

FIRST_STRIDE = 16
"""Stride of the first map that a detector predicts on (MobileNetV2, section 6.2; MobileViT, section 4.2.1)."""

Expand = Callable[[dict[str, Value], int, int], list[BlockSpec]]
"""A stage's constants and values by name, channels and side in pixels of its input -> its blocks in order."""

Canonical = Callable[[dict[str, Value], Mapping[str, tuple[Value, ...]]], dict[str, Value]]
"""A stage's constants and values by name, its choices -> those that stand for all with the same blocks."""

Slots = Callable[[dict[str, Value]], list[str]]
"""A stage's constants and values by name -> names of the supernet slots that its modules take, in order."""

MakeHead = Callable[[int, int, int], BlockSpec]
"""Side in pixels and channels of a map, classes -> the block of a head that reads it."""

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
        labels: Names of the values of choices between kinds, whose values are 0, 1, 2 and so on.
    """

    name: str
    kind: str
    fixed: tuple[tuple[str, Value], ...]
    choices: tuple[tuple[str, tuple[Value, ...]], ...]
    labels: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the searched values, in order."""
        return tuple(name for name, _ in self.choices)

    @cached_property
    def options(self) -> tuple[tuple[Value, ...], ...]:
        """Every combination of values, in lexicographic order; of those with the same blocks the canonical one."""
        products = itertools.product(*(values for _, values in self.choices))
        return tuple(dict.fromkeys(map(self.canonical, products)) if self.has_canonical else products)

    @property
    def has_canonical(self) -> bool:
        """Whether several combinations of values may have the same blocks."""
        return self.kind in STAGE_KINDS.items and STAGE_KINDS.items[self.kind].canonical is not None

    def canonical(self, values: tuple[Value, ...]) -> tuple[Value, ...]:
        """Return the combination that stands for all with the same blocks."""
        kind = STAGE_KINDS.items.get(self.kind)
        if kind is None or kind.canonical is None or len(values) != len(self.choices):
            return values
        chosen = kind.canonical(self.named(values), dict(self.choices))
        return tuple(chosen[name] for name in self.names)

    def value(self, values: tuple[Value, ...], name: str) -> Value:
        """Return the value called `name` of one combination."""
        return values[self.names.index(name)]

    def width(self, values: tuple[Value, ...]) -> int:
        """Return the output channels of one combination."""
        return int(self.value(values, "width"))

    def named(self, values: tuple[Value, ...]) -> dict[str, Value]:
        """Return constants and the values of one combination, by name."""
        return dict(self.fixed) | dict(zip(self.names, values, strict=True))

    def shown(self, name: str, value: Value) -> int | float | str:
        """Return a value as documents have it: the name of a kind, else the number, 2 for 2.0."""
        kinds = dict(self.labels).get(name)
        if kinds is not None:
            return kinds[int(value)]
        return int(value) if value == int(value) else value

    @cached_property
    def stride(self) -> int:
        """Side of the input map over that of the output map."""
        return int(dict(self.fixed)["stride"])

    def out_resolution(self, resolution: int) -> int:
        """Return the side of the map after the stage."""
        return conv_out(resolution, self.stride)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without cached properties."""
        return Stage, (self.name, self.kind, self.fixed, self.choices, self.labels)


@dataclass(frozen=True)
class StageKind:
    """How stages of one kind become blocks.

    Attributes:
        expand: Makes the blocks of one combination of values.
        slots: Names the supernet slots of the modules; None if the n-th module always takes the n-th slot.
        canonical: Chooses one of several combinations with the same blocks; None if there are none.
    """

    expand: Expand
    slots: Slots | None = None
    canonical: Canonical | None = None


STAGE_KINDS: Registry[StageKind] = Registry("stage kind")

Function = TypeVar("Function", bound=Expand)


def register_stage(
    kind: str, slots: Slots | None = None, canonical: Canonical | None = None
) -> Callable[[Function], Function]:
    """Register a function that makes the blocks of a kind of stage (decorator).

    Args:
        kind: Value of `Stage.kind`.
        slots: Needed if the n-th module of a stage is not always the same kind of block. Modules that take
            the same slot of a supernet share weights.
        canonical: Needed if some values have no effect with others, so that a network has one description.
    """

    def register(expand: Function) -> Function:
        STAGE_KINDS.add(kind, StageKind(expand, slots, canonical))
        return expand

    return register


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


@dataclass(frozen=True)
class Head:
    """What follows the stages of a network: a classifier, or a head of detection or segmentation.

    Attributes:
        task: The task.
        classes: Categories by default, without the background.
        ends: Makes the blocks after the last map; raises `UsageError` if the maps are too small.
        side: Makes the block after each earlier map that the head reads; None if it reads only the last map.
    """

    task: Task
    classes: int
    ends: MakeEnds
    side: MakeHead | None = None


HEADS: Registry[Head] = Registry("head")


def classifier(make: MakeHead) -> Head:
    """Return the head that is one block after the last map."""
    return Head("classification", 1000, lambda sides, channels, classes: [make(sides[-1], channels, classes)])


def register_head(name: str, make: MakeHead) -> None:
    """Register a classifier under the name that a space's `heads` use."""
    HEADS.add(name, classifier(make))


def expand_head(head: str, channels: int, sides: tuple[int, ...], classes: int) -> tuple[BlockSpec, ...]:
    """Return the blocks of a head after the last map.

    Args:
        head: Its name.
        channels: Channels of the last map.
        sides: Sides in pixels of the maps that the head reads, the last map's at the end.
        classes: Categories, without the background.

    Raises:
        UsageError: unknown head, or its maps are too small.
    """
    return tuple(HEADS.get(head).ends(sides, channels, classes))


def expand_side(head: str, channels: int, resolution: int, classes: int) -> BlockSpec:
    """Return the block of a head after an earlier map that it reads."""
    make = HEADS.get(head).side
    assert make is not None
    return make(resolution, channels, classes)


def tapped_stages(stages: Sequence[Stage], head: str) -> frozenset[int]:
    """Return the indices of the stages, before the last, whose map a head reads; none for a classifier.

    Of stages with maps of one size the last counts. Of those sizes all from stride `FIRST_STRIDE` on count,
    or the last two if fewer are as coarse (images of 32 or 64 px).
    """
    if HEADS.get(head).side is None:
        return frozenset()
    return _coarse_stages(tuple(stage.stride for stage in stages))


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


COCO_CLASSES = 80
VOC_CLASSES = 20

SSDLITE_MAPS = 2 + len(EXTRA_WIDTHS)
"""Most maps that SSDLite predicts on: two of the backbone, four extra ones; fewer if they end at one pixel."""

_NAME = re.compile(r"(?P<base>.+)\.(?P<head>[a-z]+)(?P<classes>[1-9][0-9]{0,4})?(?P<side>@[1-9][0-9]{0,3})?")


@dataclass(frozen=True)
class TaskName:
    """Name of a network or space with a task's head, in parts.

    Attributes:
        base: Name of the backbone, with `@PX` if the whole has it.
        head: Name of the head.
        classes: Number of classes, if the name gives it.
    """

    base: str
    head: str
    classes: int | None = None

    @classmethod
    def parse(cls, name: str) -> TaskName | None:
        """Return the parts of a name; None if it does not end in a task's head."""
        match = _NAME.fullmatch(name) if len(name) <= 120 else None
        head = HEADS.items.get(match["head"]) if match else None
        if match is None or head is None or head.task == "classification":
            return None
        classes = int(match["classes"]) if match["classes"] else None
        return cls(match["base"] + (match["side"] or ""), match["head"], classes)

    def __str__(self) -> str:
        """Return the name; the inverse of `parse`."""
        name, at, side = self.base.partition("@")
        return f"{name}.{self.head}{self.classes or ''}{at}{side}"


def _predict(resolution: int, channels: int, classes: int) -> BlockSpec:
    return SsdPredict(resolution, channels, BOXES, classes)


def ssdlite_ends(sides: tuple[int, ...], channels: int, classes: int) -> list[BlockSpec]:
    """Return the last map's predictor, then extra maps of half the side, each with its predictor."""
    if sides[0] < FINEST_SIDE:
        raise UsageError(
            f"ssdlite needs a map of at least {FINEST_SIDE} px, the backbone's largest of stride 16 and more has "
            f"{sides[0]} px; use a larger resolution",
            code="map_too_small",
        )
    blocks, side = [_predict(sides[-1], channels, classes)], sides[-1]
    for width in EXTRA_WIDTHS[: SSDLITE_MAPS - len(sides)]:
        if side == 1:
            break
        extra = SsdExtra(side, channels, width)
        side, channels = extra.out_resolution, width
        blocks += [extra, _predict(side, channels, classes)]
    return blocks


def deeplab_ends(name: str, kind: Callable[..., BlockSpec], *sizes: int) -> MakeEnds:
    """Return a function that makes a DeepLabv3 head of this kind, width and rate on the last map."""

    def ends(sides: tuple[int, ...], channels: int, classes: int) -> list[BlockSpec]:
        if sides[-1] < DEEPLAB_LEAST_SIDE:
            raise UsageError(
                f"{name} needs a last map of at least {DEEPLAB_LEAST_SIDE} px, the backbone's has {sides[-1]} px; "
                "use a larger resolution",
                code="map_too_small",
            )
        return [kind(sides[-1], channels, classes, *sizes)]

    return ends


LITE_ENDS = deeplab_ends("deeplablite", DeepLabLite, DEEPLAB_WIDTH)
WHOLE_ENDS = deeplab_ends("deeplab", DeepLab, DEEPLAB_WIDTH, DEEPLAB_RATE)

HEADS.add("ssdlite", Head("detection", COCO_CLASSES, ssdlite_ends, _predict))
HEADS.add("deeplablite", Head("segmentation", VOC_CLASSES, LITE_ENDS))
HEADS.add("deeplab", Head("segmentation", VOC_CLASSES, WHOLE_ENDS))
