"""Reductions, powers, pools and resizes that XNNPACK refuses, as equal operations that it has.

XNNPACK averages maps over both spatial dimensions, and has neither sums nor other means; but any linear layer
stays inside its delegate, one of one output too. Each function has the arguments of torch's, and returns
NotImplemented where torch's own is as good.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import _disable_current_modes

FEW = 8
"""Most slices whose sum is cheaper than moving their dimension to the end."""


class MapGroupNorm(nn.Module):
    """GroupNorm of one group over maps: means over pixels, then over channels as a 1x1 convolution of one output."""

    average: Tensor

    def __init__(self, norm: nn.GroupNorm):
        """Take the weights of a GroupNorm."""
        super().__init__()
        self.eps = norm.eps
        self.weight = nn.Parameter(norm.weight.detach().reshape(1, -1, 1, 1))
        self.bias = nn.Parameter(norm.bias.detach().reshape(1, -1, 1, 1))
        self.register_buffer("average", torch.full((1, norm.num_channels, 1, 1), 1.0 / norm.num_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W), or (B, C, ...) as torch does, to the same shape."""
        if x.dim() != 4:
            return functional.group_norm(x, 1, self.weight.flatten(), self.bias.flatten(), self.eps)
        centred = x - functional.conv2d(x.mean((2, 3), keepdim=True), self.average)
        variance = functional.conv2d((centred * centred).mean((2, 3), keepdim=True), self.average)
        return centred * (torch.rsqrt(variance + self.eps) * self.weight) + self.bias


def constant(like: Tensor, values: Callable[[], Tensor]) -> Tensor:
    """Return values as a constant of the program that is being captured, in the type of another tensor."""
    with _disable_current_modes():
        return values().to(like.dtype)


def total(x: Tensor, dims: Sequence[int], scale: float) -> Tensor:
    """Return the sum over some dimensions, which become 1, times `scale`."""
    dims = sorted(dim % x.dim() for dim in dims)
    count = math.prod(x.shape[dim] for dim in dims)
    if x.dim() == 4 and dims == [2, 3]:
        mean = x.mean((2, 3), keepdim=True)
        return mean if scale * count == 1 else mean * (scale * count)
    if x.dim() == 4 and dims == [1]:
        weights = constant(x, lambda: torch.full((1, count, 1, 1), scale))
        return functional.conv2d(x, weights)
    if len(dims) == 1 and dims[0] < x.dim() - 1 and count <= FEW:
        before = (slice(None),) * dims[0]
        parts = [x[(*before, slice(start, start + 1))] for start in range(count)] if count > 1 else [x]
        added: Tensor = functools.reduce(operator.add, parts)
        return added if scale == 1 else added * scale
    kept = [dim for dim in range(x.dim()) if dim not in dims]
    if [*kept, *dims] != list(range(x.dim())):
        x_last = x.permute(*kept, *dims)
    else:
        x_last = x
    flat = x_last.reshape(*(x.shape[dim] for dim in kept), count)
    summed = functional.linear(flat, constant(x, lambda: torch.full((1, count), scale)))
    return summed.reshape([1 if dim in dims else size for dim, size in enumerate(x.shape)])


def _dropped(x: Tensor, dims: Sequence[int], *, keepdim: bool) -> Tensor:
    dropped = {dim % x.dim() for dim in dims}
    return x if keepdim else x.reshape([size for dim, size in enumerate(x.shape) if dim not in dropped])


def _dims(x: Tensor, dim: Any) -> list[int] | None:
    """Return which dimensions are reduced; None where all are, or torch's own reduction stays."""
    dims = [dim] if isinstance(dim, int) else dim
    usable = isinstance(dims, tuple | list) and dims and x.is_floating_point() and x.dim() > 1
    return list(dims) if usable else None


def mean(x: Tensor, dim: Any = None, keepdim: bool = False, **other: Any) -> Any:
    """Compute the mean over some dimensions."""
    dims = _dims(x, dim)
    native = x.dim() == 4 and keepdim and dims is not None and list(dims) == [2, 3]
    if dims is None or native or any(value is not None for value in other.values()):
        return NotImplemented
    count = math.prod(x.shape[own] for own in dims)
    return _dropped(total(x, dims, 1 / count), dims, keepdim=keepdim)


def add_up(x: Tensor, dim: Any = None, keepdim: bool = False, **other: Any) -> Any:
    """Compute the sum over some dimensions."""
    dims = _dims(x, dim)
    if dims is None or any(value is not None for value in other.values()):
        return NotImplemented
    return _dropped(total(x, dims, 1.0), dims, keepdim=keepdim)


