"""`npz:FILE`: JPEGs end to end; image i is `blob[off[i]:off[i + 1]]`, its label `y[i]`."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from luts.format.errors import InvalidArtifactError
from search.supernet.data.decode import MAX_ENCODED_BYTES, decode, first_line
from search.supernet.data.source import MAX_CLASSES, Source, arrays_digest

MAX_IMAGES = 20_000_000
"""More than ImageNet-21k; a larger count in a file is a damaged one."""

MAX_UNPACKED = 20
"""Bytes of an unpacked npz for each of the file: JPEGs hardly shrink, offsets and labels do."""


def open_npz(text: str, path: Path) -> Source:
    """The images of a file; `InvalidArtifactError` where it is damaged."""
    blob, offsets, labels = _checked(text, *_read(text, path))

    def image(index: int) -> np.ndarray:
        return decode(blob[offsets[index] : offsets[index + 1]].tobytes(), f"{text}: image {index}")

    names = tuple(str(label) for label in range(int(labels.max()) + 1))
    height, width, _ = image(0).shape
    side = height if height == width else None
    return Source(text, names, labels, image, arrays_digest(blob, offsets, labels), side)


def _read(text: str, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked_bytes = sum(entry.file_size for entry in archive.infolist())
        if unpacked_bytes > MAX_UNPACKED * path.stat().st_size:
            raise ValueError(f"{unpacked_bytes} bytes unpacked, too many for its size")
        with np.load(path, allow_pickle=False) as file:
            blob, offsets, labels = (np.asarray(file[key]) for key in ("blob", "off", "y"))
    except Exception as error:  # zipfile and zlib raise classes of their own for damaged archives
        pickled = "allow_pickle" in str(error)
        reason = "it holds pickled objects, which are not read" if pickled else first_line(error)
        raise InvalidArtifactError(
            f"{text}: cannot read blob, off and y ({reason}); give a complete npz of JPEGs"
        ) from error
    return blob, offsets, labels


def _checked(
    text: str, blob: np.ndarray, offsets: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The arrays, offsets and labels as int64, where they fit together."""
    integers = all(np.issubdtype(a.dtype, np.integer) for a in (offsets, labels))
    if blob.dtype != np.uint8 or not integers or {blob.ndim, offsets.ndim, labels.ndim} != {1}:
        raise InvalidArtifactError(
            f"{text}: not as expected; blob must be uint8, off and y integers, all one-dimensional"
        )
    offsets, labels = offsets.astype(np.int64), labels.astype(np.int64)
    if not 1 <= len(labels) <= MAX_IMAGES or len(offsets) != len(labels) + 1:
        raise InvalidArtifactError(
            f"{text}: {len(offsets)} offsets and {len(labels)} labels; "
            "every label needs an offset, and the end another"
        )
    sizes = np.diff(offsets)
    if offsets[0] < 0 or offsets[-1] > len(blob) or sizes.min() < 0 or sizes.max() > MAX_ENCODED_BYTES:
        raise InvalidArtifactError(f"{text}: offsets leave the blob or do not grow; the file is damaged")
    if labels.min() < 0 or labels.max() >= MAX_CLASSES:
        raise InvalidArtifactError(f"{text}: labels leave 0..{MAX_CLASSES - 1}; number the classes from 0")
    return blob, offsets, labels
