"""Which blocks of a network stay fp32 in mixed precision: as people say it, or as a sensitivity pass wrote it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from luts.format.errors import InvalidArtifactError, UsageError, first_problem
from luts.format.files import read_bytes, write_json
from orchestrator.export import ExportSpec
from orchestrator.export.artifacts.spec import MAX_FP32, QUANTISED
from search.blocks import parse_key

if TYPE_CHECKING:
    from search.supernet.data.images import Normalization


MAX_BYTES = 4 << 20
"""Thousands of blocks with what was judged of each."""

MAX_BLOCKS = 4096

_CLASSES = re.compile(r"classes=[0-9]+")

Path_ = Annotated[str, Field(max_length=2000)]


class Mix(BaseModel):
    """What `bench sensitivity` found of a network.

    Attributes:
        blocks: Keys of the network, or
        module: `timm:NAME[@PX]`.
        fp32: Paths of modules, as of `ExportSpec`.
        judged: What it was found by, for people.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    blocks: Annotated[tuple[Path_, ...], Field(max_length=MAX_BLOCKS)] = ()
    module: Annotated[str, Field(max_length=200)] = ""
    fp32: Annotated[tuple[Path_, ...], Field(max_length=MAX_FP32)]
    judged: dict[str, Any] = Field(default_factory=dict)

    def is_of(self, blocks: Sequence[str], module: str) -> bool:
        """Whether it is of this network, with any number of classes and any size of a timm network's input."""
        if module:
            return self.module.partition("@")[0] == module.partition("@")[0]
        return [_CLASSES.sub("", key) for key in self.blocks] == [_CLASSES.sub("", key) for key in blocks]

    def write(self, path: Path) -> None:
        """Raises StorageError where it can't be written."""
        write_json(path, self.model_dump(mode="json"))


def read_mix(path: Path) -> Mix:
    """Raises InvalidArtifactError where it is not such a file."""
    try:
        return Mix.model_validate_json(read_bytes(path, MAX_BYTES, "give the file of bench sensitivity"))
    except ValidationError as error:
        raise InvalidArtifactError(
            f"{path}: not a file of bench sensitivity ({first_problem(error)})"
        ) from error


def stays_fp32(said: Sequence[str], blocks: Sequence[str], module: str) -> tuple[str, ...]:
    """Paths of what stays fp32 in one network.

    Args:
        said: Each a place of a block (`4`), a path of a module (`blocks.2`), both of any network, or the JSON file
            of a sensitivity pass, which counts for its own network alone.
        blocks: Keys of the network, or
        module: `timm:NAME[@PX]`.

    Raises:
        UsageError: only files are given, and none is of this network; or one leaves nothing in fp32.
        InvalidArtifactError: a file is damaged.
    """
    paths = [text for text in said if not text.endswith(".json")]
    files = [text for text in said if text.endswith(".json")]
    mixes = {text: read_mix(Path(text)) for text in files}
    own = {text: mix for text, mix in mixes.items() if mix.is_of(blocks, module)}
    if files and not own and not paths:
        raise UsageError(
            f"--fp32 {files[0]} is of another network than {module or 'this one'}; run bench sensitivity for it"
        )
    if own and not paths and not any(mix.fp32 for mix in own.values()):
        raise UsageError(
            f"--fp32 {next(iter(own))} keeps nothing in fp32: int8 costs little enough; use --precision int8"
        )
    return tuple(paths) + tuple(path for mix in own.values() for path in mix.fp32)


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
    from orchestrator.export.lower.quantize import MIDDLE
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
