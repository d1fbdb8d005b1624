"""Heads of detection and segmentation on any backbone: SSDLite, and DeepLabv3 with its whole or a lite head.

A space's sibling `SPACE.HEAD` has such a head in the classifier's place, and is profiled, searched and read as any
space is; so are networks by name: `mobilevit-xxs.ssdlite`.
"""

from __future__ import annotations

from collections.abc import Mapping

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
from search.spaces.family import TaskHead, register_task_head

COCO_CLASSES = 80
VOC_CLASSES = 20

LEVELS = 2 + len(EXTRA_WIDTHS)
"""Maps that SSDLite predicts on at most: two of the backbone, four extra ones; fewer end at one pixel."""

DEFAULT_HEADS: Mapping[str, str] = {"detection": "ssdlite", "segmentation": "deeplablite"}
"""By task."""


def _predict(resolution: int, channels: int, classes: int) -> BlockSpec:
    return SsdPredict(resolution, channels, BOXES, classes)


def ssdlite_ends(sides: tuple[int, ...], channels: int, classes: int) -> list[BlockSpec]:
    """The last map's predictor, then extra maps of half the side, each with its predictor."""
    if sides[0] < FINEST_SIDE:
        raise UsageError(
            f"ssdlite needs a map of at least {FINEST_SIDE} px, the backbone's largest of stride 16 and more has "
            f"{sides[0]} px; take a larger resolution"
        )
    blocks, side = [_predict(sides[-1], channels, classes)], sides[-1]
    for width in EXTRA_WIDTHS[: LEVELS - len(sides)]:
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
            "take a larger resolution"
        )


def deeplablite_ends(sides: tuple[int, ...], channels: int, classes: int) -> list[BlockSpec]:
    """The lite head on the last map."""
    _check_map("deeplablite", sides[-1])
    return [DeepLabLite(sides[-1], channels, classes, DEEPLAB_WIDTH)]


def deeplab_ends(sides: tuple[int, ...], channels: int, classes: int) -> list[BlockSpec]:
    """The whole head on the last map."""
    _check_map("deeplab", sides[-1])
    return [DeepLab(sides[-1], channels, classes, DEEPLAB_WIDTH, DEEPLAB_RATE)]


register_task_head("ssdlite", TaskHead("detection", COCO_CLASSES, ssdlite_ends, _predict))
register_task_head("deeplablite", TaskHead("segmentation", VOC_CLASSES, deeplablite_ends))
register_task_head("deeplab", TaskHead("segmentation", VOC_CLASSES, deeplab_ends))
