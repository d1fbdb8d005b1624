"""EfficientViT's blocks with one of its choices undone, as the rows of its table 6 (Liu et al. 2023, section 4.4).

Each is a kind of its own, since each costs differently on a device: HardSwish for ReLU, LayerNorm for BN, heads
without the cascade, queries without depthwise convolution, FFN blocks without token interaction. What they compute
besides is that of the block that they extend. No supernet holds them.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from search.blocks.efficientvit import BnFcHead, FfnBlock, OverlapStem, PatchMerging
from search.blocks.efficientvit_attention import CascadedGroupAttention
from search.blocks.registry import register
from search.blocks.spec import Macs


@register
@dataclasses.dataclass(frozen=True)
class HardSwishStem(OverlapStem):
    """Overlapping patch embedding with HardSwish for ReLU."""

    kind: ClassVar[str] = "evit.stem.hswish"
    elastic: ClassVar[bool] = False
    examples: ClassVar[tuple[str, ...]] = ("evit.stem.hswish(in=3,out=16)@40",)


@register
@dataclasses.dataclass(frozen=True)
class HardSwishFfn(FfnBlock):
    """FFN block with HardSwish for ReLU."""

    kind: ClassVar[str] = "evit.ffn.hswish"
    elastic: ClassVar[bool] = False
    examples: ClassVar[tuple[str, ...]] = ("evit.ffn.hswish(c=16,ratio=3)@8",)


@register
@dataclasses.dataclass(frozen=True)
class HardSwishMerging(PatchMerging):
    """Patch merging with HardSwish for ReLU; squeeze and excitation keeps its own."""

    kind: ClassVar[str] = "evit.merge.hswish"
    elastic: ClassVar[bool] = False
    examples: ClassVar[tuple[str, ...]] = ("evit.merge.hswish(in=16,out=24)@8",)


@register
@dataclasses.dataclass(frozen=True)
class HardSwishAttention(CascadedGroupAttention):
    """Cascaded group attention with HardSwish for ReLU, which stands before the projection alone."""

    kind: ClassVar[str] = "evit.cga.hswish"
    elastic: ClassVar[bool] = False
    examples: ClassVar[tuple[str, ...]] = ("evit.cga.hswish(c=32,heads=2,qk=8,v=16,kernels=75,window=7)@9",)


@register
@dataclasses.dataclass(frozen=True)
class GroupAttention(CascadedGroupAttention):
    """Group attention without the cascade: a head sees its split alone."""

    kind: ClassVar[str] = "evit.group"
    elastic: ClassVar[bool] = False
    examples: ClassVar[tuple[str, ...]] = (
        "evit.group(c=15,heads=2,qk=4,v=4,kernels=33,window=3)@3",
        "evit.group(c=32,heads=2,qk=8,v=16,kernels=75,window=7)@9",
    )

    def traffic_elements(self) -> int:
        cascade = 3 * min(self.v_dim, self.channels // self.heads) * (self.heads - 1)
        return super().traffic_elements() - cascade * self.windows * self.tokens


@register
@dataclasses.dataclass(frozen=True)
class PlainQueryAttention(CascadedGroupAttention):
    """Cascaded group attention without the depthwise convolutions over its queries."""

    kind: ClassVar[str] = "evit.cga.plainq"
    elastic: ClassVar[bool] = False
    examples: ClassVar[tuple[str, ...]] = (
        "evit.cga.plainq(c=15,heads=2,qk=4,v=4,window=3)@3",
        "evit.cga.plainq(c=32,heads=2,qk=8,v=16,window=7)@9",
    )

    kernels: int = dataclasses.field(default=0, init=False)
    """No kernel, so none in the key."""

    def _check_kernels(self) -> None:
        """There are none to check."""

    @property
    def kernel_sizes(self) -> tuple[int, ...]:
        """None."""
        return (0,) * self.heads

    def params(self) -> int:
        return super().params() - 2 * self.qk_dim * self.heads

    def traffic_elements(self) -> int:
        return super().traffic_elements() - 2 * self.qk_dim * self.heads * self.windows * self.tokens


@register
@dataclasses.dataclass(frozen=True)
class FeedForward(FfnBlock):
    """FFN block without token interaction: two 1x1 convolutions with a residual."""

    kind: ClassVar[str] = "evit.feed"
    elastic: ClassVar[bool] = False
    branches: ClassVar[tuple[str, ...]] = ("feed.project",)
    examples: ClassVar[tuple[str, ...]] = ("evit.feed(c=16,ratio=3)@8",)

    def params(self) -> int:
        return super().params() - 11 * self.channels

    def macs(self) -> Macs:
        macs = 2 * self.channels * self.hidden * self.resolution**2
        return Macs(macs, macs)

    def depthwise_macs(self) -> int:
        return 0

    def traffic_elements(self) -> int:
        return (2 * (self.channels + self.hidden) + 3 * self.channels) * self.resolution**2


@register
@dataclasses.dataclass(frozen=True)
class LayerNormStem(OverlapStem):
    """Overlapping patch embedding with LayerNorm over each pixel's channels for BN."""

    kind: ClassVar[str] = "evit.stem.ln"
    elastic: ClassVar[bool] = False
    examples: ClassVar[tuple[str, ...]] = ("evit.stem.ln(in=3,out=16)@40",)

    def traffic_elements(self) -> int:
        return super().traffic_elements() + 2 * sum(self._maps[1:])

    def live_elements(self) -> int:
        return max(super().live_elements(), 2 * max(self._maps[1:]))


