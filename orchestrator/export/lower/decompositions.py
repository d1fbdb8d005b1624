"""Operators that XNNPACK refuses as equal ones that it has: `DECOMPOSITIONS` by operator of torch.

XNNPACK averages maps over both spatial dimensions, and has neither sums nor other means; but any linear layer
stays inside its delegate, one of one output too. Each function has the arguments of the operator, and returns
NotImplemented where that is as good.
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

aten = torch.ops.aten

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


def _reduced(x: Tensor, dim: Sequence[int] | None, keepdim: bool, dtype: Any, scale: float | None) -> Any:
    if not dim or x.dim() < 2 or not x.is_floating_point() or dtype is not None:
        return NotImplemented
    dims = sorted(own % x.dim() for own in dim)
    y = _total(x, dims, scale)
    return y if keepdim else y.reshape([size for own, size in enumerate(x.shape) if own not in dims])


def _mean(x: Tensor, dim: Any, keepdim: bool = False, *, dtype: Any = None) -> Any:
    if x.dim() == 4 and list(dim or ()) == [2, 3] and keepdim:
        return NotImplemented
    return _reduced(x, dim, keepdim, dtype, None)


def _sum(x: Tensor, dim: Any, keepdim: bool = False, *, dtype: Any = None) -> Any:
    return _reduced(x, dim, keepdim, dtype, 1.0)


def _norm(x: Tensor, p: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """Compute the Euclidean norm over some dimensions; squares are XNNPACK's own, which int8 keeps in fp32."""
    y = _reduced(x.pow(2), dim, keepdim, dtype, 1.0) if p == 2 else NotImplemented
    return y if y is NotImplemented else y.sqrt()


def _amax(x: Tensor, dim: Sequence[int] = (), keepdim: bool = False) -> Any:
    """Compute the maximum along a dimension of few slices, not the last, two by two; others keep their dimension.

    ExecuTorch 1.5 refuses programs whose delegates have a maximum without it.
    """
    own = dim[0] % x.dim() if len(dim) == 1 else x.dim() - 1
    if own < x.dim() - 1 and 1 < x.shape[own] <= FEW:
        largest = functools.reduce(torch.maximum, (x.narrow(own, start, 1) for start in range(x.shape[own])))
    elif keepdim or len(dim) != 1:
        return NotImplemented
    else:
        largest = x.amax(own, True)
    return largest if keepdim else largest.reshape(*x.shape[:own], *x.shape[own + 1 :])


def _softmax(x: Tensor, dim: int, dtype: Any = None) -> Any:
    """Compute a softmax over another dimension than the last as one over the last, between two transposes."""
    if dim % x.dim() == x.dim() - 1 or dtype is not None:
        return NotImplemented
    return functional.softmax(x.transpose(dim, -1), -1).transpose(dim, -1)


def _power(x: Tensor, exponent: Any) -> Any:
    """Compute squares, square roots and reciprocal square roots by the operators that XNNPACK has."""
    if not isinstance(exponent, float) or not x.is_floating_point():
        return NotImplemented
    own = {2.0: lambda: x.pow(2), 0.5: x.sqrt, -0.5: x.rsqrt}.get(exponent)
    return own() if own else NotImplemented


