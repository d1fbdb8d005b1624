"""EfficientViT's modules with one choice undone: those of `efficientvit.py`, one kind of layer exchanged.

Queries without convolutions need no module of their own: those kernels are 0.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from search.blocks import BlockSpec
from search.blocks.efficientvit import BnFcHead, FfnBlock, OverlapStem, PatchMerging
from search.blocks.efficientvit_ablations import (
    FeedForward,
    GroupAttention,
    HardSwishAttention,
    HardSwishFfn,
    HardSwishMerging,
    HardSwishStem,
    LayerNormAttention,
    LayerNormFcHead,
    LayerNormFfn,
    LayerNormMerging,
    LayerNormStem,
)
from search.blocks.efficientvit_attention import CascadedGroupAttention
from search.networks.efficientvit import CascadedAttention, feed_forward
from search.networks.layers import ChannelNorm
from search.networks.module import module_of

_PLAIN = (OverlapStem, FfnBlock, PatchMerging, CascadedGroupAttention, BnFcHead)


class SeparateHeads(CascadedAttention):
    """(B, C, H, W) to the same: each head attends to its split of the channels alone."""

    def _attend(self, x: Tensor) -> Tensor:
        parts = torch.split(x, list(self.splits), 1)
        outputs = [head(part) for head, part in zip(self.heads, parts, strict=True)]
        attended: Tensor = self.proj(torch.cat(outputs, 1) if len(outputs) > 1 else outputs[0])
        return attended


def _undone(spec: BlockSpec, exchange: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """The module of the block that `spec` extends, its layers exchanged."""
    plain = next(cls for cls in _PLAIN if isinstance(spec, cls))
    module = module_of.dispatch(plain)(spec)
    for part in list(module.modules()):
        for name, child in part.named_children():
            setattr(part, name, exchange(child))
    return module


def _hardswish(layer: nn.Module) -> nn.Module:
    return nn.Hardswish() if isinstance(layer, nn.ReLU) else layer


def _layer_norm(layer: nn.Module) -> nn.Module:
    if isinstance(layer, nn.BatchNorm2d):
        return ChannelNorm(layer.num_features)
    return nn.LayerNorm(layer.num_features) if isinstance(layer, nn.BatchNorm1d) else layer


_HARDSWISH = (HardSwishStem, HardSwishFfn, HardSwishMerging, HardSwishAttention)
_LAYER_NORM = (LayerNormStem, LayerNormFfn, LayerNormMerging, LayerNormAttention, LayerNormFcHead)

for _kinds, _exchange in ((_HARDSWISH, _hardswish), (_LAYER_NORM, _layer_norm)):
    for _kind in _kinds:
        module_of.register(_kind, functools.partial(_undone, exchange=_exchange))
module_of.register(GroupAttention, SeparateHeads)
module_of.register(FeedForward, lambda spec: feed_forward(spec.channels, spec.hidden))
