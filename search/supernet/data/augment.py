"""What happens to training images: crops and flips, and timm's RandAugment, random erasing, Mixup and CutMix.

Everything follows from one seed: `augmented` and `mixed` give the same batch for the same seed on every machine,
in every process, so that a run needs no generator state to go on.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from search.supernet.recipe.recipe import Augmentation

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""ImageNet's statistics, as pretrained teachers expect them."""

LARGEST_MAGNITUDE = 9.99
"""Of RandAugment's 10, at which timm posterizes to no bits at all, what Pillow refuses."""

FILL = tuple(round(255 * mean) for mean in MEAN)
"""What RandAugment's rotations uncover."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the three global generators that timm and torchvision draw from, and put them back afterwards."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])


def shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Random crops (B, 3, side, side) after padding by an eighth of the side with edge pixels."""
    count, _, side, _ = images.shape
    pad = max(1, side // 8)
    offsets = torch.randint(0, 2 * pad + 1, (2, count), generator=generator)
    places = (torch.arange(side) - pad + offsets[..., None]).clamp_(0, side - 1)
    rows, columns = places[0][:, None, :, None], places[1][:, None, None, :]
    return images[torch.arange(count)[:, None, None, None], torch.arange(3)[:, None, None], rows, columns]


def mirrored(images: Tensor, generator: torch.Generator) -> Tensor:
    """Every other image, on average, from right to left."""
    chosen = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(chosen[:, None, None, None], images.flip(3), images)


def random_area(pixels: np.ndarray, side: int) -> Tensor:
    """(3, side, side) uint8: 8 to 100 % of the image (H, W, 3) at a random aspect ratio; see `seeded`."""
    from torchvision.transforms import InterpolationMode, RandomResizedCrop

    crop = RandomResizedCrop(side, interpolation=InterpolationMode.BICUBIC)
    return _tensor(crop(Image.fromarray(pixels)))


def rand_augmented(images: Tensor, config: str) -> Tensor:
    """RandAugment or AutoAugment of each uint8 image (B, 3, side, side), with timm's settings; see `seeded`."""
    from timm.data import auto_augment_transform, rand_augment_transform

    side = images.shape[-1]
    settings = {
        "translate_const": int(0.45 * side),
        "img_mean": FILL,
        "magnitude_max": LARGEST_MAGNITUDE,
    }
    make = rand_augment_transform if config.startswith("rand") else auto_augment_transform
    transform = make(config, settings)
    pixels = images.permute(0, 2, 3, 1).contiguous().numpy()
    return torch.stack([_tensor(transform(Image.fromarray(image))) for image in pixels])


def erased(images: Tensor, probability: float) -> Tensor:
    """Random erasing with noise, in place, of normalised images; see `seeded`."""
    from timm.data.random_erasing import RandomErasing

    erase = RandomErasing(probability, mode="pixel", device="cpu")
    done: Tensor = erase(images)
    return done


def mixed(images: Tensor, labels: Tensor, how: Augmentation, classes: int) -> tuple[Tensor, Tensor]:
    """One Mixup or CutMix of a whole batch, in place, and its label distributions (B, classes); see `seeded`."""
    from timm.data import Mixup

    mix = Mixup(how.mixup, how.cutmix, switch_prob=how.switch, label_smoothing=0.0, num_classes=classes)
    done: tuple[Tensor, Tensor] = mix(images, labels)
    return done


def _tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