def _avg_pool(
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


def _roll(x: Tensor, shifts: Sequence[int], dims: Sequence[int] = ()) -> Any:
    """Compute a cyclic shift as two slices in the other order."""
    if not dims:
        return NotImplemented
    for shift, dim in zip(shifts, dims, strict=True):
        size = x.shape[dim]
        if shift % size:
            x = torch.cat((x.narrow(dim, -shift % size, shift % size), x.narrow(dim, 0, -shift % size)), dim)
    return x


def _unfold(x: Tensor, kernel: Any, dilation: Any, padding: Any, stride: Any) -> Any:
    """Compute windows of a map as a convolution whose kernels are each 1 at one tap."""
    if x.dim() != 4:
        return NotImplemented
    channels = x.shape[1]
    taps = _taps(x, channels, *kernel)
    return functional.conv2d(x, taps, None, stride, padding, dilation, channels).flatten(2)


def _fold(x: Tensor, size: Any, kernel: Any, spread: Any, pads: Any, steps: Any) -> Any:
    """Compute sums of overlapping windows as a transposed convolution whose kernels are each 1 at one tap."""
    if x.dim() != 3:
        return NotImplemented
    reach = [s + 2 * p - d * (k - 1) - 1 for s, p, d, k in zip(size, pads, spread, kernel, strict=True)]
    windows = [way // step + 1 for way, step in zip(reach, steps, strict=True)]
    channels = x.shape[1] // (kernel[0] * kernel[1])
    left = [way % step for way, step in zip(reach, steps, strict=True)]  # rows that no window reaches
    x = x.reshape(len(x), -1, *windows)
    taps = _taps(x, channels, *kernel)
    return functional.conv_transpose2d(x, taps, None, steps, pads, left, channels, spread)


def _taps(like: Tensor, channels: int, rows: int, columns: int) -> Tensor:
    """Return kernels (channels * rows * columns, 1, rows, columns), each 1 at one tap, by channel."""
    taps = rows * columns
    return constant(like, lambda: torch.eye(taps).reshape(taps, 1, rows, columns).repeat(channels, 1, 1, 1))


def _bicubic(
    x: Tensor, size: Sequence[int] | None, align_corners: bool, scales: Any = None, *, antialias: bool = False
) -> Any:
    """Compute a bicubic resize to a size as two products with constant matrices, rows and columns apart."""
    if size is None or scales is not None or x.dim() != 4:
        return NotImplemented

    def matrix(old: int, new: int) -> Tensor:
        """Return what the resize does to each unit vector along one dimension: (new, old)."""
        unit = torch.eye(old).reshape(1, old, 1, old)
        resized = functional.interpolate(
            unit, (1, new), mode="bicubic", align_corners=align_corners, antialias=antialias
        )
        return resized.reshape(old, new).T.contiguous()

    rows, columns = (
        constant(x, functools.partial(matrix, *sides)) for sides in zip(x.shape[2:], size, strict=True)
    )
    return functional.linear(functional.linear(x, columns).transpose(2, 3), rows).transpose(2, 3)


def _matmul(a: Tensor, b: Tensor) -> Any:
    """Compute batched products of rank 4 and more as one of rank 3; other ranks are unchanged."""
    if a.dim() < 3 or a.dim() != b.dim() or a.shape[:-2] != b.shape[:-2]:
        return NotImplemented
    return _rank3(torch.bmm, a, b)


def _rank3(product: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    batch = math.prod(a.shape[:-2])
    y = product(a.reshape(batch, *a.shape[-2:]), b.reshape(batch, *b.shape[-2:]))
    return y if a.dim() == 3 else y.reshape(*a.shape[:-2], *y.shape[-2:])


def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Compute softmax(q k^T scale + mask) v (Vaswani et al. 2017, equation 1) by products of rank 3."""
    shapes_differ = q.dim() < 3 or not q.shape[:-2] == k.shape[:-2] == v.shape[:-2]
    if shapes_differ or is_causal or enable_gqa or dropout_p:
        return NotImplemented
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        return NotImplemented
    factor = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    scores = _rank3(torch.bmm, q * factor, k.transpose(-2, -1))
    if attn_mask is not None:
        scores = scores + attn_mask
    return _rank3(torch.bmm, functional.softmax(scores, -1), v)


def _part(x: Tensor, dim: int, start: int, length: int) -> Tensor:
    """Slice along one dimension; a slice of everything is omitted, since it would be a copy."""
    if length == x.shape[dim]:
        return x
    part: Tensor = aten.slice.Tensor(x, dim % x.dim(), start, start + length)
    return part


def _select(x: Tensor, dim: int, index: int) -> Tensor:
    dim %= x.dim()
    part = _part(x, dim, index % x.shape[dim], 1)
    return part.reshape((*x.shape[:dim], *x.shape[dim + 1 :]))


def _slice(x: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Any:
    size = x.shape[dim]
    return x if slice(start, end, step).indices(size) == (0, size, 1) else NotImplemented


def _split(x: Tensor, size: int | Sequence[int], dim: int = 0) -> list[Tensor]:
    if isinstance(size, int):
        size = [min(size, x.shape[dim] - start) for start in range(0, x.shape[dim], size)]
    return [_part(x, dim, sum(size[:number]), length) for number, length in enumerate(size)]


def _unsqueeze(x: Tensor, dim: int) -> Tensor:
    dim %= x.dim() + 1
    return x.reshape((*x.shape[:dim], 1, *x.shape[dim:]))


def _squeeze(x: Tensor, dim: Any = None) -> Any:
    dims = range(x.dim()) if dim is None else (dim,) if isinstance(dim, int) else dim
    dropped = {own % x.dim() for own in dims if x.shape[own] == 1}
    return x.reshape([size for own, size in enumerate(x.shape) if own not in dropped])


def _expand(x: Tensor, shape: Sequence[int], *, implicit: bool = False) -> Any:
    """Omit expanding a class token at batch 1, which would be a copy outside the delegates."""
    del implicit
    same = len(shape) == x.dim() and all(new in (-1, old) for new, old in zip(shape, x.shape, strict=True))
    return x if same else NotImplemented


DECOMPOSITIONS: Mapping[Any, Callable[..., Any]] = {
    aten.matmul.default: _matmul,
    aten.scaled_dot_product_attention.default: _attention,
    aten.alias.default: lambda x: x,
    aten.slice.Tensor: _slice,
    aten.select.int: _select,
    aten.unbind.int: lambda x, dim=0: [_select(x, dim, index) for index in range(x.shape[dim])],
    **dict.fromkeys((aten.split.Tensor, aten.split.sizes, aten.split_with_sizes.default), _split),
    aten.chunk.default: lambda x, chunks, dim=0: _split(x, -(-x.shape[dim] // chunks), dim),
    **dict.fromkeys((aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims), _squeeze),
    aten.unsqueeze.default: _unsqueeze,
    aten.expand.default: _expand,
    aten.expand_as.default: lambda x, other: x.expand(other.shape),
    aten.roll.default: _roll,
    aten.mean.dim: _mean,
    aten.sum.dim_IntList: _sum,
    aten.linalg_vector_norm.default: _norm,
    aten.amax.default: _amax,
    aten.max.dim: lambda x, dim, keepdim=False: (x.amax(dim, keepdim), x.argmax(dim, keepdim)),
    aten.softmax.int: _softmax,
    aten.pow.Tensor_Scalar: _power,
    aten.addcmul.default: lambda x, a, b, *, value=1: x + a * b if value == 1 else NotImplemented,
    aten.hardsigmoid.default: lambda x: functional.relu6(x + 3.0) * (1.0 / 6.0),
    aten.avg_pool2d.default: _avg_pool,
    aten.upsample_bicubic2d.vec: _bicubic,
    aten._upsample_bicubic2d_aa.vec: functools.partial(_bicubic, antialias=True),
    aten.im2col.default: _unfold,
    aten.col2im.default: _fold,
}
"""Replacements by operator, as `ExportedProgram.run_decompositions` takes them, which applies them to their own
operators too. hardsigmoid is relu6(x + 3) / 6 (Howard et al. 2019, section 5.2); torch's own decomposition converts
its bounds."""
