"""Boxes and masks from a network's raw outputs, outside of the exported model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from search.blocks import BlockSpec
from search.blocks.task_heads import ASPECT_RATIOS, COORDINATES, SsdPredict
from search.blocks.timm_networks import TimmNetwork

SMALLEST, LARGEST = 0.2, 0.95
"""Scale of the boxes of the first and last map, as a fraction of the image (MobileNetV2, torchvision)."""


def levels_of(blocks: Iterable[BlockSpec]) -> tuple[int, ...]:
    """Return the sides in pixels of the maps that a detector predicts on; none for other networks."""
    levels: list[int] = []
    for block in blocks:
        if isinstance(block, TimmNetwork):
            levels += levels_of(block.head_blocks)
        elif isinstance(block, SsdPredict):
            levels.append(block.resolution)
    return tuple(levels)


def default_boxes(levels: Sequence[int]) -> Tensor:
    """Return SSD's default boxes (A, 4): centre x and y, width, height as fractions of the image.

    (Liu et al. 2016, section 2.2.) The order is that of a detector's output: map by map, row by row, pixel by
    pixel. Scales grow evenly from map to map. At each pixel: a square of its map's scale, a square of the
    geometric mean of that and the next map's scale, and for each aspect ratio a wide and a tall box of the
    scale's area.
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


WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""Factors of the offsets of centre x and y, width, height: the inverse of SSD's variances 0.1 and 0.2."""

MOST_GROWTH = math.log(1000.0 / 16.0)
"""Largest logarithm of a box's size over its default box's, so that an untrained network's boxes stay finite."""


def encode(boxes: Tensor, default: Tensor) -> Tensor:
    """Return offsets (N, 4) of boxes from default boxes (Liu et al. 2016, equation 2).

    Args:
        boxes: (N, 4) left, top, right, bottom as fractions of the image, with a width and a height.
        default: (N, 4) centre and size.
    """
    sizes = boxes[..., 2:] - boxes[..., :2]
    centres = boxes[..., :2] + 0.5 * sizes
    moved = (centres - default[..., :2]) / default[..., 2:]
    grown = (sizes / default[..., 2:]).log()
    return torch.cat((moved, grown), -1) * boxes.new_tensor(WEIGHTS)


def decode(offsets: Tensor, default: Tensor) -> Tensor:
    """Return boxes (..., A, 4) as left, top, right, bottom, not clipped to the image; the inverse of `encode`."""
    offsets = offsets / offsets.new_tensor(WEIGHTS)
    centres = offsets[..., :2] * default[..., 2:] + default[..., :2]
    sizes = offsets[..., 2:].clamp(max=MOST_GROWTH).exp() * default[..., 2:]
    return torch.cat((centres - 0.5 * sizes, centres + 0.5 * sizes), -1)


def intersection_over_union(first: Tensor, second: Tensor) -> Tensor:
    """Return (N, M) overlaps of boxes (N, 4) and (M, 4) given as left, top, right, bottom."""
    low = torch.maximum(first[:, None, :2], second[None, :, :2])
    high = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (first, second)]
    return shared / (areas[0][:, None] + areas[1][None, :] - shared).clamp(min=1e-12)


LEAST_SCORE, MOST_OVERLAP, CANDIDATES, MOST_DETECTIONS = 0.001, 0.55, 300, 300
"""Lowest score, largest overlap of two boxes of a class, boxes per class, detections per image (SSDLite320)."""


@dataclass(frozen=True)
class Detections:
    """Detections in one image, the highest score first.

    Attributes:
        boxes: (N, 4) as left, top, right, bottom, fractions of the image.
        scores: (N,).
        labels: (N,) from 1; 0 is the background.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


@torch.no_grad()
def detections(output: Tensor, default: Tensor, score: float = LEAST_SCORE) -> list[Detections]:
    """Return the detections in each image.

    Args:
        output: (B, A, classes + 1 + 4) of the network.
        default: (A, 4) of `default_boxes`.
        score: Boxes with a lower score are dropped.
    """
    default = default.to(output.device)
    scores = output[..., :-COORDINATES].float().softmax(-1)
    boxes = decode(output[..., -COORDINATES:].float(), default).clamp(0.0, 1.0)
    return [_of_image(own, places, score) for own, places in zip(scores, boxes, strict=True)]


def _of_image(scores: Tensor, boxes: Tensor, least: float) -> Detections:
    best, places = scores[:, 1:].topk(min(CANDIDATES, len(scores)), 0)
    place, label = (best > least).nonzero(as_tuple=True)
    own, where = best[place, label], places[place, label]
    order = own.argsort(descending=True, stable=True)
    own, where, label = own[order], where[order], label[order] + 1
    chosen = non_maximum_suppression(boxes[where], own, label, MOST_OVERLAP)[:MOST_DETECTIONS]
    return Detections(boxes[where][chosen], own[chosen], label[chosen])


def non_maximum_suppression(boxes: Tensor, scores: Tensor, labels: Tensor, overlap: float) -> Tensor:
    """Return the indices, ascending, of the boxes that stay.

    A box is dropped if a better one of its class that stays overlaps it by more than `overlap`.
    """
    from torchvision.ops import nms  # slow to import, and only detection needs it

    selected = [labels.new_zeros(0, dtype=torch.long)]
    for label in sorted(set(labels.tolist())):
        places = (labels == label).nonzero().flatten()
        selected.append(places[nms(boxes[places], scores[places], overlap)])
    return torch.cat(selected).sort().values


@torch.no_grad()
def masks(output: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the class of each pixel, (B, H, W), for outputs (B, classes + 1, h, w); 0 is the background.

    Logits are resized to `size` bilinearly before the maximum is taken, as in torchvision's DeepLabv3.
    """
    return F.interpolate(output, size, mode="bilinear", align_corners=False).argmax(1)
