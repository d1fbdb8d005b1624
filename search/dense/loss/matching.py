"""Which object a default box is to find: the matching of SSD (Liu et al. 2016, section 2.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from search.outputs.boxes import intersection_over_union

MATCHING_IOU = 0.5
"""Least overlap of a default box and its object, as in the paper and in torchvision's SSDLite."""

BACKGROUND = -1


def match(boxes: Tensor, default: Tensor, threshold: float = MATCHING_IOU) -> Tensor:
    """The object of every default box.

    A default box takes the object that it overlaps most, if by the threshold; then each object its best default
    box, whatever the overlap.

    Args:
        boxes: (N, 4) left, top, right, bottom, 0 to 1.
        default: (A, 4) centre x and y, width, height, 0 to 1.
        threshold: Least overlap.

    Returns:
        (A,) int64, an index into `boxes` or `BACKGROUND`.
    """
    if not len(boxes):
        return default.new_full((len(default),), BACKGROUND, dtype=torch.int64)
    corners = torch.cat((default[:, :2] - default[:, 2:] / 2, default[:, :2] + default[:, 2:] / 2), 1)
    overlap = intersection_over_union(boxes, corners)
    best, matched = overlap.max(0)
    matched[best < threshold] = BACKGROUND
    matched[overlap.argmax(1)] = torch.arange(len(boxes), device=boxes.device)
    return matched
