"""Modules of MetaFormer's block: (B, C, H, W) to the same shape."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from typing_extensions import override

from search.blocks import BlockSpec
from search.blocks.metaformer import ChannelMlp, MixerShell
from search.networks.layers import ChannelNorm, Residual
from search.networks.network import module_around, module_of


@module_around.register(MixerShell)
class MixerBlock(nn.Module):
    """x + mixers(norm(x)), without a mixer x + norm(x)."""

    def __init__(self, shell: MixerShell, mixers: Sequence[BlockSpec]):
        super().__init__()
        self.norm = ChannelNorm(shell.channels)
        self.layers = nn.Sequential(*(module_of(mixer) for mixer in mixers))

    @override
    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = x + self.layers(self.norm(x))
        return mixed


@module_of.register
def channel_mlp(spec: ChannelMlp) -> nn.Module:
    """Create norm, 1x1 convolution, GELU and 1x1 convolution with a residual."""
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        norm=ChannelNorm(spec.channels),
        expand=nn.Conv2d(spec.channels, spec.hidden, 1),
        act=nn.GELU(),
        project=nn.Conv2d(spec.hidden, spec.channels, 1),
    )
    return Residual(parts)
