"""Labelled images as a value, whatever files they come from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

MAX_CLASSES = 65_536
"""As many as an architecture may have."""


@dataclass(frozen=True)
class Source:
    """Labelled images.

    Attributes:
        name: As given on the command line.
        classes: Class names; a label is an index into them.
        labels: (N,) int64.
        image: Index -> RGB image, uint8 (H, W, 3); raises InvalidArtifactError naming a damaged one.
        digest: sha256 that changes with the images (imagefolder: with paths and sizes).
        side: Side in pixels where all images are squares of one size, else None.
        flips: Whether a mirrored image keeps its label.
        validation_from: Index of the first image of the source's own validation set, which ends it; or None.
    """

    name: str
    classes: tuple[str, ...]
    labels: np.ndarray
    image: Callable[[int], np.ndarray] = field(repr=False)
    digest: str
    side: int | None = None
    flips: bool = True
    validation_from: int | None = None


def arrays_digest(*arrays: np.ndarray) -> str:
    """sha256 of arrays with their types and shapes."""
    hashed = hashlib.sha256()
    for array in arrays:
        hashed.update(f"{array.dtype.str}{array.shape}".encode())
        hashed.update(np.ascontiguousarray(array).data)
    return hashed.hexdigest()
