"""Equal modules that lower better: BN folded into convolutions, LayerNorm as operations XNNPACK has, lookups in
weights made once.

All return a changed copy and leave their argument alone.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from search.networks.attention import RelativeBias


def fold_batchnorm(module: nn.Module) -> nn.Module:
    """Fold each BN into the convolution right before it in an `nn.Sequential`.

    Only exactly these classes are touched: a subclass may do more in its forward.
    """
    module = copy.deepcopy(module)
    for part in module.modules():
        if not isinstance(part, nn.Sequential):
            continue
        names = list(part._modules)
        for first, second in itertools.pairwise(names):
            conv, norm = part._modules[first], part._modules[second]
            if type(conv) is nn.Conv2d and type(norm) is nn.BatchNorm2d and norm.track_running_stats:
                part._modules[first] = fuse_conv_bn_eval(conv, norm)
                part._modules[second] = nn.Identity()
    return module


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


def linear_layernorm(module: nn.Module) -> nn.Module:
    """Replace each LayerNorm over the last dimension alone."""
    return replace(
        module,
        lambda part: (
            LinearLayerNorm(part) if type(part) is nn.LayerNorm and len(part.normalized_shape) == 1 else part
        ),
    )


class Looked(nn.Module):
    """What a module of weights alone gives, as a constant."""

    value: Tensor

    def __init__(self, value: Tensor):
        super().__init__()
        self.register_buffer("value", value.detach().contiguous())

    def forward(self) -> Tensor:
        """The constant."""
        return self.value


def constant_bias(module: nn.Module) -> nn.Module:
    """Replace each relative position bias by what it looks up, for which no delegate has an operator."""
    return replace(module, lambda part: Looked(part()) if isinstance(part, RelativeBias) else part)


def replace(module: nn.Module, swap: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """A copy in which every submodule `m` is `swap(m)`, the module itself included."""
    module = swap(copy.deepcopy(module))
    for part in list(module.modules()):
        for name, child in part.named_children():
            setattr(part, name, swap(child))
    return module
