"""MetaFormer's block in two parts (Yu et al. 2022, equations 2 and 3): a residual around any mixer, and an MLP.

The mixers are those of `search.blocks.mixers`, with the keys that they have alone: a LUT has an entry for each of
them, one for the norm and residual around it, and one for the MLP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from typing_extensions import override

from search.blocks import local_mixers as local
from search.blocks import mixers, positions
from search.blocks.mixers import TokenMixer
from search.blocks.ops import OpList
from search.blocks.spec import BlockSpec, ChannelKeeping, EnclosingSpec, param, register


@register
class MixerShell(ChannelKeeping, EnclosingSpec):
    """LayerNorm over the channels of each pixel before the enclosed mixers, and a residual around both."""

    kind = "metaformer.shell"
    examples = ("metaformer.shell(c=8)@4", "metaformer.shell(c=16)@5")
    branches = ("layers",)
    removable = True

    @override
    def add_ops(self, ops: OpList) -> None:
        ops.add(ops.input, ops.norm(ops.input, axis=1))

    @override
    def surrounding_elements(self) -> int:
        """Return the elements of the input, which is added."""
        return self.channels * self.resolution**2

    @override
    def encloses(self, other: BlockSpec) -> bool:
        own = (self.channels, self.resolution)
        return isinstance(other, TokenMixer) and (other.channels, other.resolution) == own


@register
class ChannelMlp(ChannelKeeping):
    """LayerNorm, a 1x1 convolution to `ratio` times the channels, GELU, a 1x1 convolution back, and a residual."""

    kind = "metaformer.mlp"
    examples = ("metaformer.mlp(c=8,ratio=1.5)@4", "metaformer.mlp(c=16,ratio=2)@5")
    removable = True

    mlp_ratio: float = param("ratio")

    @property
    def hidden(self) -> int:
        """Channels between the convolutions."""
        return int(self.mlp_ratio * self.channels)

    @override
    def add_ops(self, ops: OpList) -> None:
        hidden = ops.conv(ops.norm(ops.input, axis=1), self.hidden, bias=True, norm=False)
        hidden = ops.in_place(hidden, traffic=2 * hidden.elements)
        ops.add(ops.conv(hidden, self.channels, bias=True, norm=False), ops.input)


@dataclass(frozen=True)
class MixerSetting:
    """What mixers at one place of a network share.

    Attributes:
        resolution: Side of the map in pixels.
        channels: Its channels.
        heads: Heads, for mixers that have heads.
        window: Side of windows in pixels.
        reduction: Side of the map over that of its reduced keys.
        base: Side of the map that a table of relative positions belongs to; 0 for `resolution`.
    """

    resolution: int
    channels: int
    heads: int
    window: int
    reduction: int = 2
    base: int = 0


MIXERS: Mapping[str, Callable[[MixerSetting], TokenMixer]] = {
    "mha": lambda s: mixers.MultiHeadAttention(s.resolution, s.channels, s.heads),
    "window": lambda s: mixers.WindowAttention(s.resolution, s.channels, s.heads, s.window),
    "sr": lambda s: mixers.SpatialReductionAttention(s.resolution, s.channels, s.heads, s.reduction),
    "separable": lambda s: mixers.SeparableAttention(s.resolution, s.channels),
    "additive": lambda s: mixers.AdditiveAttention(s.resolution, s.channels),
    "linear": lambda s: mixers.LinearAttention(s.resolution, s.channels, s.heads),
    "pool": lambda s: mixers.PoolMixer(s.resolution, s.channels, 3),
    "fourier": lambda s: mixers.FourierFilter(s.resolution, s.channels),
    "mlp": lambda s: mixers.TokenMlp(s.resolution, s.channels, s.channels // 2),
    "gmlp": lambda s: mixers.SpatialGating(s.resolution, s.channels, s.channels),
    "performer": lambda s: mixers.PerformerAttention(
        s.resolution, s.channels, s.heads, s.channels // s.heads
    ),
    "shunted": lambda s: mixers.ShuntedAttention(s.resolution, s.channels, 2 * s.heads, s.reduction),
    "linformer": lambda s: mixers.LinformerAttention(
        s.resolution, s.channels, s.heads, max(1, s.resolution**2 // s.reduction**2)
    ),
    "axial": lambda s: local.AxialShift(s.resolution, s.channels),
    "shift": lambda s: local.SpatialShift(s.resolution, s.channels),
    "shifted": lambda s: local.ShiftedWindowAttention(s.resolution, s.channels, s.heads, s.window),
    "focal": lambda s: local.FocalAttention(s.resolution, s.channels, s.heads, s.window),
    "grid": lambda s: local.GridAttention(s.resolution, s.channels, s.heads, s.window),
    "cross": lambda s: local.CrossStripeAttention(
        s.resolution, s.channels, 2 * s.heads, max(1, s.window // 4)
    ),
    "outlook": lambda s: local.OutlookAttention(s.resolution, s.channels, s.heads, 3),
    "neighbour": lambda s: local.NeighbourAttention(s.resolution, s.channels, s.heads, 3),
    "rope": lambda s: positions.RotaryAttention(s.resolution, s.channels, s.heads),
    "fire": lambda s: positions.FireAttention(s.resolution, s.channels, s.heads),
    "relative": lambda s: positions.RelativeAttention(
        s.resolution, s.channels, s.heads, s.base or s.resolution
    ),
}
"""Token mixer by name, for spaces and for `bench blocks`. Numbers that a paper leaves open are those of its
networks at 14 to 16 px: PVT's reduction is 2 there, PoolFormer's neighbourhood 3 x 3, Mixer's hidden width d / 2.
"""
