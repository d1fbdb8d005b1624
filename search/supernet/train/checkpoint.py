"""Checkpoints of a supernet: `checkpoint.json`, and the safetensors file that it names.

The tensors are written first under a new name; replacing the JSON makes them count. A run that dies at any
moment leaves the checkpoint before or the one after, never a mixture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from luts.format.atomic_file import write_atomically
from luts.format.errors import InvalidArtifactError, StorageError
from search.spaces import get_space
from search.supernet.model.supernet import Supernet
from search.supernet.model.tensors import copy_into, tensors_digest
from search.supernet.train.checkpoint_info import CheckpointInfo, read_info, write_info
from search.supernet.train.ema import WeightAverage
from search.supernet.train.optimizer import Optimizer

MAX_TENSOR_BYTES = 16 * 1024**3
"""Over a hundred times the largest registered space with its optimizer state."""


@dataclass(frozen=True)
class TrainingState:
    """The tensors of a run: what training goes on from, and what subnets inherit."""

    supernet: Supernet
    optimizer: Optimizer
    average: WeightAverage | None = None

    @property
    def inherited(self) -> dict[str, Tensor]:
        """Averaged weights where there are any, else the weights."""
        if self.average is not None:
            return self.average.tensors
        return {name: value.detach() for name, value in self.supernet.named_parameters()}


def save_checkpoint(directory: Path, state: TrainingState, fields: Mapping[str, Any]) -> CheckpointInfo:
    """Write a checkpoint over the one in `directory`; `fields`: of its info, all but those of the tensors.

    Raises:
        StorageError: nothing could be written (disk full, no permission); the one before stays whole.
    """
    tensors = {f"weights/{name}": value.detach() for name, value in state.supernet.named_parameters()}
    tensors |= {f"optimizer/{name}": value for name, value in state.optimizer.state_tensors().items()}
    if state.average is not None:
        tensors |= {f"average/{name}": value for name, value in state.average.tensors.items()}
    data = save(tensors)
    tensors_sha256 = hashlib.sha256(data).hexdigest()
    info = CheckpointInfo(
        **fields,
        weights_sha256=tensors_digest(state.inherited),
        tensors=f"supernet-{tensors_sha256[:16]}.safetensors",
        tensors_sha256=tensors_sha256,
    )
    try:
        write_atomically(directory / info.tensors, data)
        write_info(directory, info)
        for old in directory.glob("supernet-*.safetensors"):
            if old.name != info.tensors:
                old.unlink()
    except OSError as error:
        raise StorageError(
            f"{directory}: cannot save the checkpoint ({error.strerror}); the one before is kept, free some space"
        ) from error
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


def _read_tensors(directory: Path, info: CheckpointInfo) -> dict[str, Tensor]:
    path = directory / info.tensors
    try:
        if path.stat().st_size > MAX_TENSOR_BYTES:
            raise InvalidArtifactError(
                f"{path}: over {MAX_TENSOR_BYTES} bytes; this is not a checkpoint of ours"
            )
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != info.tensors_sha256:
            raise InvalidArtifactError(f"{path}: truncated or edited; copy it again or train again")
        tensors: dict[str, Tensor] = load(data)
        return tensors
    except (OSError, SafetensorError) as error:
        raise InvalidArtifactError(f"{path}: cannot be read ({error}); train again") from error


def _load_weights(supernet: Supernet, weights: Mapping[str, Tensor], info: CheckpointInfo) -> None:
    refusal = f"{info.tensors}: weights of another supernet than {info.space}'s; train again"
    copy_into(dict(supernet.named_parameters()), weights, refusal)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
