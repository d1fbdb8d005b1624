"""Boxes as offsets from default boxes and back (Liu et al. 2016, equation 2, with the usual variances)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""Of the offsets of centre x and y, width, height: the inverse of SSD's variances 0.1 and 0.2."""

MOST_GROWTH = math.log(1000.0 / 16.0)
"""Largest logarithm of a box's size over its default box's, so that an untrained network's boxes stay finite."""


def encode(boxes: Tensor, default: Tensor) -> Tensor:
    """Offsets (N, 4) of boxes (N, 4) as left, top, right, bottom from default boxes (N, 4) as centre and size.

    All are parts of the image. Boxes must have a width and a height.
    """
    sizes = boxes[..., 2:] - boxes[..., :2]
    centres = boxes[..., :2] + 0.5 * sizes
    moved = (centres - default[..., :2]) / default[..., 2:]
    grown = (sizes / default[..., 2:]).log()
    return torch.cat((moved, grown), -1) * boxes.new_tensor(WEIGHTS)


def decode(offsets: Tensor, default: Tensor) -> Tensor:
    """Boxes (..., A, 4) as left, top, right, bottom, not cut at the image's edges; the inverse of `encode`."""
    offsets = offsets / offsets.new_tensor(WEIGHTS)
    centres = offsets[..., :2] * default[..., 2:] + default[..., :2]
    sizes = offsets[..., 2:].clamp(max=MOST_GROWTH).exp() * default[..., 2:]
    return torch.cat((centres - 0.5 * sizes, centres + 0.5 * sizes), -1)


def intersection_over_union(first: Tensor, second: Tensor) -> Tensor:
    """(N, M) of boxes (N, 4) and (M, 4) as left, top, right, bottom."""
    low = torch.maximum(first[:, None, :2], second[None, :, :2])
    high = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (first, second)]
    return shared / (areas[0][:, None] + areas[1][None, :] - shared).clamp(min=1e-12)
