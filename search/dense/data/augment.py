"""What happens to training images with boxes or masks: torchvision's transforms, all of it from one seed.

The transforms are those of torchvision's references: of SSDLite a crop that keeps an object and a mirror image
(references/detection/presets.py), of segmentation a random scale, a crop and a mirror image
(references/segmentation/presets.py).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.tv_tensors import BoundingBoxes, Image, Mask

from search.dense.data.scene import VOID
from search.supernet.data.images import FILL, seeded

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
