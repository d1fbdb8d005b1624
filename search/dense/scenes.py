"""Images with objects in them, as a value, whatever files they come from."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np

from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.files import read_bytes
from search.supernet.data.sources import MAX_ENCODED_BYTES, decode

Task = Literal["detection", "segmentation"]
TASKS: tuple[Task, ...] = ("detection", "segmentation")

VOID = 255
"""Pixels of a mask that neither count nor teach, as in VOC's files."""

MAX_CLASSES = VOID - 1
"""Of objects: masks are bytes, 0 is the background."""

MAX_SIDE = 16_384
"""Longest side of an image in pixels."""


@dataclass(frozen=True)
class Objects:
    """What is in one image.

    Attributes:
        boxes: (N, 4) float32, left, top, right, bottom in pixels of the image.
        labels: (N,) int64, 1 for the first class; 0 is the background.
        ignored: (N,) bool: crowds of COCO and difficult objects of VOC, not learned and counted neither way.
        areas: (N,) float32 in pixels, by which COCO tells small objects from large ones.
    """

    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray
    areas: np.ndarray


@dataclass(frozen=True)
class Scenes:
    """Images with objects in them.

    Attributes:
        name: As given on the command line.
        classes: Names of the classes of objects; the background is none of them.
        names: (N) names of the images, which errors and results give.
        sizes: (N, 2) height and width in pixels.
        train: Indices of the training images, those without objects left out.
        validation: Indices of the validation images.
        empty: How many training images have no objects.
        image: Index -> RGB image, uint8 (H, W, 3); raises InvalidArtifactError naming a damaged one.
        objects: Index -> its objects.
        mask: Index -> uint8 (H, W): 0, a label, or `VOID`; raises as `image`.
        digest: sha256 that changes with annotations, and with the images' paths and sizes.
        synthetic: Whether the files say that the images are made up, which figures on them must say too.
    """

    name: str
    classes: tuple[str, ...]
    names: Sequence[str] = field(repr=False)
    sizes: np.ndarray = field(repr=False)
    train: np.ndarray = field(repr=False)
    validation: np.ndarray = field(repr=False)
    empty: int
    image: Callable[[int], np.ndarray] = field(repr=False)
    objects: Callable[[int], Objects] = field(repr=False)
    mask: Callable[[int], np.ndarray] = field(repr=False)
    digest: str
    synthetic: bool = False

    @property
    def title(self) -> str:
        """What figures on these images stand beside."""
        return f"{self.name} (SYNTHETIC images)" if self.synthetic else self.name


def check_classes(scenes: Scenes, known: Sequence[str]) -> None:
    """`UsageError` where images have classes that a head has not, or in another order."""
    foreign = next((name for name in scenes.classes if name not in known), None)
    if foreign is not None:
        raise UsageError(
            f"{scenes.name}: the category {foreign!r} is not one of the {len(known)} that the head has; "
            "take the images it was trained for, or train a new head"
        )
    if tuple(known) != scenes.classes:
        raise UsageError(
            f"{scenes.name}: {len(scenes.classes)} categories, and the head has {len(known)}, or in another order; "
            "take the images it was trained for, or train a new head"
        )


def size_of_file(path: Path) -> int:
    """Bytes; `InvalidArtifactError` where there is no such file."""
    try:
        return path.stat().st_size
    except OSError as error:
        raise InvalidArtifactError(
            f"{path}: the annotations name it, but it cannot be read ({error.strerror}); restore it"
        ) from error


def read_picture(path: Path, name: str, height: int, width: int) -> np.ndarray:
    """uint8 (height, width, 3); `InvalidArtifactError` where it is damaged or of another size."""
    pixels = decode(read_bytes(path, MAX_ENCODED_BYTES, "restore it"), name)
    if pixels.shape[:2] != (height, width):
        raise InvalidArtifactError(
            f"{name} is {pixels.shape[1]}x{pixels.shape[0]}, its annotations are of {width}x{height}; mend one"
        )
    return pixels


def pycocotools(module: str) -> ModuleType:
    """`coco`, `cocoeval` or `mask`; `UsageError` where it is not installed."""
    return _packaged(f"pycocotools.{module}")


def torchmetrics(module: str) -> ModuleType:
    """A module of torchmetrics; `UsageError` where it is not installed."""
    return _packaged(f"torchmetrics.{module}")


def _packaged(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(
            f"{name.partition('.')[0]} is not installed; install it with: pip install 'blocktime[dense]'"
        ) from error
