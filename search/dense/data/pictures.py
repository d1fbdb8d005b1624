"""Image files beside annotations that say how large they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from luts.format.errors import InvalidArtifactError
from luts.format.files import read_bytes
from search.supernet.data.sources import MAX_ENCODED_BYTES, decode


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
