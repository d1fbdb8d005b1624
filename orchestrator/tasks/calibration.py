"""Real images that decide the ranges of int8 activations: a seeded choice, as the network is evaluated on them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from luts.format.errors import UsageError
from orchestrator.export import ExportSpec
from orchestrator.export.artifacts.spec import QUANTISED
from search.blocks import parse_key

if TYPE_CHECKING:
    from search.supernet.data.images import Normalization

DEFAULT_IMAGES = 128
"""With 1,024 top-1 of a network of `autovit-cifar` changes by 0.2 points (5,000 images)."""

RANDOM_RANGES = "note: int8 ranges are those of random inputs; --calibration DATA takes those of images"


@dataclass(frozen=True)
class Calibration:
    """Which images: text of the source, how many of its training images, and the seed of the choice."""

    data: str
    images: int = DEFAULT_IMAGES
    seed: int = 0


def calibrated(
    spec: ExportSpec,
    calibration: Calibration,
    folder: Path,
    normalization: Normalization | None = None,
    split: tuple[int, float] = (0, 0.1),
) -> ExportSpec:
    """The spec with its images, which are written to `folder`; their digest and choice are in its identity.

    Args:
        spec: Of a network in int8 or a mix.
        calibration: Which images.
        folder: Gets a file of them.
        normalization: With which the network was trained; ImageNet's by default.
        split: Seed and share by which its training divided the images.

    Raises:
        UsageError: a precision without int8, no such images, or fewer than are asked for.
        InvalidArtifactError: an image can't be read; it is named.
    """
    import torch
    from safetensors.torch import save_file

    from orchestrator.accuracy.images import ImageSet
    from orchestrator.export.lower.calibration import IMAGES
    from orchestrator.export.lower.pt2e import MIDDLE
    from search.supernet.data.images import IMAGENET, split_source
    from search.supernet.data.sources import open_source

    if spec.precision not in QUANTISED:
        raise UsageError(
            f"--calibration decides ranges of int8, not of {spec.precision}; add --precision int8"
        )
    source = open_source(calibration.data)
    training = split_source(source, *split).train
    if not 1 <= calibration.images <= len(training):
        raise UsageError(
            f"--calibration-images {calibration.images}: {calibration.data} has {len(training)} training images"
        )
    chosen = np.sort(np.random.default_rng(calibration.seed).permutation(training)[: calibration.images])
    side = _side(spec)
    images = ImageSet(calibration.data, source.digest, chosen, max(side, 256), normalization or IMAGENET)
    batches = images.batches(side, 0, len(chosen), 64)
    tensor = torch.from_numpy(np.concatenate(list(batches)))
    digest = hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
    path = folder / f"calibration-{digest[:16]}.safetensors"
    save_file({IMAGES: tensor.contiguous()}, path)
    choice = (
        f"{len(chosen)} images of {source.digest[:12]}, seed {calibration.seed}, middle {100 * MIDDLE:g} %"
    )
    return replace(spec, calibration=f"{choice}: sha256:{digest}", calibration_path=str(path))


def _side(spec: ExportSpec) -> int:
    """Pixels of the network's input."""
    if spec.blocks:
        return parse_key(spec.blocks[0]).resolution
    _, _, size = spec.module.partition("@")
    if size:
        return int(size)
    import timm

    name = spec.module.removeprefix("timm:")
    if name not in timm.list_models():
        return 224  # which the exporter refuses by its name
    return int(timm.get_pretrained_cfg(name).input_size[1])
