"""`cifar10:DIR`: the «python version» of CIFAR-10, in torchvision's layout, read without unpickling it.

`cifar10:FILE.npz` is as of `npz:`, of all images, the training set first.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from luts.format.errors import InvalidArtifactError
from search.supernet.data.decode import first_line
from search.supernet.data.npz import open_npz
from search.supernet.data.pickled import values_of
from search.supernet.data.source import Source, arrays_digest

TRAINING_IMAGES = 50_000
"""In one file with the others they come first."""

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

FOLDER = "cifar-10-batches-py"

MAX_BATCH_BYTES = 64 << 20
"""Twice those of a batch."""

BATCHES = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
"""Files and their MD5, which tells a damaged one."""


def open_cifar10(text: str, path: Path) -> Source:
    """All of CIFAR-10, its test set as the validation set; `InvalidArtifactError` where it is damaged."""
    if path.is_file():
        return _open_file(text, path)
    batches = [_read_batch(text, path / FOLDER / name, md5) for name, md5 in BATCHES.items()]
    images = np.concatenate([pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1) for pixels, _ in batches])
    labels = np.concatenate([labels for _, labels in batches])
    return Source(
        text,
        CLASSES,
        labels,
        images.__getitem__,
        arrays_digest(images, labels),
        side=32,
        validation_from=len(labels) - len(batches[-1][1]),
    )


def _read_batch(text: str, path: Path, md5: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 3072) and labels (N,) of one file."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BATCH_BYTES)
        if hashlib.md5(data, usedforsecurity=False).hexdigest() != md5:
            raise ValueError("its MD5 is not that of the original")
        values = values_of(data)
        pixels, labels = np.asarray(values["data"]), np.asarray(values["labels"], np.int64)
        if pixels.shape != (len(labels), 3072):
            raise ValueError(f"pixels are {pixels.shape}, labels {labels.shape}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else first_line(error)
        raise InvalidArtifactError(
            f"{text}: no intact CIFAR-10 ({path.name}: {reason}); expected DIR/{FOLDER} as "
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz unpacks it"
        ) from error
    return pixels, labels


def _open_file(text: str, path: Path) -> Source:
    source = open_npz(text, path)
    if len(source.labels) <= TRAINING_IMAGES or len(source.classes) != len(CLASSES):
        raise InvalidArtifactError(
            f"{text}: {len(source.labels)} images of {len(source.classes)} classes, not all of CIFAR-10; "
            "use npz:FILE for other images"
        )
    return replace(source, classes=CLASSES, validation_from=TRAINING_IMAGES)
