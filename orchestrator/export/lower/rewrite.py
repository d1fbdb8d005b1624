"""Equal modules that lower better: LayerNorm as operations that XNNPACK has.

BN is fused before, see `search.networks.fusion`. The argument is left alone, what comes back is a changed copy.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search.networks.fusion import fuse_for_inference
from search.networks.layers import ChannelNorm


class LinearLayerNorm(nn.Module):
    """LayerNorm over the last dimension, whose two means are linear layers of one output.

    XNNPACK has no LayerNorm and means only over the spatial dimensions of a map, but any linear layer stays
    inside its delegate.
    """

    average: Tensor

    def __init__(self, norm: nn.LayerNorm):
        super().__init__()
        (dim,) = norm.normalized_shape
        self.eps = norm.eps
        self.weight, self.bias = norm.weight, norm.bias
        self.register_buffer("average", torch.full((1, dim), 1.0 / dim))

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) to the same shape."""
        centred = x - F.linear(x, self.average)
        variance = F.linear(centred * centred, self.average)
        normed = centred * torch.rsqrt(variance + self.eps)
        if self.weight is not None:
            normed = normed * self.weight
        return normed if self.bias is None else normed + self.bias


class PointwiseChannelNorm(nn.Module):
    """LayerNorm over the channels of each pixel, whose two means are 1x1 convolutions of one output: a map stays
    in the delegate's own order of dimensions."""

    average: Tensor

    def __init__(self, norm: ChannelNorm):
        super().__init__()
        (channels,) = norm.normalized_shape
        self.eps = norm.eps
        self.weight = nn.Parameter(norm.weight.detach().reshape(1, -1, 1, 1))
        self.bias = nn.Parameter(norm.bias.detach().reshape(1, -1, 1, 1))
        self.register_buffer("average", torch.full((1, channels, 1, 1), 1.0 / channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        centred = x - F.conv2d(x, self.average)
        variance = F.conv2d(centred * centred, self.average)
        return centred * torch.rsqrt(variance + self.eps) * self.weight + self.bias


def linear_layernorm(module: nn.Module) -> nn.Module:
    """Replace each LayerNorm over the last dimension alone, or over the channels of a map."""
    return replace(module, _linear)


def _linear(part: nn.Module) -> nn.Module:
    if type(part) is ChannelNorm:
        return PointwiseChannelNorm(part)
    return LinearLayerNorm(part) if _over_last_dimension(part) else part


def _over_last_dimension(part: nn.Module) -> TypeGuard[nn.LayerNorm]:
    """torch's LayerNorm, or timm's subclass that adds a choice of kernels on other devices alone."""
    kind = type(part)
    plain = kind is nn.LayerNorm or (kind.__module__, kind.__name__) == ("timm.layers.norm", "LayerNorm")
    return plain and isinstance(part, nn.LayerNorm) and len(part.normalized_shape) == 1


def rewritten(module: nn.Module, backend: str) -> nn.Module:
    """The module as it is captured for a backend of ExecuTorch."""
    module = fuse_for_inference(module)
    return linear_layernorm(module) if backend == "xnnpack" else module


def replace(module: nn.Module, swap: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """A copy in which every submodule `m` is `swap(m)`, the module itself included."""
    module = swap(copy.deepcopy(module))
    for part in list(module.modules()):
        for name, child in part.named_children():
            setattr(part, name, swap(child))
    return module
