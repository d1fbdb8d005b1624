"""An elastic operator is its static counterpart plus a slice.

Nothing here repeats an operator: a subnet runs the modules of `search.networks` on slices of the weights of
the largest network (weight entanglement, AutoViT section 3.3.1). A slice takes the first channels of every
dimension, the first heads, the first hidden units, and the centre of a kernel; a block says which dimensions
are products (`BlockSpec.factors`). It is described once, as a `Slice`, and forward pass, extraction and
optimizer all go through it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from search.blocks import Factors, Group
from search.networks import build_group
from search.supernet.model.slices import Slice

KERNEL_AXIS = 2
"""First dimension of a weight that is spatial: (out, in, height, width)."""


def elastic_module(group: Group) -> nn.Module:
    """The static module of a group, its BN without running statistics: they belong to one subnet each."""
    module = build_group(group)
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
        return elastic_module(group)


def has_buffers(module: nn.Module) -> bool:
    """Whether an elastic module needs more than weights, as timm's networks of windows do: it runs as it is."""
    return next(module.buffers(), None) is not None


def run_with(module: nn.Module, weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """What a weightless module gives for `x` with all of its weights from elsewhere.

    `torch.func.functional_call` does the same, and looks for the places of the weights at every call.
    """
    places = _places(module)
    without = [holder[name] for holder, name, _ in places]
    try:
        for holder, name, full_name in places:
            holder[name] = weights[full_name]
        out: Tensor = module(x)
        return out
    finally:
        for (holder, name, _), parameter in zip(places, without, strict=True):
            holder[name] = parameter


@lru_cache(maxsize=4096)
def _places(module: nn.Module) -> tuple[tuple[dict[str, Any], str, str], ...]:
    """Where the parameters of a module hang: the dictionary of its part, the name there, the whole name."""
    return tuple(
        (part._parameters, name, f"{prefix}.{name}" if prefix else name)
        for prefix, part in module.named_modules()
        for name, parameter in part._parameters.items()
        if parameter is not None
    )


def slices_of(group: Group, largest: Group, prefix: str) -> tuple[Slice, ...]:
    """The slices of the module of `largest` that make that of `group`; its parameters are called `prefix` + name.

    Raises:
        ValueError: `group` is not a part of `largest`.
    """
    sources = dict(weightless_module(largest).named_parameters())
    factors, large_factors = _factors(group), _factors(largest)
    slices = []
    for name, parameter in weightless_module(group).named_parameters():
        shape = tuple(parameter.shape)
        if name not in sources or sources[name].ndim != parameter.ndim:
            raise ValueError(f"{prefix}{name} {shape} has no counterpart in the supernet")
        view: list[int] = []
        index: list[slice] = []
        for axis, (small, large) in enumerate(zip(shape, sources[name].shape, strict=True)):
            cut = factors.get(name, {}).get(axis, (small,))
            split = large_factors.get(name, {}).get(axis, (large,))
            if any(part > whole for part, whole in zip(cut, split, strict=True)):
                raise ValueError(f"{prefix}{name}: {shape} is not a part of {tuple(sources[name].shape)}")
            start = (large - small) // 2 if axis >= KERNEL_AXIS else 0
            view += split
            index += [slice(start, start + part) for part in cut]
        slices.append(Slice(name, prefix + name, shape, tuple(view), tuple(index)))
    return tuple(slices)


def _factors(group: Group) -> Factors:
    """Those of a block and of the blocks that it encloses, by the names of the module that they make."""
    outer, *enclosed = group
    inner = {
        f"layers.{index}.{name}": factors
        for index, block in enumerate(enclosed)
        for name, factors in block.factors().items()
    }
    return {**outer.factors(), **inner}
