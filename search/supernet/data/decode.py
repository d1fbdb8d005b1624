"""Encoded images of untrusted files as pixels, of bounded size."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

from luts.format.errors import InvalidArtifactError

MAX_ENCODED_BYTES = 64 * 1024 * 1024
"""Largest encoded image that is decoded."""

MAX_PIXELS = 50_000_000
"""Largest decoded image, so that a small file can't fill the memory."""

NEXT_STEP = "restore it and repeat, or remove it and begin anew in another folder"
"""What to do about a bad image: a run goes on with the very images that it began with."""


def decode(data: bytes, what: str) -> np.ndarray:
    """An encoded image as uint8 (H, W, 3); `InvalidArtifactError` calls it `what`."""
    if len(data) > MAX_ENCODED_BYTES:
        raise InvalidArtifactError(f"{what} has over {MAX_ENCODED_BYTES} bytes; shrink or remove it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise InvalidArtifactError(
                        f"{what} is {image.width}x{image.height}, over {MAX_PIXELS} pixels; shrink it"
                    )
                return np.asarray(image.convert("RGB"))
    except InvalidArtifactError:
        raise
    except Exception as error:  # decoders raise many classes: SyntaxError, struct.error, OSError, ...
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "of no known format" if unknown else first_line(error)
        raise InvalidArtifactError(f"{what} is not an intact image ({reason}); {NEXT_STEP}") from error


def first_line(error: BaseException) -> str:
    """What an error says, cut to one line."""
    return (str(error) or type(error).__name__).splitlines()[0][:200]
