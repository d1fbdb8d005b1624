"""The loss of SSD (Liu et al. 2016, equations 1 to 3): classes with hard negatives, and smooth L1 of boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from search.dense.data.batches import BoxTarget
from search.dense.loss.matching import match
from search.outputs.boxes import encode

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
