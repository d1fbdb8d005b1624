"""Batches of annotated images: sources, augmentation, training targets. All randomness follows from a seed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2
from torchvision.tv_tensors import BoundingBoxes, Image, Mask

from luts.format.errors import UsageError
from search.dense.coco import open_coco
from search.dense.scenes import VOID, DenseTaskName, Scenes
from search.dense.voc import open_voc
from search.supernet.data.images import FILL, IMAGENET, channels_first, prepared, seeded


def open_scenes(text: str, task: DenseTaskName) -> Scenes:
    """Open the images of `coco:DIR` or `voc:DIR` for a task.

    Raises:
        UsageError: unknown kind, no such folder, another layout, or a package is missing.
        InvalidArtifactError: annotations are wrong; names the file and the row.
    """
    kind, _, where = text.partition(":")
    if kind not in ("coco", "voc") or not where:
        raise UsageError(
            f"{text!r} has no boxes and masks; for {task} use coco:DIR or voc:DIR", code="unknown_source"
        )
    path = Path(where)
    if not path.is_dir():
        raise UsageError(
            f"{text}: {path} is not a folder; give the folder of your images", code="no_such_path"
        )
    return open_coco(text, path) if kind == "coco" else open_voc(text, path, task)


SCALES = (0.5, 2.0)
"""Range of random scales of segmentation images, as in torchvision's reference."""

MIN_CROP_SIDE = 16
"""Pixels: torchvision can't crop smaller images to 30 %."""


def crop_boxes(image: Tensor, boxes: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Crop an image so that it keeps an object, and mirror it or not (torchvision's SSDLite reference).

    Takes and returns an image, uint8 (3, H, W), boxes (N, 4) left, top, right, bottom, and labels (N,). Objects
    whose centre is outside of the crop are left out.
    """
    height, width = image.shape[-2:]
    sample = {
        "image": Image(image),
        "boxes": BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width)),
        "labels": labels,
    }
    crop = [v2.RandomIoUCrop()] if len(boxes) and min(height, width) >= MIN_CROP_SIDE else []
    with seeded(seed):
        done = v2.Compose([*crop, v2.RandomHorizontalFlip(), v2.SanitizeBoundingBoxes()])(sample)
    return done["image"].as_subclass(Tensor), done["boxes"].as_subclass(Tensor), done["labels"]


def crop_mask(image: Tensor, mask: Tensor, side: int, seed: int) -> tuple[Tensor, Tensor]:
    """Scale an image by 0.5 to 2, crop a square, and mirror it or not (torchvision's segmentation reference).

    Takes and returns an image, uint8 (3, H, W), and a mask, uint8 (H, W). Outside of the image the square of `side`
    pixels is grey, and `VOID` in the mask.
    """
    size = (side, side)
    fill = {Image: list(FILL), Mask: VOID}  # by the type of what is filled
    transforms = [
        v2.ScaleJitter(size, SCALES, antialias=True),
        v2.RandomCrop(size, pad_if_needed=True, fill=fill),
        v2.RandomHorizontalFlip(),
    ]
    with seeded(seed):
        pixels, labels = v2.Compose(transforms)(Image(image), Mask(mask))
    return pixels.as_subclass(Tensor), labels.as_subclass(Tensor)


def resize(image: Tensor, side: int) -> Tensor:
    """Resize uint8 (3, H, W) to (3, side, side), ignoring its aspect ratio."""
    return v2.functional.resize(image, [side, side], antialias=True)


def normalize(images: Tensor) -> Tensor:
    """Return float32 of uint8 (..., 3, H, W), normalised as ImageNet's networks see images."""
    centre, spread = torch.tensor(IMAGENET.mean)[:, None, None], torch.tensor(IMAGENET.std)[:, None, None]
    return (images.float() / 255 - centre) / spread


@dataclass(frozen=True)
class BoxTarget:
    """Training target of one image.

    Attributes:
        boxes: (N, 4) float32 left, top, right, bottom, as fractions of the image.
        labels: (N,) int64 from 1.
    """

    boxes: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> BoxTarget:
        """Copy to a device."""
        return BoxTarget(self.boxes.to(device), self.labels.to(device))


@dataclass(frozen=True)
class DenseBatch:
    """Normalised images (B, 3, side, side), and their objects, or masks (B, side, side) int64."""

    images: Tensor
    objects: Sequence[BoxTarget]
    masks: Tensor | None


@dataclass(frozen=True)
class DenseBatches:
    """The training batches of a run, by step; `side` is of the network's input, in pixels.

    An epoch visits all images in its own order; images that do not fill a batch wait for the next epoch.
    """

    scenes: Scenes
    task: DenseTaskName
    batch_size: int
    side: int
    seed: int
    augmented: bool = True

    def __post_init__(self) -> None:
        """Raise UsageError where a batch is larger than the training set."""
        if len(self.scenes.train) < self.batch_size:
            raise UsageError(
                f"a batch of {self.batch_size} from {len(self.scenes.train)} training images; lower --batch-size",
                code="batch_too_large",
            )

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch, at least one."""
        return len(self.scenes.train) // self.batch_size

    def indices(self, step: int) -> np.ndarray:
        """Return the images of a step, (batch_size,)."""
        epoch, number = divmod(step, self.steps_per_epoch)
        shuffled = np.random.default_rng([self.seed, epoch]).permutation(self.scenes.train)
        return shuffled[number * self.batch_size : (number + 1) * self.batch_size]

    def batch(self, step: int) -> DenseBatch:
        """Return the batch of a step; raises InvalidArtifactError naming a damaged image or mask."""
        images, objects, masks = [], [], []
        for index in map(int, self.indices(step)):
            pixels = channels_first(self.scenes.image(index))
            seed = int(np.random.SeedSequence([self.seed, step, index]).generate_state(1)[0])
            if self.task == "detection":
                pixels, target = self._with_boxes(index, pixels, seed)
                objects.append(target)
            else:
                mask = torch.from_numpy(np.array(self.scenes.mask(index)))
                if self.augmented:
                    pixels, mask = crop_mask(pixels, mask, self.side, seed)
                else:
                    size = (self.side, self.side)
                    mask = F.interpolate(mask[None, None], size, mode="nearest-exact")[0, 0]
                masks.append(mask.long())
            images.append(resize(pixels, self.side))
        return DenseBatch(normalize(torch.stack(images)), objects, torch.stack(masks) if masks else None)

    def batches(self, steps: Iterable[int], workers: int = 0) -> Iterator[DenseBatch]:
        """Yield the batches of `steps`, prepared by worker processes if there are any; raises like `batch`."""
        return prepared(self.batch, steps, workers)

    def _with_boxes(self, index: int, pixels: Tensor, seed: int) -> tuple[Tensor, BoxTarget]:
        """Return image and target; ignored objects are left out, as in torchvision's references."""
        found = self.scenes.objects(index)
        boxes = torch.from_numpy(found.boxes[~found.ignored])
        labels = torch.from_numpy(found.labels[~found.ignored])
        if self.augmented:
            pixels, boxes, labels = crop_boxes(pixels, boxes, labels, seed)
        height, width = pixels.shape[-2:]
        return pixels, BoxTarget(boxes / torch.tensor([width, height] * 2), labels)


def plain_batches(
    scenes: Scenes, indices: np.ndarray, side: int, size: int
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Yield indices and images of all of `indices` in order, resized to `side` and not augmented."""
    for start in range(0, len(indices), size):
        part = indices[start : start + size]
        images = torch.stack([resize(channels_first(scenes.image(int(index))), side) for index in part])
        yield part, normalize(images)
