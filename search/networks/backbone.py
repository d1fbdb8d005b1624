"""A trained classifier's weights in a detector or a segmentation network of the same backbone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from luts.format.errors import UsageError
from search.networks.network import HEAD

_BACKBONE = "backbone."
"""What tensors of a network of timm begin with beside a head."""

_ONE_BLOCK = "0."
"""What names in a network of timm begin with where it is built as a network of one block."""

_NEXT = "give the weights of a classifier with this very backbone"


@dataclass(frozen=True)
class Loaded:
    """How many tensors of the backbone were taken, and names of the file's that were not (the classifier's)."""

    taken: int
    left: tuple[str, ...]


def is_head(name: str) -> bool:
    """Whether a parameter of a network belongs to its head of another task."""
    return name.removeprefix(_ONE_BLOCK).startswith(HEAD)


def load_backbone(network: nn.Module, tensors: Mapping[str, Tensor]) -> Loaded:
    """Copy a classifier's weights into the backbone of a network with a task's head, by name.

    Args:
        network: Of `build_network`.
        tensors: The classifier's, as `build_network` names them, or of timm's networks as timm does.

    Raises:
        UsageError: a tensor of the backbone is missing or of another shape; nothing is changed then.
    """
    own = {
        name: tensor
        for name, tensor in network.state_dict().items()
        if not is_head(name) and not name.endswith("num_batches_tracked")
    }
    plain = _timm if any(_BACKBONE in name for name in own) else str
    sources = {plain(name): name for name in tensors}
    wrong = [name for name in own if plain(name) not in sources]
    if wrong:
        raise UsageError(
            f"the weights lack {len(wrong)} of the backbone's {len(own)} tensors, {wrong[0]} first; {_NEXT}"
        )
    taken = {name: tensors[sources[plain(name)]] for name in own}
    for name, tensor in own.items():
        if taken[name].shape != tensor.shape:
            shapes = f"{tuple(taken[name].shape)} in the weights, {tuple(tensor.shape)} in the backbone"
            raise UsageError(f"{sources[plain(name)]} is {shapes}; {_NEXT}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(taken[name])
    used = {sources[plain(name)] for name in own}
    left = (name for name in tensors if name not in used and not name.endswith("num_batches_tracked"))
    return Loaded(len(own), tuple(left))


def _timm(name: str) -> str:
    """What a tensor of timm is called everywhere: its networks of maps have flattened names, `stages_0.1.x` for
    `stages.0.1.x`, or `model.` before theirs."""
    name = name.removeprefix(_ONE_BLOCK).removeprefix(_BACKBONE).removeprefix("model.")
    return name.replace("_", ".")
