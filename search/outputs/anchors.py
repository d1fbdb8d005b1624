"""Default boxes of SSD (Liu et al. 2016, section 2.2), in the order of a detector's output."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from search.blocks import BlockSpec
from search.blocks.ssdlite import ASPECT_RATIOS, SsdPredict
from search.blocks.whole_maps import WholeTaskNetwork

SMALLEST, LARGEST = 0.2, 0.95
"""Scale of the boxes of the first and of the last map, as a part of the image (MobileNetV2's and torchvision's)."""


def levels_of(blocks: Iterable[BlockSpec]) -> tuple[int, ...]:
    """Sides in pixels of the maps that a network predicts on; none where it is not a detector."""
    levels: list[int] = []
    for block in blocks:
        if isinstance(block, WholeTaskNetwork):
            levels += levels_of(block.head_blocks)
        elif isinstance(block, SsdPredict):
            levels.append(block.resolution)
    return tuple(levels)


def default_boxes(levels: Sequence[int]) -> Tensor:
    """(A, 4): centre x and y, width, height as parts of the image, map by map, row by row, place by place.

    Scales grow evenly from map to map. At each place: a square of its map's scale, a square of the geometric mean
    of that and the next map's, and for each aspect ratio a lying and a standing box of the scale's area.
    """
    steps = max(len(levels) - 1, 1)
    scales = [SMALLEST + (LARGEST - SMALLEST) * level / steps for level in range(len(levels))] + [1.0]
    boxes: list[Tensor] = []
    for level, side in enumerate(levels):
        scale, between = scales[level], math.sqrt(scales[level] * scales[level + 1])
        sizes = [(scale, scale), (between, between)]
        for ratio in ASPECT_RATIOS:
            long, short = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
            sizes += [(long, short), (short, long)]
        centres = (torch.arange(side) + 0.5) / side
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        places = torch.stack((x, y), -1).reshape(-1, 1, 2).expand(-1, len(sizes), 2)
        shapes = torch.tensor(sizes).clamp(max=1.0).expand(side * side, -1, 2)
        boxes.append(torch.cat((places, shapes), -1).reshape(-1, 4))
    return torch.cat(boxes)
