"""Images with annotated objects or masks, from any file format."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np

from luts.format.errors import InvalidArtifactError, UsageError, install_extra
from search.supernet.data.sources import read_image

DenseTaskName = Literal["detection", "segmentation"]

VOID = 255
"""Mask value of pixels that are neither trained nor evaluated on, as in VOC's files."""

MAX_CLASSES = VOID - 1
"""Most object classes: masks are bytes, 0 is the background."""

MAX_SIDE = 16_384
"""Longest side of an image in pixels."""


@dataclass(frozen=True)
class Objects:
    """Annotated objects of one image.

    Attributes:
        boxes: (N, 4) float32, left, top, right, bottom in pixels of the image.
        labels: (N,) int64, 1 for the first class; 0 is the background.
        ignored: (N,) bool: crowds of COCO and difficult objects of VOC; neither trained nor evaluated on.
        areas: (N,) float32 in pixels; COCO tells small objects from large ones by it.
    """

    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray
    areas: np.ndarray


@dataclass(frozen=True)
class Scenes:
    """Images with annotated objects or masks.

    Attributes:
        name: As given on the command line.
        classes: Names of the object classes, without the background.
        names: (N) names of the images, used in errors and results.
        sizes: (N, 2) height and width in pixels.
        train: Indices of the training images, without those that have no objects.
        validation: Indices of the validation images.
        empty: Number of training images without objects.
        image: Index -> RGB image, uint8 (H, W, 3); raises InvalidArtifactError naming a damaged one.
        objects: Index -> its objects.
        mask: Index -> uint8 (H, W): 0, a label, or `VOID`; raises like `image`.
        digest: sha256 that changes with annotations, and with the images' paths and sizes.
        synthetic: Whether the files declare that the images are synthetic, which every result must repeat.
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
        """Name of the images in results."""
        return f"{self.name} (SYNTHETIC images)" if self.synthetic else self.name

    def check_classes(self, known: Sequence[str]) -> None:
        """Raise UsageError where the images do not have exactly the classes of a head, in their order."""
        foreign = next((name for name in self.classes if name not in known), None)
        if foreign is not None:
            problem = f"the category {foreign!r} is not one of the {len(known)} of the head"
        elif tuple(known) != self.classes:
            problem = (
                f"{len(self.classes)} categories, and the head has {len(known)}, or they are in another order"
            )
        else:
            return
        raise UsageError(
            f"{self.name}: {problem}; use the images that the head was trained for, or train a new head",
            code="class_mismatch",
        )


def read_sized(path: Path, name: str, height: int, width: int) -> np.ndarray:
    """Read an image as uint8 (height, width, 3); raises InvalidArtifactError for damage or another size."""
    pixels = read_image(path, name)
    if pixels.shape[:2] != (height, width):
        raise InvalidArtifactError(
            f"{name} is {pixels.shape[1]}x{pixels.shape[0]}, its annotations are for {width}x{height}; correct one",
            code="image_size_mismatch",
        )
    return pixels


def optional_module(name: str) -> ModuleType:
    """Import a module of pycocotools or torchmetrics; raises UsageError if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(
            f"{name.partition('.')[0]} is not installed; {install_extra('dense')}",
            code="package_missing",
        ) from error
