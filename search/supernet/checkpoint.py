"""Checkpoints of a supernet: `checkpoint.json`, and the safetensors file that it names.

The tensors are written first under a new name; replacing the JSON makes them count. A run that dies at any
moment leaves the checkpoint before or the one after, never a mixture. The folder `best` beside them is a whole
checkpoint, too: the one whose subnets did best on images held out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from luts.errors import InvalidArtifactError, StorageError, UsageError
from luts.json_file import read_json
from search.code_version import CodeVersion
from search.files import write_atomically
from search.spaces import Space, get_space
from search.supernet.ema import WeightAverage
from search.supernet.optimizer import SlicedAdamW
from search.supernet.recipe import Recipe
from search.supernet.supernet import Supernet

MAX_JSON_BYTES = 4 * 1024 * 1024
"""Room for the class names of the largest data set."""

MAX_TENSOR_BYTES = 16 * 1024**3
"""Over a hundred times the largest registered space with its optimizer state."""

BEST = "best"
"""Folder, in that of a run, of its best checkpoint."""

_Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class CheckpointInfo(BaseModel):
    """What `checkpoint.json` says.

    Attributes:
        image_side: Side in pixels to which images were cut before augmentation.
        step: Optimizer steps done; with the recipe's seed it fixes all random numbers to come.
        held_out_top1: Mean accuracy of a few fixed subnets on images held out, by which `best` is chosen.
        scaler: State of the loss scale of fp16.
        code: What trained it last.
        weights_sha256: Digest of the weights that subnets inherit, the identity of the trained supernet.
        tensors_sha256: Digest of the file `tensors`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    space: str = Field(max_length=64)
    space_digest: _Sha256
    classes: tuple[str, ...] = Field(min_length=1, max_length=65_536)
    recipe: Recipe
    step: int = Field(ge=0)
    steps_per_epoch: int = Field(ge=1)
    loss: float | None
    source: str = Field(max_length=4096)
    data_digest: _Sha256
    split_seed: int
    split_fraction: float = Field(gt=0, lt=0.5)
    image_side: int = Field(ge=1, le=65_536)
    teacher: str | None = Field(default=None, max_length=4096)
    held_out_top1: float | None = Field(default=None, ge=0, le=1)
    scaler: dict[str, int | float] = Field(default={}, max_length=16)
    code: CodeVersion | None = None
    weights_sha256: _Sha256
    tensors: str = Field(pattern=r"^supernet-[0-9a-f]{16}\.safetensors$")
    tensors_sha256: _Sha256

    @property
    def finished(self) -> bool:
        """Whether training came to its end."""
        return self.step >= self.recipe.epochs * self.steps_per_epoch


class Digests(NamedTuple):
    """The fields of `CheckpointInfo` that follow from the tensors."""

    weights_sha256: str
    tensors: str
    tensors_sha256: str


_OF_A_RUN = {
    "recipe": "recipe",
    "data_digest": "images",
    "split_seed": "split",
    "split_fraction": "split",
    "image_side": "image side",
    "teacher": "teacher",
}
"""Fields that stay the same in a run, and what people call them."""


def same_run(directory: Path, found: CheckpointInfo, mine: CheckpointInfo) -> None:
    """`UsageError` that names what differs where `found` is not of the run that goes on with `mine`."""
    differing = next((f for f in _OF_A_RUN if getattr(found, f) != getattr(mine, f)), None)
    if differing is None:
        return
    detail = ""
    if differing == "recipe":
        before, now = found.recipe.model_dump(mode="json"), mine.recipe.model_dump(mode="json")
        name = next(name for name in now if now[name] != before[name])
        detail = f": {name} was {before[name]}, now {now[name]}"
    raise UsageError(
        f"{directory} holds a run with another {_OF_A_RUN[differing]}{detail}; "
        "repeat its options or use another directory"
    )


def space_digest(space: Space) -> str:
    """Digest of a space's choices, whatever number of classes it is used with."""
    return get_space(space.name).digest


@dataclass(frozen=True)
class TrainingState:
    """The tensors of a run: what training goes on from, and what subnets inherit."""

    supernet: Supernet
    optimizer: SlicedAdamW
    average: WeightAverage | None = None

    @property
    def inherited(self) -> dict[str, Tensor]:
        """Averaged weights where there are any, else the weights."""
        if self.average is not None:
            return self.average.tensors
        return {name: value.detach() for name, value in self.supernet.named_parameters()}


