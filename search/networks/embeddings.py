"""Modules of embeddings: (B, C, H, W) to the map (B, d, H', W') whose pixels are tokens."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from search.blocks.embeddings import CrossEmbed, OverlapEmbed, PatchEmbed
from search.networks.layers import ChannelNorm
from search.networks.network import module_of


def _patches(spec: PatchEmbed | OverlapEmbed) -> nn.Conv2d:
    return nn.Conv2d(spec.inputs, spec.dim, spec.kernel, spec.stride, spec.padding)


@module_of.register
def _(spec: PatchEmbed) -> nn.Module:
    return nn.Sequential(OrderedDict(project=_patches(spec)))


@module_of.register
def _(spec: OverlapEmbed) -> nn.Module:
    parts: OrderedDict[str, nn.Module] = OrderedDict(project=_patches(spec), norm=ChannelNorm(spec.dim))
    return nn.Sequential(parts)


@module_of.register(CrossEmbed)
class CrossEmbedding(nn.Module):
    """Small patches and large ones, which XNNPACK resizes inside of its delegate."""

    def __init__(self, spec: CrossEmbed):
        super().__init__()
        half, side = spec.dim // 2, spec.stride
        self.small = nn.Conv2d(spec.inputs, half, side, side)
        self.large = nn.Conv2d(spec.inputs, half, 2 * side, 2 * side)

    @override
    def forward(self, x: Tensor) -> Tensor:
        small, large = self.small(x), self.large(x)
        return torch.cat(
            (small, F.interpolate(large, small.shape[2:], mode="bilinear", align_corners=False)), 1
        )
