"""Images of a split source as batches: kept decoded if they fit, augmented by a seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from search.spaces import Space
from search.supernet.data.augment import (
    MEAN,
    STD,
    erased,
    mirrored,
    mixed,
    rand_augmented,
    random_area,
    seeded,
    shifted,
)
from search.supernet.data.source import Source
from search.supernet.data.sources import open_source
from search.supernet.data.split import Split, split_source
from search.supernet.recipe.recipe import Augmentation, Recipe
from search.supernet.recipe.schedule import Part
from search.supernet.recipe.scope import resolutions_of

CACHE_BYTES = 1 << 30
"""Decoded images are kept in memory up to this size (all of CIFAR-10 is 184 MB)."""


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation of the three channels, of pixels in 0 to 1, that a network was trained with."""

    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD


IMAGENET = Normalization()


class ImageData:
    """Normalised batches of a split source at any resolution."""

    def __init__(self, source: Source, seed: int = 0, fraction: float = 0.1, largest_side: int = 256):
        """`largest_side`: the largest resolution to come, to which images of mixed sizes are cut once."""
        self.source, self.seed, self.fraction = source, seed, fraction
        self.labels = torch.from_numpy(source.labels)
        self.side = source.side or largest_side
        keep = len(source.labels) * 3 * self.side**2 <= CACHE_BYTES
        shape = (len(source.labels), 3, self.side, self.side)
        self._images = torch.empty(shape, dtype=torch.uint8) if keep else None
        self._decoded = torch.zeros(len(source.labels), dtype=torch.bool)

    @cached_property
    def split(self) -> Split:
        """Which images are for what; `UsageError` where a class has too few to divide."""
        return split_source(self.source, self.seed, self.fraction)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.source.classes)

    def batch(
        self, indices: np.ndarray, resolution: int, normalization: Normalization = IMAGENET
    ) -> tuple[Tensor, Tensor]:
        """Images (B, 3, resolution, resolution), normalised, and labels (B,); not augmented."""
        images = self._normalised(self._load(indices), resolution, normalization)
        return images, self.labels[torch.from_numpy(indices)]

    def training_batch(self, part: Part, how: Augmentation) -> tuple[Tensor, Tensor]:
        """Augmented images, and labels (B,), or, where images are mixed, probabilities (B, classes)."""
        generator = torch.Generator().manual_seed(part.seed)
        with seeded(part.seed):
            if how.crop == "resized":
                areas = [random_area(self.source.image(int(i)), part.resolution) for i in part.indices]
                images = torch.stack(areas)
            else:
                images = self._load(part.indices)
            if how.crop == "pad":
                images = shifted(images, generator)
            if how.flip and self.source.flips:
                images = mirrored(images, generator)
            if how.rand_augment:
                images = rand_augmented(images, how.rand_augment)
            images = self._normalised(images, part.resolution)
            labels = self.labels[torch.from_numpy(part.indices)]
            if how.erase:
                images = erased(images, how.erase)
            if how.mixes:
                return mixed(images, labels, how, self.classes)
        return images, labels

    def batches(
        self, indices: np.ndarray, resolution: int, batch_size: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """All of `indices` in order, not augmented."""
        for start in range(0, len(indices), batch_size):
            yield self.batch(indices[start : start + batch_size], resolution)

    def check(self, indices: np.ndarray) -> None:
        """Decode some images; `InvalidArtifactError` names one that can't be read."""
        for index in indices:
            self._load(np.array([index]))

    def share(self) -> None:
        """Let processes that are forked from here on decode into the same memory."""
        if self._images is not None:
            self._images.share_memory_()  # type: ignore[no-untyped-call]
            self._decoded.share_memory_()  # type: ignore[no-untyped-call]

    def _normalised(self, images: Tensor, resolution: int, normalization: Normalization = IMAGENET) -> Tensor:
        images = images.float() / 255
        if resolution != images.shape[-1]:
            size = (resolution, resolution)
            images = F.interpolate(images, size, mode="bilinear", antialias=resolution < images.shape[-1])
        mean, std = torch.tensor(normalization.mean), torch.tensor(normalization.std)
        return (images - mean[:, None, None]) / std[:, None, None]

    def _load(self, indices: np.ndarray) -> Tensor:
        """(B, 3, side, side) uint8."""
        if self._images is None:
            return torch.stack([self._square(int(index)) for index in indices])
        chosen = torch.from_numpy(indices)
        for index in chosen[~self._decoded[chosen]].tolist():
            self._images[index] = self._square(index)
            self._decoded[index] = True
        return self._images[chosen]

    def _square(self, index: int) -> Tensor:
        """One image, its centre square at `side` pixels."""
        pixels = self.source.image(index)
        if pixels.shape[:2] != (self.side, self.side):
            height, width = pixels.shape[:2]
            short = min(height, width)
            left, top = (width - short) // 2, (height - short) // 2
            box = (left, top, left + short, top + short)
            resized = Image.fromarray(pixels).resize((self.side, self.side), Image.Resampling.BICUBIC, box)
            pixels = np.asarray(resized)
        return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)


def open_data(source: str, space: Space, recipe: Recipe) -> ImageData:
    """The images of a command-line text, split and sized as a recipe says; raises like `open_source`."""
    side = max(resolutions_of(recipe, space))
    return ImageData(open_source(source), fraction=recipe.held_out, largest_side=side)
