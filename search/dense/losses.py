"""Losses of detection (SSD, Liu et al. 2016) and segmentation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from search.dense.data import BoxTarget
from search.dense.scenes import VOID
from search.networks.outputs import encode, intersection_over_union

MATCHING_IOU = 0.5
"""Smallest overlap of a default box and its object, as in the paper and in torchvision's SSDLite."""

BACKGROUND = -1

NEGATIVES = 3
"""Background boxes that count per box with an object: those with the largest losses."""


def match(boxes: Tensor, default: Tensor, threshold: float = MATCHING_IOU) -> Tensor:
    """Assign an object to every default box (SSD, section 2.2).

    A default box gets the object that it overlaps most, if by at least the threshold; then each object gets its
    best default box, with any overlap.

    Args:
        boxes: (N, 4) left, top, right, bottom, 0 to 1.
        default: (A, 4) centre x and y, width, height, 0 to 1.
        threshold: Smallest overlap.

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


def multibox_loss(output: Tensor, default: Tensor, objects: Sequence[BoxTarget]) -> tuple[Tensor, Tensor]:
    """Return the class loss and the box loss of a batch (SSD, equations 1 to 3); their sum is minimised.

    The class loss is cross-entropy with hard negatives, the box loss smooth L1 of the offsets; both are divided by
    the number of default boxes that have an object.

    Args:
        output: (B, A, classes + 1 + 4): logits, the background first, and offsets.
        default: (A, 4) default boxes, centre x and y, width, height, 0 to 1.
        objects: Of each image.
    """
    matched = torch.stack([match(target.boxes, default) for target in objects])
    labels = torch.zeros_like(matched)
    found = matched >= 0
    offsets = []
    for image, target in enumerate(objects):
        own = matched[image][found[image]]
        labels[image][found[image]] = target.labels[own]
        offsets.append(encode(target.boxes[own], default[found[image]]))
    logits, predicted = output[..., :-4], output[..., -4:]
    count = max(1, int(found.sum()))
    box_loss = F.smooth_l1_loss(predicted[found], torch.cat(offsets), reduction="sum") / count
    losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
    counted = found | _hard_negatives(losses.detach(), found)
    return losses[counted].sum() / count, box_loss


def _hard_negatives(losses: Tensor, found: Tensor) -> Tensor:
    """Return (B, A) bool: of each image, the background boxes with the largest losses."""
    ranked = losses.masked_fill(found, -torch.inf).sort(1, descending=True).indices
    ranks = ranked.argsort(1)
    return (ranks < NEGATIVES * found.sum(1, keepdim=True)) & ~found


def pixel_loss(output: Tensor, masks: Tensor) -> Tensor:
    """Return the mean cross-entropy of the pixels that are not `VOID`; 0 where all are.

    Args:
        output: (B, classes + 1, h, w) logits, the background first; resized to the masks, as for inference.
        masks: (B, H, W) int64.
    """
    resized = F.interpolate(output, size=masks.shape[-2:], mode="bilinear", align_corners=False)
    summed = F.cross_entropy(resized, masks, ignore_index=VOID, reduction="sum")
    return summed / (masks != VOID).sum().clamp(min=1)
