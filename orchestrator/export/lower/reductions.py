"""Reductions, powers, pools and resizes that XNNPACK refuses, as equal operations that it has.

XNNPACK averages maps over both spatial dimensions, and has neither sums nor other means; but any linear layer
stays inside its delegate, one of one output too. Each function has the arguments of torch's, and returns
NotImplemented where torch's own is as good.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import _disable_current_modes

FEW = 8
"""Most slices whose sum is cheaper than moving their dimension to the end."""


def constant(like: Tensor, values: Callable[[], Tensor]) -> Tensor:
    """Return values as a constant of the program that is being captured, in the type of another tensor."""
    with _disable_current_modes():
        return values().to(like.dtype)


def _total(x: Tensor, dims: Sequence[int], scale: float | None) -> Tensor:
    """Return the sum over sorted dimensions, which become 1, times `scale`; their mean without a scale."""
    count = math.prod(x.shape[dim] for dim in dims)
    if x.dim() == 4 and dims == [2, 3]:
        mean = x.mean((2, 3), keepdim=True)
        return mean if scale is None else mean * (scale * count)
    scale = 1 / count if scale is None else scale
    if x.dim() == 4 and dims == [1]:
        return functional.conv2d(x, constant(x, lambda: torch.full((1, count, 1, 1), scale)))
    if len(dims) == 1 and dims[0] < x.dim() - 1 and count <= FEW:
        parts = [x.narrow(dims[0], start, 1) for start in range(count)] if count > 1 else [x]
        added = functools.reduce(torch.add, parts)
        return added if scale == 1 else added * scale
    order = [dim for dim in range(x.dim()) if dim not in dims] + list(dims)
    moved = x if order == sorted(order) else x.permute(order)
    flat = moved.reshape(*moved.shape[: -len(dims)], count)
    summed = functional.linear(flat, constant(x, lambda: torch.full((1, count), scale)))
    return summed.reshape([1 if dim in dims else size for dim, size in enumerate(x.shape)])


def _reduced(x: Tensor, dim: Any, keepdim: bool, other: Mapping[str, Any], scale: float | None) -> Any:
    given = [dim] if isinstance(dim, int) else dim
    if not given or x.dim() < 2 or not x.is_floating_point() or any(v is not None for v in other.values()):
        return NotImplemented
    dims = sorted(own % x.dim() for own in given)
    y = _total(x, dims, scale)
    return y if keepdim else y.reshape([size for own, size in enumerate(x.shape) if own not in dims])


def mean(x: Tensor, dim: Any = None, keepdim: bool = False, **other: Any) -> Any:
    """Compute the mean over some dimensions."""
    return _reduced(x, dim, keepdim, other, None)


def add_up(x: Tensor, dim: Any = None, keepdim: bool = False, **other: Any) -> Any:
    """Compute the sum over some dimensions."""
    return _reduced(x, dim, keepdim, other, 1.0)


def norm(x: Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False, **other: Any) -> Any:
    """Compute the Euclidean norm over some dimensions; squares are XNNPACK's own, which int8 keeps in fp32."""
    y = _reduced(x.pow(2), dim, keepdim, other, 1.0) if p in (2, "fro") else NotImplemented
    return y if y is NotImplemented else y.sqrt()


def amax(x: Tensor, dim: Any = (), keepdim: bool = False) -> Any:
    """Compute the maximum along a dimension of few slices, not the last, two by two."""
    if not isinstance(dim, int) or dim % x.dim() == x.dim() - 1 or not 1 < x.shape[dim] <= FEW:
        return NotImplemented
    largest = functools.reduce(torch.maximum, (x.narrow(dim, start, 1) for start in range(x.shape[dim])))
    dim %= x.dim()
    return largest if keepdim else largest.reshape(*x.shape[:dim], *x.shape[dim + 1 :])


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Any = None) -> Any:  # noqa: A002
    """Compute x / max(norm, eps) without expanding the norm."""
    length = norm(input, p, dim, keepdim=True, out=out)
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
    own = {2.0: lambda: x.pow(2), 0.5: x.sqrt, -0.5: x.rsqrt}.get(exponent)
    return own() if own else NotImplemented


def avg_pool(
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """Compute an average pool that counts zeros, or rounds its size up, as padding, a pool and a factor.

    The factor is that of each window's divisor; it is constant and omitted where it is 1.
    """
    kernel, pads = _pair(kernel_size), _pair(padding)
    strides = _pair(stride) if stride else kernel
    counts_zeros = any(pads) and count_include_pad
    if x.dim() != 4 or not (counts_zeros or ceil_mode or divisor_override):
        return NotImplemented
    around = [pads[1], pads[1], pads[0], pads[0]]

    def pool(y: Tensor) -> Tensor:
        return functional.avg_pool2d(functional.pad(y, around) if any(around) else y, kernel, strides)

    with _disable_current_modes():
        ones = torch.ones(1, 1, *x.shape[2:])
        want = functional.avg_pool2d(
            ones, kernel, strides, pads, ceil_mode, count_include_pad, divisor_override
        )
        for side, (new, step, taps) in enumerate(zip(want.shape[2:], strides, kernel, strict=True)):
            end = (new - 1) * step + taps - x.shape[2 + side] - pads[side]
            around[3 - 2 * side] = max(0, end)
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


def unfold(
    input: Tensor,  # noqa: A002
    kernel_size: Any,
    dilation: Any = 1,
    padding: Any = 0,
    stride: Any = 1,
) -> Any:
    """Compute windows of a map as a convolution whose kernels are each 1 at one tap."""
    if input.dim() != 4:
        return NotImplemented
    channels = input.shape[1]
    taps = _taps(input, channels, *_pair(kernel_size))
    return functional.conv2d(input, taps, None, stride, padding, dilation, channels).flatten(2)


def fold(
    input: Tensor,  # noqa: A002
    output_size: Any,
    kernel_size: Any,
    dilation: Any = 1,
    padding: Any = 0,
    stride: Any = 1,
) -> Any:
    """Compute sums of overlapping windows as a transposed convolution whose kernels are each 1 at one tap."""
    kernel, steps, pads, spread, size = map(_pair, (kernel_size, stride, padding, dilation, output_size))
    if input.dim() != 3:
        return NotImplemented
    reach = [s + 2 * p - d * (k - 1) - 1 for s, p, d, k in zip(size, pads, spread, kernel, strict=True)]
    windows = [way // step + 1 for way, step in zip(reach, steps, strict=True)]
    channels = input.shape[1] // (kernel[0] * kernel[1])
    left = [way % step for way, step in zip(reach, steps, strict=True)]  # rows that no window reaches
    x = input.reshape(len(input), -1, *windows)
    taps = _taps(input, channels, *kernel)
    return functional.conv_transpose2d(x, taps, None, steps, pads, left, channels, spread)


def _taps(like: Tensor, channels: int, rows: int, columns: int) -> Tensor:
    """Return kernels (channels * rows * columns, 1, rows, columns), each 1 at one tap, by channel."""
    taps = rows * columns
    return constant(like, lambda: torch.eye(taps).reshape(taps, 1, rows, columns).repeat(channels, 1, 1, 1))


def interpolate(input: Tensor, size: Any = None, *args: Any, **other: Any) -> Any:  # noqa: A002
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
