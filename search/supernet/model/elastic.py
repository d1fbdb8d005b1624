"""Elastic operators: a static operator plus a slice of its weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from search.blocks import Factors, Group
from search.networks import build_group


@dataclass(frozen=True)
class Slice:
    """Where the parameter `name` of a static module stands in the parameter `source` of the supernet.

    Attributes:
        shape: Shape of the static parameter.
        view: Shape of `source` with every dimension split into its factors.
        index: Slices of that view.
    """

    name: str
    source: str
    shape: tuple[int, ...]
    view: tuple[int, ...]
    index: tuple[slice, ...]

    @cached_property
    def whole(self) -> bool:
        """Whether it is all of `source`."""
        return self.shape_of_box == self.view

    @cached_property
    def shape_of_box(self) -> tuple[int, ...]:
        """Shape of the region."""
        return _sides(self.index)

    @cached_property
    def layout(self) -> tuple[tuple[int, ...], tuple[int, ...], int]:
        """Shape, strides and offset of the region in a contiguous `source`."""
        strides = [math.prod(self.view[axis + 1 :]) for axis in range(len(self.view))]
        offset = sum(side.start * stride for side, stride in zip(self.index, strides, strict=True))
        return self.shape_of_box, tuple(strides), offset

    def region(self, tensor: Tensor) -> Tensor:
        """Return the slice of a contiguous tensor (a weight, a gradient, optimizer state) as a view to write to."""
        if self.whole:
            return tensor
        if not tensor.is_contiguous():
            raise ValueError(f"{self.source}: slices are cut from contiguous tensors alone")
        return tensor.as_strided(*self.layout)

    def take(self, tensor: Tensor) -> Tensor:
        """Return the slice in the shape of the static parameter."""
        return take((self,), (tensor,))[0]


def take(parts: Sequence[Slice], tensors: Sequence[Tensor]) -> list[Tensor]:
    """Each slice of its tensor in the shape of the static parameter, contiguous; whole tensors as they are.

    Those of frozen tensors are apart, so that no gradient is taken through them.
    """
    taken = list(tensors)
    for moving in (True, False):
        places = [
            place
            for place, part in enumerate(parts)
            if not part.whole and tensors[place].requires_grad is moving
        ]
        if places:
            cut = _Take.apply(tuple(parts[place] for place in places), *(tensors[place] for place in places))
            for place, tensor in zip(places, cut, strict=True):
                taken[place] = tensor
    return taken


class _Take(torch.autograd.Function):
    """`take` as one operation: torch would record a view, one for each dimension and a copy of every slice.

    Copies are contiguous, since a 1x1 convolution takes a part of its input channels for channels-last weights.
    """

    @staticmethod
    def forward(ctx: Any, parts: tuple[Slice, ...], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.parts, ctx.shapes = parts, [tensor.shape for tensor in tensors]
        return tuple(
            _shaped(part.region(tensor).clone(memory_format=torch.contiguous_format), part.shape)
            for part, tensor in zip(parts, tensors, strict=True)
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Zero outside of the slices."""
        wholes = [g.new_zeros(shape) for g, shape in zip(gradients, ctx.shapes, strict=True)]
        regions = [part.region(whole) for part, whole in zip(ctx.parts, wholes, strict=True)]
        boxes = [_shaped(g, part.shape_of_box) for part, g in zip(ctx.parts, gradients, strict=True)]
        torch._foreach_copy_(regions, boxes)
        return None, *wholes


def _shaped(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """`reshape`, which costs as much as a small copy even where there is nothing to do."""
    return tensor if tensor.shape == shape else tensor.reshape(shape)


def disjoint(slices: Iterable[Slice]) -> tuple[Slice, ...]:
    """Split slices of several subnets so that each element is in one slice only; one subnet's stay as they are.

    What is left of a cut slice has the shape of its box in `view`.
    """
    apart: dict[str, list[Slice]] = {}
    for part in slices:
        distinct = apart.setdefault(part.source, [])
        pieces = [part.index]
        for other in distinct:
            pieces = [rest for piece in pieces for rest in _without(piece, other.index)]
        if pieces == [part.index]:
            distinct.append(part)
        else:
            distinct += [replace(part, shape=_sides(piece), index=piece) for piece in pieces]
    return tuple(part for distinct in apart.values() for part in distinct)


def _sides(box: tuple[slice, ...]) -> tuple[int, ...]:
    return tuple(side.stop - side.start for side in box)


def _without(box: tuple[slice, ...], other: tuple[slice, ...]) -> list[tuple[slice, ...]]:
    """Boxes that hold what `box` has outside of `other`."""
    if any(a.stop <= b.start or b.stop <= a.start for a, b in zip(box, other, strict=True)):
        return [box]
    rest, core = [], list(box)
    for axis, (own, cut) in enumerate(zip(box, other, strict=True)):
        for outside in (slice(own.start, cut.start), slice(cut.stop, own.stop)):
            if outside.start < outside.stop:
                rest.append((*core[:axis], outside, *core[axis + 1 :]))
        core[axis] = slice(max(own.start, cut.start), min(own.stop, cut.stop))
    return rest


KERNEL_AXIS = 2
"""First dimension of a weight that is spatial: (out, in, height, width)."""


def elastic_module(group: Group) -> nn.Module:
    """Build the static module of a group, its BN without running statistics: those belong to one subnet each."""
    module = build_group(group)
    for part in module.modules():
        if isinstance(part, _BatchNorm):
            part.track_running_stats = False
            part.running_mean = part.running_var = part.num_batches_tracked = None
    return module


@lru_cache(maxsize=4096)
def weightless_module(group: Group) -> nn.Module:
    """Build the static module of a group without storage, to be called with other tensors as weights.

    It is shared, and holds the weights while it runs: two threads must not run subnets at once.
    """
    with torch.device("meta"):
        return elastic_module(group)


def has_buffers(module: nn.Module) -> bool:
    """Whether an elastic module needs more than weights, as timm's networks of windows do: it runs as it is."""
    return next(module.buffers(), None) is not None


def run_with(module: nn.Module, weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Run a weightless module on `x` with the given tensors as weights.

    `torch.func.functional_call` does the same, and looks for the places of the weights at every call.
    """
    places = _places(module)
    without = [holder[name] for holder, name, _ in places]
    try:
        for holder, name, full_name in places:
            holder[name] = weights[full_name]
        return module(x)
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
    """Return the slices of the module of `largest` that form that of `group`; parameters are `prefix` + name.

    Raises ValueError if `group` is not a part of `largest`.
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
            start = (large - small) // 2 if axis >= KERNEL_AXIS and axis not in factors.get(name, {}) else 0
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