def norm(x: Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False, **other: Any) -> Any:
    """Compute the Euclidean norm over some dimensions; squares are XNNPACK's own, which int8 keeps in fp32."""
    dims = _dims(x, dim)
    if dims is None or p not in (2, "fro") or any(value is not None for value in other.values()):
        return NotImplemented
    return _dropped(total(x.pow(2), dims, 1.0), dims, keepdim=keepdim).sqrt()


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Any = None) -> Any:
    """Compute x / max(norm, eps) without expanding the norm."""
    length = norm(input, p, dim, keepdim=True) if out is None else NotImplemented
    return length if length is NotImplemented else input / length.clamp_min(eps)


def softmax(x: Tensor, dim: Any = None, *rest: Any, **other: Any) -> Any:
    """Compute a softmax over another dimension than the last as one over the last, between two transposes."""
    if dim is None or dim % x.dim() == x.dim() - 1 or rest or other.get("dtype") is not None:
        return NotImplemented
    return functional.softmax(x.transpose(dim, -1), -1).transpose(dim, -1)


def power(x: Tensor, exponent: Any) -> Any:
    """Compute squares, square roots and reciprocal square roots by the operators that XNNPACK has."""
    if not isinstance(exponent, float) or not x.is_floating_point():
        return NotImplemented
    own: dict[float, Callable[[Tensor], Tensor]] = {
        2.0: lambda x: x.pow(2),
        0.5: torch.sqrt,
        -0.5: torch.rsqrt,
    }
    return own[exponent](x) if exponent in own else NotImplemented


def avg_pool(x: Tensor, kernel_size: Any, stride: Any = None, *args: Any, **other: Any) -> Any:
    """Compute an average pool that counts zeros, or rounds its size up, as padding, a pool and a factor.

    The factor is that of each window's divisor; it is constant and omitted where it is 1.
    """
    if x.dim() != 4:
        return NotImplemented
    with _disable_current_modes():
        ones = torch.ones(1, 1, *x.shape[2:])
        want = functional.avg_pool2d(ones, kernel_size, stride, *args, **other)
    padding = other.get("padding", args[0] if args else 0)
    kernel, pads = _pair(kernel_size), _pair(padding)
    strides = _pair(stride) if stride else kernel
    ends = [
        max(0, (new - 1) * step + taps - size - pad)
        for new, step, taps, size, pad in zip(want.shape[2:], strides, kernel, ones.shape[2:], pads, strict=True)
    ]
    around = (pads[1], ends[1], pads[0], ends[0])

    def pool(y: Tensor) -> Tensor:
        return functional.avg_pool2d(functional.pad(y, around) if any(around) else y, kernel, strides)

    with _disable_current_modes():
        factor = want / pool(ones)
        is_one = bool((factor == 1).all())
    return pool(x) if is_one else pool(x) * constant(x, lambda: factor)


def _pair(value: Any) -> tuple[int, int]:
    pair = (value,) if isinstance(value, int) else tuple(value)
    return (pair[0], pair[-1])


def roll(x: Tensor, shifts: Any, dims: Any = None) -> Any:
    """Compute a cyclic shift as two slices in the other order."""
    if dims is None:
        return NotImplemented
    for shift, dim in zip(*((v,) if isinstance(v, int) else v for v in (shifts, dims)), strict=True):
        size = x.shape[dim]
        if shift % size:
            x = torch.cat((x.narrow(dim, -shift % size, shift % size), x.narrow(dim, 0, -shift % size)), dim)
    return x


def interpolate(input: Tensor, size: Any = None, *args: Any, **other: Any) -> Any:
    """Compute a bicubic resize to a size as two products with constant matrices, rows and columns apart."""
    if size is None or args or other.get("mode") != "bicubic" or input.dim() != 4:
        return NotImplemented
    height, width = _pair(size)
    x = functional.linear(input, _resize_matrix(input, input.shape[3], width, other))
    return functional.linear(
        x.transpose(2, 3), _resize_matrix(input, input.shape[2], height, other)
    ).transpose(2, 3)


def _resize_matrix(like: Tensor, old: int, new: int, options: dict[str, Any]) -> Tensor:
    """Return the matrix (new, old) of a resize along one dimension: what it does to each unit vector."""

    def values() -> Tensor:
        unit = torch.eye(old).reshape(1, old, 1, old)
        return functional.interpolate(unit, (1, new), **options).reshape(old, new).T.contiguous()

    return constant(like, values)
