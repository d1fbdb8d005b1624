"""Detections of a detector's raw output: scores, decoding, non-maximum suppression, as torchvision's SSDLite320."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from search.blocks.ssdlite import COORDINATES
from search.outputs.boxes import decode, intersection_over_union

LEAST_SCORE, MOST_OVERLAP, CANDIDATES, MOST_DETECTIONS = 0.001, 0.55, 300, 300
"""Of torchvision's SSDLite320: of a box that is looked at, between two that are kept, looked at of each class, kept
in an image."""


@dataclass(frozen=True)
class Detections:
    """What was found in one image, the highest score first.

    Attributes:
        boxes: (N, 4) as left, top, right, bottom, parts of the image.
        scores: (N,).
        labels: (N,) from 1; 0 is the background.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


@torch.no_grad()
def detections(
    output: Tensor,
    default: Tensor,
    *,
    score: float = LEAST_SCORE,
    overlap: float = MOST_OVERLAP,
    candidates: int = CANDIDATES,
    most: int = MOST_DETECTIONS,
) -> list[Detections]:
    """What a detector found in each image.

    Args:
        output: (B, A, classes + 1 + 4) of the network.
        default: (A, 4) of `default_boxes`.
        score: Boxes below it are left out.
        overlap: Of two boxes of a class that overlap by more than this part of their union, the better is kept.
        candidates: Boxes of each class that are looked at, the best ones.
        most: Detections of an image.
    """
    default = default.to(output.device)
    scores = output[..., :-COORDINATES].float().softmax(-1)
    boxes = decode(output[..., -COORDINATES:].float(), default).clamp(0.0, 1.0)
    return [
        _of_image(own, places, score, overlap, candidates, most)
        for own, places in zip(scores, boxes, strict=True)
    ]


def _of_image(
    scores: Tensor, boxes: Tensor, least: float, overlap: float, candidates: int, most: int
) -> Detections:
    best, places = scores[:, 1:].topk(min(candidates, len(scores)), 0)
    place, label = (best > least).nonzero(as_tuple=True)
    own, where = best[place, label], places[place, label]
    order = own.argsort(descending=True, stable=True)
    own, where, label = own[order], where[order], label[order] + 1
    kept = suppressed(boxes[where], label, overlap)[:most]
    return Detections(boxes[where][kept], own[kept], label[kept])


def suppressed(boxes: Tensor, labels: Tensor, overlap: float) -> Tensor:
    """Places of the boxes that non-maximum suppression keeps, class by class; boxes come with the best first.

    A box goes where a kept one before it, of its class, overlaps it by more than `overlap`.
    """
    kept: list[Tensor] = []
    for label in sorted(set(labels.tolist())):
        places = (labels == label).nonzero().flatten()
        shared = (intersection_over_union(boxes[places], boxes[places]) > overlap).cpu().numpy()
        alive = [True] * len(places)
        for index in range(len(places)):
            if alive[index]:
                for other in shared[index, index + 1 :].nonzero()[0]:
                    alive[index + 1 + int(other)] = False
        kept.append(places[torch.tensor(alive, device=places.device)])
    return torch.cat(kept).sort().values if kept else labels.new_zeros(0, dtype=torch.long)
