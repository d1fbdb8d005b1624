"""A network as it is deployed: BN fused into the layer beside it, values of weights alone computed once."""

from __future__ import annotations

import copy
import itertools
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class OfWeights(nn.Module, ABC):
    """A module without an input: a value that is made of its parameters alone."""

    @abstractmethod
    def forward(self) -> Tensor:
        """The value."""


class Constant(OfWeights):
    """A value that was computed from weights."""

    value: Tensor

    def __init__(self, value: Tensor):
        super().__init__()
        self.register_buffer("value", value.contiguous())

    def forward(self) -> Tensor:
        return self.value


def fuse_for_inference(module: nn.Module) -> nn.Module:
    """A copy of an eval-mode module that computes the same (to rounding) with fewer operations.

    In an `nn.Sequential`, BN goes into the convolution right before it, else into the linear layer right after it;
    each `OfWeights` becomes a constant. Only exactly these classes are touched: a subclass may do more in its
    forward. BN that has no such neighbour stays.
    """
    module = copy.deepcopy(module)
    for part in module.modules():
        if isinstance(part, nn.Sequential):
            _fuse_pairs(part)
    for part in list(module.modules()):
        for name, child in part.named_children():
            if isinstance(child, OfWeights):
                with torch.no_grad():
                    setattr(part, name, Constant(child()))
    return module


def _fuse_pairs(chain: nn.Sequential) -> None:
    for first, second in itertools.pairwise(list(chain._modules)):
        before, after = chain._modules[first], chain._modules[second]
        if type(before) is nn.Conv2d and type(after) is nn.BatchNorm2d and after.track_running_stats:
            chain._modules[first] = fuse_conv_bn_eval(before, after)
            chain._modules[second] = nn.Identity()
        if type(before) is nn.BatchNorm1d and type(after) is nn.Linear and before.track_running_stats:
            chain._modules[first] = nn.Identity()
            chain._modules[second] = fuse_bn_linear(before, after)


@torch.no_grad()
def fuse_bn_linear(norm: nn.BatchNorm1d, linear: nn.Linear) -> nn.Linear:
    """One linear layer for `linear(norm(x))`: W (s x + t) + b = (W s) x + (W t + b)."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    if norm.bias is not None:
        shift = shift + norm.bias
    fused = nn.Linear(linear.in_features, linear.out_features, device=scale.device, dtype=scale.dtype)
    fused.weight.copy_(linear.weight * scale)
    fused.bias.copy_(linear.weight @ shift if linear.bias is None else linear.weight @ shift + linear.bias)
    return fused.train(linear.training)
