"""Parts of the largest network's weights: what a subnet takes of each, and what its optimizer may move."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Slice:
    """Where the parameter `name` of a static module stands in the parameter `source` of the supernet.

    Attributes:
        name: Parameter of the static module.
        source: Parameter of the supernet.
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
        """The slice as a view: writing to it writes to `tensor` (a weight, a gradient, optimizer state).

        Raises:
            ValueError: `tensor` is not contiguous.
        """
        if self.whole:
            return tensor
        if not tensor.is_contiguous():
            raise ValueError(f"{self.source}: slices are cut from contiguous tensors alone")
        return tensor.as_strided(*self.layout)

    def take(self, tensor: Tensor) -> Tensor:
        """The slice in the shape of the static parameter."""
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
    """The same elements, each in one slice only, for slices of several subnets; those of one come back as given.

    What is left of a cut slice has the shape of its box in `view`.
    """
    apart: dict[str, list[Slice]] = {}
    for part in slices:
        kept = apart.setdefault(part.source, [])
        pieces = [part.index]
        for other in kept:
            pieces = [rest for piece in pieces for rest in _without(piece, other.index)]
        if pieces == [part.index]:
            kept.append(part)
        else:
            kept += [replace(part, shape=_sides(piece), index=piece) for piece in pieces]
    return tuple(part for kept in apart.values() for part in kept)


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
