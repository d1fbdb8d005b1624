"""Heads of detection and segmentation on any backbone, and names of networks and spaces that have one.

The space `SPACE.HEAD` has such a head instead of a classifier, and is profiled, searched and read as any
space is. So are networks by name: `mobilevit-xxs.ssdlite`, with 10 classes `mobilevit-xxs.ssdlite10`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from luts.format.errors import UsageError
from search.blocks import BlockSpec
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
from search.spaces.stages import TASK_HEADS, TaskHead, register_task_head

COCO_CLASSES = 80
VOC_CLASSES = 20

SSDLITE_MAPS = 2 + len(EXTRA_WIDTHS)
"""Most maps that SSDLite predicts on: two of the backbone, four extra ones; fewer if they end at one pixel."""

DEFAULT_HEADS: Mapping[str, str] = {"detection": "ssdlite", "segmentation": "deeplablite"}
"""Head of a task that names none."""

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
        if match is None or match["head"] not in TASK_HEADS:
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


def _check_map(head: str, side: int) -> None:
    if side < DEEPLAB_LEAST_SIDE:
        raise UsageError(
            f"{head} needs a last map of at least {DEEPLAB_LEAST_SIDE} px, the backbone's has {side} px; "
            "use a larger resolution",
            code="map_too_small",
        )


def deeplablite_ends(sides: tuple[int, ...], channels: int, classes: int) -> list[BlockSpec]:
    """Return the lite head on the last map."""
    _check_map("deeplablite", sides[-1])
    return [DeepLabLite(sides[-1], channels, classes, DEEPLAB_WIDTH)]


def deeplab_ends(sides: tuple[int, ...], channels: int, classes: int) -> list[BlockSpec]:
    """Return the whole DeepLabv3 head on the last map."""
    _check_map("deeplab", sides[-1])
    return [DeepLab(sides[-1], channels, classes, DEEPLAB_WIDTH, DEEPLAB_RATE)]


register_task_head("ssdlite", TaskHead("detection", COCO_CLASSES, ssdlite_ends, _predict))
register_task_head("deeplablite", TaskHead("segmentation", VOC_CLASSES, deeplablite_ends))
register_task_head("deeplab", TaskHead("segmentation", VOC_CLASSES, deeplab_ends))
