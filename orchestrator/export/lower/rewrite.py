"""Equivalent modules and operations that lower better, such as LayerNorm as operations that XNNPACK has.

BN is fused before, see `search.networks.fusion`. The argument is unchanged, a changed copy is returned.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.nn import functional

from orchestrator.export.lower.decompositions import DECOMPOSITIONS, aten
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


def capture(module: nn.Module, inputs: Sequence[Tensor]) -> ExportedProgram:
    """Return the exported program of a module, with operators that XNNPACK would refuse as others."""
    captured = torch.export.export(module, tuple(inputs))
    if not any(_improvable(node) for node in captured.graph.nodes):
        return captured
    return decompose(captured, DECOMPOSITIONS)


def decompose(program: ExportedProgram, table: Mapping[Any, Callable[..., Any]]) -> ExportedProgram:
    """Return a program without a table's operators, expansions that broadcasting spares, and computed constants."""
    from executorch.exir.passes.constant_prop_pass import constant_prop_pass

    program = program.run_decompositions(dict(table))
    _broadcast(program.graph)
    for node in program.graph.find_nodes(op="call_function", target=aten.clone.default):
        if node.kwargs.get("memory_format") == torch.contiguous_format:  # an argument that stops constants
            node.target, node.kwargs = aten.contiguous.default, {}
    folded: ExportedProgram = constant_prop_pass(program)
    return folded


def _improvable(node: torch.fx.Node) -> bool:
    """Return whether a captured operator may have a better equivalent; networks of ours have none."""
    match node.target:
        case aten.mean.dim:
            return list(node.args[1:]) != [[2, 3], True]
        case aten.avg_pool2d.default:
            return len(node.args) > 3
        case aten.unsqueeze.default | aten.softmax.int:
            return cast(int, node.args[1]) not in (-1, node.meta["val"].dim() - 1)
        case aten.slice.Tensor:
            return False
        case torch._ops.OpOverload():
            return node.target in DECOMPOSITIONS or node.target.overloadpacket in _CONSTANT
    return False


_CONSTANT = {aten.arange, aten.index, aten.hardsigmoid_}
"""Operators that may depend on no input, or become one of `DECOMPOSITIONS` where nothing is changed in place."""


def _broadcast(graph: torch.fx.Graph) -> None:
    """Omit expanding what only element-wise operations read, which broadcast."""
    for node in graph.find_nodes(op="call_function", target=aten.expand.default):
        if all(user.target in _ELEMENTWISE and _broadcasts(user, node) for user in node.users):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def _broadcasts(user: torch.fx.Node, expanded: torch.fx.Node) -> bool:
    """Return whether an operation has the same shape if it reads what was expanded."""
    read = [x.args[0] if x is expanded else x for x in user.all_input_nodes]
    shape = torch.broadcast_shapes(*(cast(torch.fx.Node, x).meta["val"].shape for x in read))  # type: ignore[no-untyped-call]
    return bool(shape == user.meta["val"].shape)


_ELEMENTWISE = {
    aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor,
}  # fmt: skip
"""Operations of two tensors that XNNPACK broadcasts."""
