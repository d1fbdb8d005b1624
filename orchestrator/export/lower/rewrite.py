"""Equivalent modules and operations that lower better, such as LayerNorm as operations that XNNPACK has.

BN is fused before, see `search.networks.fusion`. The argument is unchanged, a changed copy is returned.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from orchestrator.export.lower import reductions
from search.networks.layers import ChannelNorm, fuse_for_inference


class LinearLayerNorm(nn.Module):
    """LayerNorm over the last dimension, whose two means are linear layers of one output.

    XNNPACK has no LayerNorm and means only over the spatial dimensions of a map, but any linear layer stays
    inside its delegate.
    """

    average: Tensor

    def __init__(self, norm: nn.LayerNorm):
        """Take the weights of a LayerNorm."""
        super().__init__()
        (dim,) = norm.normalized_shape
        self.eps = norm.eps
        self.weight, self.bias = norm.weight, norm.bias
        self.register_buffer("average", torch.full((1, dim), 1.0 / dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (..., dim) to the same shape."""
        centred = x - functional.linear(x, self.average)
        variance = functional.linear(centred * centred, self.average)
        normed = centred * torch.rsqrt(variance + self.eps)
        if self.weight is not None:
            normed = normed * self.weight
        return normed if self.bias is None else normed + self.bias


