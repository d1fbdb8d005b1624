"""Which object a default box is to find: the matching of SSD (Liu et al. 2016, section 2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from search.dense.data import BoxTarget
from search.dense.scenes import VOID
from search.networks.outputs import encode, intersection_over_union

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


NEGATIVES = 3
"""Default boxes of background that count for each that has an object: the worst ones."""


@dataclass(frozen=True)
class MultiboxLoss:
    """Scalars; what is learned from is their sum.

    Attributes:
        classes: Cross-entropy, over the number of default boxes that have an object.
        boxes: Smooth L1 of the offsets, over the same.
    """

    classes: Tensor
    boxes: Tensor

    @property
    def total(self) -> Tensor:
        """Their sum, equally weighted."""
        return self.classes + self.boxes


def multibox_loss(output: Tensor, default: Tensor, objects: Sequence[BoxTarget]) -> MultiboxLoss:
    """The loss of a batch.

    Args:
        output: (B, A, classes + 1 + 4): logits, the background first, and offsets.
        default: (A, 4) default boxes, centre x and y, width, height, 0 to 1.
        objects: Of each image.
    """
    matched = torch.stack([match(one.boxes, default) for one in objects])
    labels = torch.zeros_like(matched)
    found = matched >= 0
    offsets = []
    for image, one in enumerate(objects):
        own = matched[image][found[image]]
        labels[image][found[image]] = one.labels[own]
        offsets.append(encode(one.boxes[own], default[found[image]]))
    logits, guessed = output[..., :-4], output[..., -4:]
    count = max(1, int(found.sum()))
    boxes = F.smooth_l1_loss(guessed[found], torch.cat(offsets), reduction="sum") / count
    losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
    counted = found | _worst(losses.detach(), found)
    return MultiboxLoss(losses[counted].sum() / count, boxes)


def _worst(losses: Tensor, found: Tensor) -> Tensor:
    """(B, A) bool: of each image, the default boxes of background with the largest losses."""
    ranked = losses.masked_fill(found, -torch.inf).sort(1, descending=True).indices
    ranks = ranked.argsort(1)
    return (ranks < NEGATIVES * found.sum(1, keepdim=True)) & ~found


def pixel_loss(output: Tensor, masks: Tensor) -> Tensor:
    """A scalar, the mean over the pixels that are not `VOID`; 0 where all are.

    Args:
        output: (B, classes + 1, h, w) logits, the background first; stretched to the masks, as for inference.
        masks: (B, H, W) int64.
    """
    stretched = F.interpolate(output, size=masks.shape[-2:], mode="bilinear", align_corners=False)
    summed = F.cross_entropy(stretched, masks, ignore_index=VOID, reduction="sum")
    return summed / (masks != VOID).sum().clamp(min=1)
