"""int8 export: calibration images, and blocks that stay fp32 in mixed precision."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from luts.format.errors import InvalidArtifactError, UsageError, first_problem
from luts.format.files import read_bytes, write_json
from luts.format.schema import FrozenModel
from orchestrator.export import ExportSpec
from orchestrator.export.artifacts.spec import MAX_FP32, QUANTISED
from search.blocks import parse_key

if TYPE_CHECKING:
    from search.supernet.data.images import Normalization

MAX_BYTES = 4 << 20
"""Bytes of a recipe: thousands of blocks with their evaluations."""

MAX_BLOCKS = 4096

_CLASSES = re.compile(r"classes=[0-9]+")

Text = Annotated[str, Field(max_length=2000)]


class MixedPrecision(FrozenModel):
    """File of `bench sensitivity`: which blocks of a network stay fp32.

    Attributes:
        blocks: Keys of the network; empty for a network of timm.
        module: `timm:NAME[@PX]`; empty for our blocks.
        judged: The evaluations that the choice is based on, for people.
    """

    format: Literal[1] = 1
    blocks: Annotated[tuple[Text, ...], Field(max_length=MAX_BLOCKS)] = ()
    module: Annotated[str, Field(max_length=200)] = ""
    fp32: Annotated[tuple[Text, ...], Field(max_length=MAX_FP32)]
    judged: dict[str, Any] = Field(default_factory=dict)

    def applies_to(self, blocks: Sequence[str], module: str) -> bool:
        """Return whether it is of this network, with any number of classes and any input size of timm's."""
        if module:
            return self.module.partition("@")[0] == module.partition("@")[0]
        return [_CLASSES.sub("", key) for key in self.blocks] == [_CLASSES.sub("", key) for key in blocks]

    def write(self, path: Path) -> None:
        """Write the file; raises StorageError."""
        write_json(path, self.model_dump(mode="json"))


def read_mixed_precision(path: Path) -> MixedPrecision:
    """Read a file of `bench sensitivity`; raises InvalidArtifactError if it is none."""
    try:
        return MixedPrecision.model_validate_json(
            read_bytes(path, MAX_BYTES, "give the file of bench sensitivity")
        )
    except ValidationError as error:
        raise InvalidArtifactError(
            f"{path}: not a file of bench sensitivity ({first_problem(error)}); give one",
            code="invalid_mixed_precision",
        ) from error


def stays_fp32(keep_fp32: Sequence[str], blocks: Sequence[str], module: str) -> tuple[str, ...]:
    """Return the paths of what stays fp32 in one network.

    Args:
        keep_fp32: Each a position of a block (`4`), a path of a module (`blocks.2`), both for any network, or the
            file of `bench sensitivity`, which counts for its own network alone.
        blocks: Keys of the network; empty for a network of timm.
        module: `timm:NAME[@PX]`; empty for our blocks.

    Raises:
        UsageError: only files are given, and none is of this network, or they keep nothing in fp32.
        InvalidArtifactError: a file is damaged.
    """
    paths = [text for text in keep_fp32 if not text.endswith(".json")]
    files = [text for text in keep_fp32 if text.endswith(".json")]
    recipes = {text: read_mixed_precision(Path(text)) for text in files}
    own = {text: recipe for text, recipe in recipes.items() if recipe.applies_to(blocks, module)}
    if files and not own and not paths:
        raise UsageError(
            f"--keep-fp32 {files[0]} is of another network than {module or 'this one'}; "
            "run bench sensitivity for it",
            code="different_network",
        )
    if own and not paths and not any(recipe.fp32 for recipe in own.values()):
        raise UsageError(
            f"--keep-fp32 {next(iter(own))} keeps nothing in fp32, int8 costs little enough; use --precision int8",
            code="nothing_in_fp32",
        )
    return tuple(paths) + tuple(path for recipe in own.values() for path in recipe.fp32)


DEFAULT_IMAGES = 128
"""With 1,024 top-1 of a network of `autovit-cifar` changes by 0.2 points (5,000 images)."""

RANDOM_RANGES = "note: int8 ranges are those of random inputs; add --calibration DATA for those of images"


@dataclass(frozen=True)
class Calibration:
    """Images that decide int8's ranges: source, number of its training images, and random seed of the sample."""

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
    """Return the spec with its calibration images, whose digest and choice become part of its identity.

    `folder` gets a file with them. `normalization` is that of the network's training, ImageNet's by default;
    `split` has seed and fraction by which the training divided the images.

    Raises:
        UsageError: a precision without int8, no such images, or too few.
        InvalidArtifactError: an image can't be read; it is named.
    """
    import torch
    from safetensors.torch import save_file

    from orchestrator.accuracy.predictions import ImageSet
    from orchestrator.export.lower.calibration import IMAGES
    from orchestrator.export.lower.quantize import MIDDLE
    from search.supernet.data.images import IMAGENET, split_source
    from search.supernet.data.sources import open_source

    if spec.precision not in QUANTISED:
        raise UsageError(
            f"--calibration decides ranges of int8, not of {spec.precision}; add --precision int8",
            code="calibration_without_int8",
        )
    source = open_source(calibration.data)
    training = split_source(source, *split).train
    if not 1 <= calibration.images <= len(training):
        raise UsageError(
            f"--calibration-images {calibration.images}: {calibration.data} has {len(training)} training images; "
            "use at most that many",
            code="too_few_images",
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
    """Return the side of the network's input in pixels."""
    if spec.blocks:
        return parse_key(spec.blocks[0]).resolution
    _, _, size = spec.module.partition("@")
    if size:
        return int(size)
    import timm

    name = spec.module.removeprefix("timm:")
    if name not in timm.list_models():
        return 224  # the exporter refuses the name
    return int(timm.get_pretrained_cfg(name).input_size[1])
