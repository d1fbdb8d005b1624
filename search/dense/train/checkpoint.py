"""Files of a run: `dense.json`, and the two safetensors files that it names, of the network and the optimizer.

Tensors are written first under new names; replacing the JSON makes them count. A run that dies at any moment leaves
the checkpoint before or the one after.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from luts.format.errors import InvalidArtifactError
from luts.format.files import storage_error, write_atomically
from luts.format.provenance import code_version
from search.dense.train.info import INFO_FILE, DenseInfo, read_info
from search.networks import Network, build_network
from search.spaces import arch_from_json
from search.spaces.whole import is_timm
from search.supernet.model.weights_file import copy_into, read_weights

_STATE = ("exp_avg", "exp_avg_sq", "step")
"""Of torch's AdamW."""


def save_run(
    folder: Path, network: nn.Module, optimizer: torch.optim.AdamW, fields: Mapping[str, Any]
) -> DenseInfo:
    """Write a checkpoint over the one in `folder`.

    Raises:
        StorageError: nothing could be written; the one before stays whole.
    """
    named = {
        "network": as_exported(network, str(fields["arch"])).state_dict(),
        "optimizer": dict(_state(network, optimizer)),
    }
    data = {
        kind: save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
        for kind, tensors in named.items()
    }
    digests = {kind: hashlib.sha256(content).hexdigest() for kind, content in data.items()}
    files = {kind: f"{kind}-{digest[:16]}.safetensors" for kind, digest in digests.items()}
    info = DenseInfo(
        **fields,
        code=code_version(),
        weights=files["network"],
        weights_sha256=digests["network"],
        optimizer=files["optimizer"],
        optimizer_sha256=digests["optimizer"],
    )
    try:
        for kind, content in data.items():
            write_atomically(folder / files[kind], content)
        write_atomically(folder / INFO_FILE, info.model_dump_json(indent=1).encode())
        for kind, file in files.items():
            for old in folder.glob(f"{kind}-*.safetensors"):
                if old.name != file:
                    old.unlink()
    except OSError as error:
        raise storage_error(
            f"{folder}: cannot save the checkpoint", error, "choose another --output"
        ) from error
    return info


def resume_run(
    folder: Path, network: nn.Module, optimizer: torch.optim.AdamW, check: Callable[[DenseInfo], None]
) -> DenseInfo | None:
    """Put the checkpoint of a folder into network and optimizer; None where there is none.

    Args:
        folder: Of the run.
        network: Whose weights and statistics are overwritten.
        optimizer: Of the network.
        check: Raises where the checkpoint is of another run.

    Raises:
        InvalidArtifactError: it is damaged, or of another network.
    """
    if not (folder / INFO_FILE).exists():
        return None
    info = read_info(folder)
    check(info)
    _put(folder, info, network)
    refusal = f"{folder / info.optimizer}: the state of another network; train again"
    given = read_weights(folder / info.optimizer, info.optimizer_sha256)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter] = {
                key: torch.zeros((), dtype=torch.float32) if key == "step" else torch.zeros_like(parameter)
                for key in _STATE
            }
    copy_into(dict(_state(network, optimizer)), given, refusal)
    return info


def load_run(folder: Path) -> tuple[Network, DenseInfo]:
    """The network of a run, for inference; raises as `resume_run`, also where there is none."""
    info = read_info(folder)
    network = build_network(info.network.blocks())
    _put(folder, info, network)
    return network.eval(), info


def weights_of(folder: Path) -> Path:
    """The file of a run's weights, checked; raises as `load_run`."""
    info = read_info(folder)
    read_weights(folder / info.weights, info.weights_sha256)
    return folder / info.weights


def as_exported(network: nn.Module, arch: str) -> nn.Module:
    """The module whose names of tensors exporters know: of timm's networks, which are one block, that block."""
    return network.get_submodule("0") if is_timm(arch_from_json(arch).space) else network


def _put(folder: Path, info: DenseInfo, network: nn.Module) -> None:
    given = read_weights(folder / info.weights, info.weights_sha256)
    copy_into(
        as_exported(network, info.arch).state_dict(),
        given,
        f"{folder / info.weights}: weights of another network; train again",
    )
    if not all(value.isfinite().all() for value in given.values()):
        raise InvalidArtifactError(
            f"{folder / info.weights}: not finite, so training had diverged; train again"
        )


def _state(network: nn.Module, optimizer: torch.optim.AdamW) -> Iterator[tuple[str, Tensor]]:
    """The optimizer's tensors by the names of the parameters; none of parameters that never moved."""
    for name, parameter in network.named_parameters():
        for key in _STATE if parameter in optimizer.state else ():
            yield f"{key}/{name}", optimizer.state[parameter][key]
