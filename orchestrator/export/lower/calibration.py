"""Inputs that decide the ranges of int8 activations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from luts.format.errors import InvalidArtifactError

CALIBRATION_SAMPLES = 4
"""Random inputs besides the example input. 16 widen the ranges of an `autovit-nano` network by 5 % (median)
to 33 % (largest).
"""

IMAGES = "images"
"""Name of the tensor (N, 3, H, W) in a file of calibration images."""


def calibration_inputs(
    inputs: Sequence[Tensor], images: Tensor | None = None
) -> Iterator[tuple[Tensor, ...]]:
    """Yield the images (N, 3, H, W) in batches of the example's size.

    Without images, yield the example inputs, then seeded normal ones of the same shapes, means and spreads.
    """
    if images is not None:
        yield from ((batch,) for batch in filled(images, len(inputs[0])))
        return
    yield tuple(inputs)
    generator = torch.Generator().manual_seed(0)
    for _ in range(CALIBRATION_SAMPLES):
        yield tuple(_like(x, generator) for x in inputs)


def filled(images: Tensor, batch: int) -> Iterator[Tensor]:
    """Yield images (N, ...) in batches of one size; the last one is filled with copies of the last image."""
    for start in range(0, len(images), batch):
        some = images[start : start + batch]
        yield torch.cat((some, some[-1:].expand(batch - len(some), *some.shape[1:])))


def read_images(path: Path, inputs: Sequence[Tensor]) -> Tensor:
    """Return the calibration images (N, 3, H, W) of a file, for a network that takes one of them.

    Raises:
        InvalidArtifactError: The file is damaged, or the network takes something else.
    """
    try:
        images: Tensor = load_file(path)[IMAGES]
    except (OSError, SafetensorError, KeyError) as error:
        raise InvalidArtifactError(
            f"{path}: no calibration images ({error}); run the command again", code="bad_calibration"
        ) from None
    wanted = [tuple(x.shape[1:]) for x in inputs]
    if wanted != [tuple(images.shape[1:])] or not len(images):
        raise InvalidArtifactError(
            f"{path}: {len(images)} calibration images of {tuple(images.shape[1:])}; the network takes {wanted}",
            code="bad_calibration",
        )
    return images


def _like(x: Tensor, generator: torch.Generator) -> Tensor:
    spread = float(x.std()) if x.numel() > 1 else 1.0
    return float(x.mean()) + spread * torch.randn(x.shape, generator=generator)