def save_checkpoint(
    directory: Path, state: TrainingState, describe: Callable[[Digests], CheckpointInfo]
) -> CheckpointInfo:
    """Write a checkpoint over the one in `directory`; `describe` gets the digests and completes the rest.

    Raises:
        StorageError: nothing could be written (disk full, no permission); the one before stays whole.
    """
    tensors = {f"weights/{name}": value.detach() for name, value in state.supernet.named_parameters()}
    tensors |= {f"optimizer/{name}": value for name, value in state.optimizer.state_tensors().items()}
    if state.average is not None:
        tensors |= {f"average/{name}": value for name, value in state.average.tensors.items()}
    data = save(tensors)
    tensors_sha256 = hashlib.sha256(data).hexdigest()
    info = describe(
        Digests(
            _weights_digest(state.inherited), f"supernet-{tensors_sha256[:16]}.safetensors", tensors_sha256
        )
    )
    try:
        write_atomically(directory / info.tensors, data)
        write_atomically(directory / "checkpoint.json", info.model_dump_json(indent=1).encode())
        for old in directory.glob("supernet-*.safetensors"):
            if old.name != info.tensors:
                old.unlink()
    except OSError as error:
        raise StorageError(
            f"{directory}: cannot save the checkpoint ({error.strerror}); the one before is kept, free some space"
        ) from error
    return info


def read_info(directory: Path) -> CheckpointInfo:
    """What a checkpoint says of itself.

    Raises:
        InvalidArtifactError: there is none, it is damaged, or of a space that has changed since.
    """
    path = directory / "checkpoint.json"
    info = read_json(path, CheckpointInfo, MAX_JSON_BYTES, "make one with `bench train`")
    if get_space(info.space).digest != info.space_digest:
        raise InvalidArtifactError(f"{path}: the space {info.space} has changed since; train again")
    return info


def load_supernet(directory: Path) -> tuple[Supernet, CheckpointInfo]:
    """The trained supernet of a checkpoint.

    Raises:
        InvalidArtifactError: the checkpoint is missing, truncated or of another space.
    """
    info = read_info(directory)
    supernet = Supernet(get_space(info.space).with_classes(len(info.classes)))
    tensors = _read_tensors(directory, info)
    _load_weights(supernet, _under("average/", tensors) or _under("weights/", tensors), info)
    return supernet, info


def resume(directory: Path, state: TrainingState) -> CheckpointInfo:
    """Put a checkpoint into the state of a run in the same space; raises like `load_supernet`."""
    info = read_info(directory)
    space = state.supernet.space
    if (info.space, len(info.classes)) != (space.name, space.default_classes):
        raise InvalidArtifactError(
            f"{directory}: checkpoint of {info.space} with {len(info.classes)} classes, not of "
            f"{space.name} with {space.default_classes}; use another directory"
        )
    tensors = _read_tensors(directory, info)
    _load_weights(state.supernet, _under("weights/", tensors), info)
    state.optimizer.load_state_tensors(_under("optimizer/", tensors))
    if state.average is not None:
        state.average.load(_under("average/", tensors))
    return info


def _weights_digest(weights: Mapping[str, Tensor]) -> str:
    """sha256 of all weights with their names."""
    hashed = hashlib.sha256()
    for name, value in sorted(weights.items()):
        hashed.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        hashed.update(value.detach().cpu().contiguous().numpy().data)
    return hashed.hexdigest()


def _read_tensors(directory: Path, info: CheckpointInfo) -> dict[str, Tensor]:
    path = directory / info.tensors
    try:
        if path.stat().st_size > MAX_TENSOR_BYTES:
            raise InvalidArtifactError(
                f"{path}: over {MAX_TENSOR_BYTES} bytes; this is no checkpoint of ours"
            )
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != info.tensors_sha256:
            raise InvalidArtifactError(f"{path}: truncated or edited; copy it again or train again")
        tensors: dict[str, Tensor] = load(data)
        return tensors
    except (OSError, SafetensorError) as error:
        raise InvalidArtifactError(f"{path}: cannot be read ({error}); train again") from error


def _load_weights(supernet: Supernet, weights: Mapping[str, Tensor], info: CheckpointInfo) -> None:
    targets = dict(supernet.named_parameters())
    if {k: v.shape for k, v in weights.items()} != {k: v.shape for k, v in targets.items()}:
        raise InvalidArtifactError(
            f"{info.tensors}: weights of another supernet than {info.space}'s; train again"
        )
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(weights[name])


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
