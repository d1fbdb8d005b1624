"""An elastic operator is its static counterpart plus a slice.

Nothing here repeats an operator: a subnet runs the modules of `search.networks` on slices of the weights of
the largest network (weight entanglement, AutoViT section 3.3.1). A slice takes the first channels of every
dimension, the first heads, the first hidden units, and the centre of a kernel. It is described once, as a
`Slice`, and forward pass, extraction and optimizer all go through it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from search.blocks import BlockSpec
from search.networks import Network

CONCATENATIONS: Mapping[str, tuple[int, int]] = {
    "qkv.weight": (0, 3),
    "qkv.bias": (0, 3),
    "fusion.conv.weight": (1, 2),
}
"""Parameters with a dimension that is several ones end to end: name's end -> (dimension, parts).

Query, key and value each keep their first heads; the fusion convolution reads the block's input and the
transformer's output, and keeps the first channels of both.
"""

Group = tuple[BlockSpec, ...]
"""Blocks that make one module of a network: one block, or a MobileViT shell with its layers."""


@dataclass(frozen=True)
class Slice:
    """Where the parameter `name` of a static module stands in the parameter `source` of the supernet.

    Attributes:
        name: Parameter of the static module.
        source: Parameter of the supernet.
        shape: Shape of the static parameter.
        dim: Dimension of `source` that is split into `parts` before `index` is applied.
        parts: 1 where nothing is split.
        index: Slices of the (split) parameter.
    """

    name: str
    source: str
    shape: tuple[int, ...]
    dim: int
    parts: int
    index: tuple[slice, ...]

    def region(self, tensor: Tensor) -> Tensor:
        """The slice as a view: writing to it writes to `tensor` (a weight, a gradient, optimizer state)."""
        if self.parts > 1:
            before, after = tensor.shape[: self.dim], tensor.shape[self.dim + 1 :]
            tensor = tensor.view(*before, self.parts, -1, *after)
        return tensor[self.index]

    def take(self, tensor: Tensor) -> Tensor:
        """The slice in the shape of the static parameter."""
        return self.region(tensor).reshape(self.shape)


def group_blocks(blocks: tuple[BlockSpec, ...] | list[BlockSpec]) -> list[Group]:
    """Cut a list of blocks into the groups that become one module each."""
    groups: list[list[BlockSpec]] = []
    for block in blocks:
        if block.kind == "mvit.layer":
            groups[-1].append(block)
        else:
            groups.append([block])
    return [tuple(group) for group in groups]


def build_group(group: Group) -> nn.Module:
    """The static module of a group, its BN without running statistics: they belong to one subnet each."""
    module = Network(group)[0]
    for part in module.modules():
        if isinstance(part, _BatchNorm):
            part.track_running_stats = False
            part.running_mean = part.running_var = part.num_batches_tracked = None
    return module


@lru_cache(maxsize=4096)
def weightless_module(group: Group) -> nn.Module:
    """The static module of a group without storage, to be called with weights from elsewhere.

    It is shared, and holds the weights while it runs: two threads must not run subnets at once.
    """
    with torch.device("meta"):
        return build_group(group)


def slices_of(static: nn.Module, largest: nn.Module, prefix: str) -> tuple[Slice, ...]:
    """The slices of `largest` that make `static`; the supernet calls a parameter `prefix` + its name.

    Raises:
        ValueError: `static` is no part of `largest`.
    """
    sources = dict(largest.named_parameters())
    found = []
    for name, parameter in static.named_parameters():
        if name not in sources or sources[name].ndim != parameter.ndim:
            raise ValueError(f"{prefix}{name} {tuple(parameter.shape)} has no counterpart in the supernet")
        dim, parts = next((v for end, v in CONCATENATIONS.items() if name.endswith(end)), (0, 1))
        found.append(_slice(name, prefix + name, tuple(parameter.shape), sources[name].shape, dim, parts))
    return tuple(found)


def _slice(
    name: str, source: str, shape: tuple[int, ...], largest: tuple[int, ...], dim: int, parts: int
) -> Slice:
    if any(small > large for small, large in zip(shape, largest, strict=True)):
        raise ValueError(f"{source}: {shape} is no part of {tuple(largest)}")
    index: list[slice] = []
    for axis, (small, large) in enumerate(zip(shape, largest, strict=True)):
        if axis == dim and parts > 1:
            index += [slice(None), slice(0, small // parts)]
        elif axis >= 2:
            start = (large - small) // 2
            index.append(slice(start, start + small))
        else:
            index.append(slice(0, small))
    return Slice(name, source, shape, dim, parts, tuple(index))
