"""Labelled images as batches: splits, augmentation, caching and prefetching."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Generic, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from luts.format.errors import BlocktimeError, UsageError
from search.spaces import Space
from search.supernet.data.sources import ImageSource, open_source
from search.supernet.recipe.recipe import Augmentation, Recipe, resolutions_of
from search.supernet.recipe.schedule import Part, TrainingSchedule


@dataclass(frozen=True)
class Split:
    """Disjoint, sorted image indices.

    The validation set is for a final evaluation alone; everything on the way there, the search included,
    sees `train` and `search` only.
    """

    train: np.ndarray
    search: np.ndarray
    validation: np.ndarray


def split_source(source: ImageSource, seed: int = 0, fraction: float = 0.1) -> Split:
    """Hold `fraction` of each class out for search and as much for validation, at least one image each.

    A source with a validation set of its own keeps it. Raises UsageError where a class has too few images.
    """
    rng = np.random.default_rng(seed)
    total = len(source.labels)
    free = total if source.validation_from is None else source.validation_from
    parts: tuple[list[np.ndarray], ...] = ([], [], [np.arange(free, total)])
    for label, name in enumerate(source.classes):
        indices = rng.permutation(np.flatnonzero(source.labels[:free] == label))
        held_out = max(1, round(fraction * len(indices)))
        ends = [held_out, 2 * held_out if source.validation_from is None else held_out]
        if len(indices) <= ends[1]:
            raise UsageError(
                f"{source.name}: class {name!r} has {len(indices)} images, too few to split; add images",
                code="too_few_images",
            )
        search, validation, train = np.split(indices, ends)
        for part, chosen in zip(parts, (train, search, validation), strict=True):
            part.append(chosen)
    return Split(*(np.sort(np.concatenate(part)) for part in parts))


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
    return channels_first(crop(Image.fromarray(pixels)))


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
    return torch.stack([channels_first(transform(Image.fromarray(image))) for image in pixels])


def erased(images: Tensor, probability: float) -> Tensor:
    """Random erasing with noise, in place, of normalised images; see `seeded`."""
    from timm.data.random_erasing import RandomErasing

    erase = RandomErasing(probability, mode="pixel", device="cpu")
    return erase(images)


def mixed(images: Tensor, labels: Tensor, how: Augmentation, classes: int) -> tuple[Tensor, Tensor]:
    """One Mixup or CutMix of a whole batch, in place, and its label distributions (B, classes); see `seeded`."""
    from timm.data import Mixup

    mix = Mixup(how.mixup, how.cutmix, switch_prob=how.switch, label_smoothing=0.0, num_classes=classes)
    return mix(images, labels)


def channels_first(image: Image.Image | np.ndarray) -> Tensor:
    """Return an image (H, W, 3) as (3, H, W)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


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

    def __init__(self, source: ImageSource, seed: int = 0, fraction: float = 0.1, largest_side: int = 256):
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
        return channels_first(pixels)


def open_data(source: str, space: Space, recipe: Recipe) -> ImageData:
    """Open the images of a command-line text, split and sized by a recipe; raises like `open_source`."""
    side = max(resolutions_of(recipe, space))
    return ImageData(open_source(source), fraction=recipe.held_out, largest_side=side)


PREFETCH = 4
"""Batches that each worker keeps ready: enough to even out slow images, 100 MB at 128 images of 256 pixels."""

PreparedBatch = TypeVar("PreparedBatch")


class _Numbered(Dataset[PreparedBatch | BlocktimeError], Generic[PreparedBatch]):
    """Batches by their number; an error is a value here, so that it crosses processes whole."""

    def __init__(self, make: Callable[[int], PreparedBatch]):
        self.make = make

    def __getitem__(self, number: int) -> PreparedBatch | BlocktimeError:
        try:
            return self.make(number)
        except BlocktimeError as error:
            return error


def prepared(
    make: Callable[[int], PreparedBatch], numbers: Iterable[int], workers: int = 0
) -> Iterator[PreparedBatch]:
    """Yield the batches `numbers`, made by `workers` processes or by this one; raises what `make` raises."""
    batches: Iterable[PreparedBatch | BlocktimeError] = map(_Numbered(make).__getitem__, numbers)
    if workers:
        batches = DataLoader(
            _Numbered(make),
            batch_size=None,
            sampler=numbers,
            num_workers=workers,
            prefetch_factor=PREFETCH,
            worker_init_fn=_leave_interrupts_to_the_trainer,
        )
    for batch in batches:
        if isinstance(batch, BlocktimeError):
            raise batch
        yield batch


def _leave_interrupts_to_the_trainer(_worker: int) -> None:
    """Of a process that prepares batches: Ctrl-C is the trainer's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


ImageBatch = tuple[Tensor, Tensor]
"""Images (B, 3, H, W) and labels (B,), or class probabilities (B, classes) of mixed images."""


def training_batches(
    data: ImageData, schedule: TrainingSchedule, recipe: Recipe, numbers: Iterable[int], workers: int = 0
) -> Iterator[ImageBatch]:
    """Yield the micro-batches `numbers`, prepared by worker processes if there are any.

    Raises InvalidArtifactError at the step that needs an image which can't be read.
    """
    if workers:
        data.share()
    return prepared(partial(_training_batch, data, schedule, recipe), numbers, workers)


def _training_batch(data: ImageData, schedule: TrainingSchedule, recipe: Recipe, number: int) -> ImageBatch:
    part = schedule.part(*divmod(number, recipe.micro_batches))
    return data.training_batch(part, recipe.augmentation)