@register
@dataclasses.dataclass(frozen=True)
class LayerNormFfn(FfnBlock):
    """FFN block with LayerNorm over each pixel's channels for BN."""

    kind: ClassVar[str] = "evit.ffn.ln"
    elastic: ClassVar[bool] = False
    examples: ClassVar[tuple[str, ...]] = ("evit.ffn.ln(c=16,ratio=3)@8",)

    def traffic_elements(self) -> int:
        return super().traffic_elements() + 2 * (2 * self.channels + self.hidden) * self.resolution**2

    def live_elements(self) -> int:
        return max(3 * self.channels, self.channels + 2 * self.hidden) * self.resolution**2


@register
@dataclasses.dataclass(frozen=True)
class LayerNormMerging(PatchMerging):
    """Patch merging with LayerNorm over each pixel's channels for BN."""

    kind: ClassVar[str] = "evit.merge.ln"
    elastic: ClassVar[bool] = False
    examples: ClassVar[tuple[str, ...]] = ("evit.merge.ln(in=16,out=24)@8",)

    @property
    def _normed(self) -> tuple[int, int, int]:
        """Elements of each map that is normalised."""
        area_in, area_out = self.resolution**2, self.out_resolution**2
        return self.middle * area_in, self.middle * area_out, self.outputs * area_out

    def traffic_elements(self) -> int:
        return super().traffic_elements() + 2 * sum(self._normed)

    def live_elements(self) -> int:
        return max(super().live_elements(), 2 * max(self._normed))


@register
@dataclasses.dataclass(frozen=True)
class LayerNormAttention(CascadedGroupAttention):
    """Cascaded group attention with LayerNorm over each pixel's channels for BN."""

    kind: ClassVar[str] = "evit.cga.ln"
    elastic: ClassVar[bool] = False
    examples: ClassVar[tuple[str, ...]] = (
        "evit.cga.ln(c=32,heads=2,qk=8,v=16,kernels=75,window=7)@9",
        "evit.cga.ln(c=16,heads=1,qk=8,v=20,kernels=3,window=7)@3",
    )

    def traffic_elements(self) -> int:
        normed = self.heads * (3 * self.qk_dim + self.v_dim) + self.channels
        return super().traffic_elements() + 2 * normed * self.windows * self.tokens

    def live_elements(self) -> int:
        """As with BN, or the first head's values before and behind their norm, with its query and key."""
        pixels = self.windows * self.tokens
        image, windows = self.channels * self.resolution**2, self.channels * pixels if self.windows > 1 else 0
        around = image + (windows if self.heads > 1 else 0)
        return max(super().live_elements(), around + 2 * (self.qk_dim + self.v_dim) * pixels)


@register
@dataclasses.dataclass(frozen=True)
class LayerNormFcHead(BnFcHead):
    """Global average pool, LayerNorm of its means, and a linear classifier with bias."""

    kind: ClassVar[str] = "head.lnfc"
    elastic: ClassVar[bool] = False
    examples: ClassVar[tuple[str, ...]] = ("head.lnfc(in=16,classes=10)@4",)
