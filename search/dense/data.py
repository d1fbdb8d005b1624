"""What happens to training images with boxes or masks: torchvision's transforms, all of it from one seed.

The transforms are those of torchvision's references: of SSDLite a crop that keeps an object and a mirror image
(references/detection/presets.py), of segmentation a random scale, a crop and a mirror image
(references/segmentation/presets.py)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.tv_tensors import BoundingBoxes, Image, Mask

from luts.format.errors import UsageError
from search.dense.coco import open_coco
from search.dense.scenes import VOID, Scenes, Task
from search.dense.voc import open_voc
from search.supernet.data.images import FILL, IMAGENET, Normalization, prepared, seeded

SCALES = (0.5, 2.0)
"""Of segmentation's images, as its reference has them."""

SMALLEST_CROPPED = 16
"""Pixels of a side; of less torchvision can't take 30 %."""


def cropped_boxes(image: Tensor, boxes: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A crop that keeps an object, mirrored or not.

    Args:
        image: uint8 (3, H, W).
        boxes: (N, 4) left, top, right, bottom.
        labels: (N,).
        seed: Decides everything.

    Returns:
        The same of the crop; objects whose centre lies outside are gone.
    """
    height, width = image.shape[-2:]
    sample = {
        "image": Image(image),
        "boxes": BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width)),
        "labels": labels,
    }
    crop = [v2.RandomIoUCrop()] if len(boxes) and min(height, width) >= SMALLEST_CROPPED else []
    with seeded(seed):
        done = v2.Compose([*crop, v2.RandomHorizontalFlip(), v2.SanitizeBoundingBoxes()])(sample)
    return done["image"].as_subclass(Tensor), done["boxes"].as_subclass(Tensor), done["labels"]


def cropped_mask(image: Tensor, mask: Tensor, side: int, seed: int) -> tuple[Tensor, Tensor]:
    """A square of `side` pixels of an image that is scaled by a half to twice, mirrored or not.

    Args:
        image: uint8 (3, H, W).
        mask: uint8 (H, W).
        side: Of the square; what lies outside of the image is grey, and `VOID` in the mask.
        seed: Decides everything.
    """
    size = (side, side)
    # `fill` is by the kind of what is filled
    fill = {Image: list(FILL), Mask: VOID}
    transforms = [
        v2.ScaleJitter(size, SCALES, antialias=True),
        v2.RandomCrop(size, pad_if_needed=True, fill=fill),
        v2.RandomHorizontalFlip(),
    ]
    with seeded(seed):
        pixels, labels = v2.Compose(transforms)(Image(image), Mask(mask))
    return pixels.as_subclass(Tensor), labels.as_subclass(Tensor)


def scaled(image: Tensor, side: int) -> Tensor:
    """uint8 (3, side, side), whatever the proportions of uint8 (3, H, W)."""
    resized: Tensor = v2.functional.resize(image, [side, side], antialias=True)
    return resized


def normalised(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """float32 of uint8 (..., 3, H, W)."""
    centre, spread = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]
    return (images.float() / 255 - centre) / spread


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


@dataclass(frozen=True)
class Order:
    """Steps of a run over images; those that do not fill a batch wait for the next epoch.

    Attributes:
        indices: (N,) of the training images.
        batch_size: Images of a step.
        seed: Of the run.
    """

    indices: np.ndarray
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if len(self.indices) < self.batch_size:
            raise UsageError(
                f"a batch of {self.batch_size} from {len(self.indices)} training images; lower --batch-size"
            )

    @property
    def steps_per_epoch(self) -> int:
        """At least one."""
        return len(self.indices) // self.batch_size

    def images(self, step: int) -> np.ndarray:
        """(batch_size,) of the indices."""
        epoch, number = divmod(step, self.steps_per_epoch)
        shuffled = np.random.default_rng([self.seed, epoch]).permutation(self.indices)
        return shuffled[number * self.batch_size : (number + 1) * self.batch_size]


@dataclass(frozen=True)
class _Steps:
    scenes: Scenes
    task: Task
    order: Order
    side: int
    augmented: bool

    def make(self, step: int) -> Batch:
        seed = (self.order.seed, step)
        return training_batch(
            self.scenes, self.task, self.order.images(step), self.side, seed, self.augmented
        )


def training_batches(
    scenes: Scenes, task: Task, order: Order, side: int, augmented: bool, steps: range, workers: int = 0
) -> Iterator[Batch]:
    """The batches of `steps`; `workers`: processes that make them.

    Raises:
        InvalidArtifactError: an image or mask can't be read; at the step that needs it.
    """
    return prepared(_Steps(scenes, task, order, side, augmented).make, steps, workers)


def open_scenes(text: str, task: Task) -> Scenes:
    """The images of a text, for a task.

    Raises:
        UsageError: unknown kind, no such folder, another layout, or a package is missing.
        InvalidArtifactError: annotations are wrong; names the file and the row.
    """
    kind, _, where = text.partition(":")
    if kind not in ("coco", "voc") or not where:
        raise UsageError(f"{text!r} has no boxes and masks; for {task} use coco:DIR or voc:DIR")
    path = Path(where)
    if not path.is_dir():
        raise UsageError(f"{text}: {path} is not a folder; give that of your images")
    return open_coco(text, path) if kind == "coco" else open_voc(text, path, task)