class PointwiseChannelNorm(nn.Module):
    """LayerNorm over the channels of each pixel, whose two means are 1x1 convolutions of one output.

    A map then stays in the delegate's own order of dimensions.
    """

    average: Tensor

    def __init__(self, norm: nn.LayerNorm | nn.GroupNorm):
        """Take the weights of a norm."""
        super().__init__()
        channels, self.eps = len(norm.weight), norm.eps
        self.weight = nn.Parameter(norm.weight.detach().reshape(1, -1, 1, 1))
        self.bias = nn.Parameter(norm.bias.detach().reshape(1, -1, 1, 1))
        self.register_buffer("average", torch.full((1, channels, 1, 1), 1.0 / channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W) to the same shape."""
        centred = x - functional.conv2d(x, self.average)
        variance = functional.conv2d(centred * centred, self.average)
        return centred * torch.rsqrt(variance + self.eps) * self.weight + self.bias


class MapGroupNorm(PointwiseChannelNorm):
    """GroupNorm of one group over maps: means over pixels, then over channels as a 1x1 convolution."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W), or (B, C, ...) as torch does, to the same shape."""
        if x.dim() != 4:
            return functional.group_norm(x, 1, self.weight.flatten(), self.bias.flatten(), self.eps)
        centred = x - functional.conv2d(x.mean((2, 3), keepdim=True), self.average)
        variance = functional.conv2d((centred * centred).mean((2, 3), keepdim=True), self.average)
        return centred * (torch.rsqrt(variance + self.eps) * self.weight) + self.bias


def linear_layernorm(module: nn.Module) -> nn.Module:
    """Replace LayerNorm over the last dimension alone or channels of a map, and GroupNorm of one group."""
    return replace(module, _linear)


def _linear(part: nn.Module) -> nn.Module:
    kind = type(part)
    name = kind.__name__ if kind.__module__ == "timm.layers.norm" else kind
    if isinstance(part, nn.LayerNorm) and len(part.normalized_shape) == 1:
        if name in (ChannelNorm, "LayerNorm2d") and part.weight is not None and part.bias is not None:
            return PointwiseChannelNorm(part)
        return LinearLayerNorm(part) if name in (nn.LayerNorm, "LayerNorm") else part
    if name in (nn.GroupNorm, "GroupNorm", "GroupNorm1") and part.num_groups == 1 and part.affine:
        return MapGroupNorm(cast(nn.GroupNorm, part))
    return part


def rewritten(module: nn.Module, backend: str) -> nn.Module:
    """Return the module as it is captured for a backend of ExecuTorch."""
    module = fuse_for_inference(module)
    return linear_layernorm(module) if backend == "xnnpack" else module


def replace(module: nn.Module, swap: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """Return a copy in which every submodule `m` is `swap(m)`, including the module itself."""
    module = swap(copy.deepcopy(module))
    for part in list(module.modules()):
        for name, child in part.named_children():
            setattr(part, name, swap(child))
    return module


_REWRITTEN = {
    "matmul", "scaled_dot_product_attention", "unbind", "split", "split_with_sizes", "chunk", "select", "mean",
    "expand", "hardsigmoid", "hardsigmoid_", "sum", "linalg_vector_norm", "pow", "softmax", "avg_pool2d",
    "upsample_bicubic2d", "alias", "expand_as", "addcmul", "roll", "squeeze", "unsqueeze",
    "arange", "index", "im2col", "col2im", "amax",
}  # fmt: skip
"""Operators of a captured graph that may have a better equivalent."""


def capture(module: nn.Module, inputs: Sequence[Tensor]) -> ExportedProgram:
    """Return the exported program of a module, with operations that XNNPACK would refuse spelled out."""
    captured = torch.export.export(module, tuple(inputs))
    if not any(_improvable(node) for node in captured.graph.nodes):
        return captured
    from executorch.exir.passes.constant_prop_pass import constant_prop_pass

    captured = torch.export.export(spelled_out(module), tuple(inputs))
    given = captured.graph_signature.user_inputs
    if any(_changes_constant(node, given) for node in captured.graph.nodes):
        captured = captured.run_decompositions({})  # in-place operations become others
    _broadcast(captured.graph)
    program: ExportedProgram = constant_prop_pass(captured)
    return program


def _changes_constant(node: torch.fx.Node, inputs: Collection[Any]) -> bool:
    """Return whether an operation changes in place what depends on no input, so that it can't be a constant."""
    if not getattr(getattr(node.target, "_schema", None), "is_mutable", False):
        return False
    before, seen = [node], set[torch.fx.Node]()
    while before:
        seen.add(each := before.pop())
        before += set(each.all_input_nodes) - seen
    return not any(each.name in inputs for each in seen)


def _broadcast(graph: torch.fx.Graph) -> None:
    """Omit expanding what only element-wise operations read, which broadcast."""
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.expand.default):
        if all(user.target in _ELEMENTWISE and _broadcasts(user, node) for user in node.users):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def _broadcasts(user: torch.fx.Node, expanded: torch.fx.Node) -> bool:
    """Return whether an operation has the same shape if it reads what was expanded."""
    read = [x.args[0] if x is expanded else x for x in user.all_input_nodes]
    shape = torch.broadcast_shapes(*(cast(torch.fx.Node, x).meta["val"].shape for x in read))  # type: ignore[no-untyped-call]
    return bool(shape == user.meta["val"].shape)


_ELEMENTWISE = {
    torch.ops.aten.add.Tensor, torch.ops.aten.sub.Tensor, torch.ops.aten.mul.Tensor, torch.ops.aten.div.Tensor,
}  # fmt: skip
"""Operations of two tensors that XNNPACK broadcasts."""


def _improvable(node: torch.fx.Node) -> bool:
    """Return whether a captured operation may have a better equivalent; networks of ours have none."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    name = node.target._schema.name.removeprefix("aten::")
    match name:
        case "mean":
            return list(node.args[1:]) != [[2, 3], True]
        case "avg_pool2d":
            return len(node.args) > 3
        case "unsqueeze" | "softmax":
            return cast(int, node.args[1]) not in (-1, node.meta["val"].dim() - 1)
    return name in _REWRITTEN


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
    return x[(slice(None),) * (dim % x.dim()) + (slice(start, start + length),)]


def _select(x: Tensor, dim: int, index: int) -> Tensor:
    dim %= x.dim()
    part = _part(x, dim, index % x.shape[dim], 1)
    return part.reshape((*x.shape[:dim], *x.shape[dim + 1 :]))


def _unbind(x: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    return tuple(_select(x, dim, index) for index in range(x.shape[dim]))


def _split(
    x: Tensor, split_size: int | Sequence[int] | None = None, dim: int = 0, **named: Any
) -> tuple[Tensor, ...]:
    sizes = named.get("split_size_or_sections", named.get("split_sizes", split_size))
    if isinstance(sizes, int):
        sizes = [min(sizes, x.shape[dim] - start) for start in range(0, x.shape[dim], sizes)]
    assert sizes is not None
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    return tuple(_part(x, dim, start, size) for start, size in zip(starts, sizes, strict=True))


def _chunk(x: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    return _split(x, -(-x.shape[dim] // chunks), dim)


def _getitem(x: Tensor, index: Any) -> Any:
    """Compute `x[:, 0]` and the like, and omit slices of everything, which would be copies outside the delegates.

    Indices other than whole numbers, plain slices and `...` are unchanged.
    """
    index = index if isinstance(index, tuple) else (index,)
    for place, one in enumerate(index):
        if one is ...:
            left_out = x.dim() - sum(other is not None for other in index) + 1
            index = (*index[:place], *[slice(None)] * left_out, *index[place + 1 :])
            break
    if not all(one is None or type(one) in (int, slice) for one in index):
        return NotImplemented
    dim = 0
    for one in index:
        if one is None:
            x = _unsqueeze(x, dim)
            dim += 1
            continue
        if type(one) is int:
            x = _select(x, dim, one)
            continue
        if one.indices(x.shape[dim]) != (0, x.shape[dim], 1):
            x = x[(slice(None),) * dim + (one,)]
        dim += 1
    return x


def _unsqueeze(x: Tensor, dim: int) -> Tensor:
    dim %= x.dim() + 1
    return x.reshape((*x.shape[:dim], 1, *x.shape[dim:]))


def _squeeze(x: Tensor, dim: Any = None) -> Any:
    dims = range(x.dim()) if dim is None else (dim,) if isinstance(dim, int) else dim
    dropped = {own % x.dim() for own in dims if x.shape[own] == 1}
    return x.reshape([size for own, size in enumerate(x.shape) if own not in dropped])


def _expand(x: Tensor, *sizes: Any) -> Any:
    """Omit expanding a class token at batch 1, which would be a copy outside the delegates."""
    shape = sizes[0] if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes
    same = len(shape) == x.dim() and all(new in (-1, old) for new, old in zip(shape, x.shape, strict=True))
    return x if same else NotImplemented


def _hardsigmoid(x: Tensor, inplace: bool = False) -> Tensor:
    """Compute relu6(x + 3) / 6 (Howard et al. 2019, section 5.2); torch's own decomposition converts its bounds."""
    del inplace
    return functional.relu6(x + 3.0) * (1.0 / 6.0)


_METHODS: Mapping[str, Callable[..., Any]] = {
    "matmul": _matmul,
    "unbind": _unbind,
    "split": _split,
    "chunk": _chunk,
    "select": _select,
    "squeeze": _squeeze,
    "unsqueeze": _unsqueeze,
    "roll": reductions.roll,
    "mean": reductions.mean,
    "sum": reductions.add_up,
    "norm": reductions.norm,
    "softmax": reductions.softmax,
    "pow": reductions.power,
    "amax": reductions.amax,
}
"""Replacements of functions of `torch` that are methods of tensors too."""

SPELLINGS: dict[Any, Callable[..., Any]] = {
    **{getattr(owner, name): function for name, function in _METHODS.items() for owner in (torch, Tensor)},
    Tensor.__matmul__: _matmul,
    Tensor.__getitem__: _getitem,
    Tensor.__pow__: reductions.power,
    Tensor.expand: _expand,
    Tensor.expand_as: lambda x, other: x if x.shape == other.shape else x.expand(other.shape),
    torch.addcmul: lambda x, a, b, *, value=1: x + a * b if value == 1 else NotImplemented,
    functional.scaled_dot_product_attention: _attention,
    functional.hardsigmoid: _hardsigmoid,
    functional.normalize: reductions.normalize,
    functional.softmax: reductions.softmax,
    functional.avg_pool2d: reductions.avg_pool,
    functional.interpolate: reductions.interpolate,
    functional.unfold: reductions.unfold,
    functional.fold: reductions.fold,
}
"""Replacements by function of torch."""


class SpelledOut(TorchFunctionMode):
    """Computes torch's functions that have an entry in `spellings` by it, while active."""

    spellings = SPELLINGS

    def __torch_function__(
        self,
        func: Any,
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the replacement of a call, or the call itself if that does not apply."""
        del types
        named = dict(kwargs or {})
        spelling = self.spellings.get(func)
        result = spelling(*args, **named) if spelling else NotImplemented
        return func(*args, **named) if result is NotImplemented else result


def spelled_out(module: nn.Module, spelled: type[SpelledOut] = SpelledOut) -> nn.Module:
    """Return a copy that computes the same with the operations of `SpelledOut`, or of another mode."""
    module = copy.deepcopy(module)
    original = module.forward

    @functools.wraps(original)
    def forward(*inputs: Any, **named: Any) -> Any:
        with spelled():
            return original(*inputs, **named)

    module.forward = forward
    return module
