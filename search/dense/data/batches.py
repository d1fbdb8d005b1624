"""Batches of images with what is to be learned from them, the same for the same seed on every machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from search.dense.data.augment import cropped_boxes, cropped_mask, normalised, scaled
from search.dense.data.scene import Scenes, Task
from search.supernet.data.images import IMAGENET, Normalization


@dataclass(frozen=True)
class BoxTarget:
    """Objects of one image.

    Attributes:
        boxes: (N, 4) float32 left, top, right, bottom, 0 to 1 of the image.
        labels: (N,) int64 from 1.
    """

    boxes: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> BoxTarget:
        """The same there."""
        return BoxTarget(self.boxes.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Batch:
    """Images (B, 3, side, side), normalised, and of each its objects, or a mask (B, side, side) int64."""

    images: Tensor
    objects: Sequence[BoxTarget]
    masks: Tensor | None


def training_batch(
    scenes: Scenes, task: Task, indices: np.ndarray, side: int, seed: tuple[int, ...], augmented: bool = True
) -> Batch:
    """A batch of training images; `seed`: with an image's index it decides all that is random about it."""
    images, objects, masks = [], [], []
    for index in map(int, indices):
        pixels = _tensor(scenes.image(index))
        own = int(np.random.SeedSequence([*seed, index]).generate_state(1)[0])
        if task == "detection":
            pixels, target = _boxed(scenes, index, pixels, own if augmented else None)
            objects.append(target)
        else:
            mask = torch.from_numpy(np.array(scenes.mask(index)))
            if augmented:
                pixels, mask = cropped_mask(pixels, mask, side, own)
            else:
                mask = _nearest(mask, side)
            masks.append(mask.long())
        images.append(scaled(pixels, side))
    return Batch(
        normalised(torch.stack(images), IMAGENET.mean, IMAGENET.std),
        objects,
        torch.stack(masks) if masks else None,
    )


def plain_batches(
    scenes: Scenes, indices: np.ndarray, side: int, size: int, normalization: Normalization = IMAGENET
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Indices and images of all of `indices` in order, stretched to `side` and not augmented."""
    for start in range(0, len(indices), size):
        part = indices[start : start + size]
        images = torch.stack([scaled(_tensor(scenes.image(int(index))), side) for index in part])
        yield part, normalised(images, normalization.mean, normalization.std)


def _boxed(scenes: Scenes, index: int, pixels: Tensor, seed: int | None) -> tuple[Tensor, BoxTarget]:
    """Image and objects; what is ignored is left out, as torchvision's references do."""
    found = scenes.objects(index)
    boxes = torch.from_numpy(found.boxes[~found.ignored])
    labels = torch.from_numpy(found.labels[~found.ignored])
    if seed is not None:
        pixels, boxes, labels = cropped_boxes(pixels, boxes, labels, seed)
    height, width = pixels.shape[-2:]
    return pixels, BoxTarget(boxes / torch.tensor([width, height] * 2), labels)


def _nearest(mask: Tensor, side: int) -> Tensor:
    resized = torch.nn.functional.interpolate(mask[None, None], size=(side, side), mode="nearest-exact")
    return resized[0, 0]


def _tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
