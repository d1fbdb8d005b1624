"""EfficientViT's stem, FFN block, patch merging and head (Liu et al. 2023, figure 6 and section 3.3).

A network is a sandwich: FFN blocks on either side of each cascaded group attention, which is a block of its own
(`efficientvit_attention.py`). Activations are ReLU throughout.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import ClassVar

from search.blocks.head import FcHead
from search.blocks.registry import register
from search.blocks.shapes import ChannelKeeping, Projecting
from search.blocks.spec import Macs, conv_out, make_divisible, param

STEM_FRACTIONS = (8, 4, 2, 1)
"""The stem's convolutions have 1/8, 1/4, 1/2 and all of its output channels."""

MERGE_EXPANSION = 4
"""Width of patch merging's depthwise convolution over its input."""


@register
@dataclasses.dataclass(frozen=True)
class OverlapStem(Projecting):
    """Overlapping patch embedding: four 3x3 convolutions of stride 2 with BN, ReLU between them."""

    kind: ClassVar[str] = "evit.stem"
    examples: ClassVar[tuple[str, ...]] = ("evit.stem(in=3,out=8)@32", "evit.stem(in=3,out=16)@40")

    @property
    def out_resolution(self) -> int:
        return self.sides[-1]

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels before the first convolution and after each."""
        return (self.inputs, *(max(1, self.outputs // fraction) for fraction in STEM_FRACTIONS))

    @property
    def sides(self) -> tuple[int, ...]:
        """Side of the map before the first convolution and after each."""
        sides = [self.resolution]
        for _ in STEM_FRACTIONS:
            sides.append(conv_out(sides[-1], 2))
        return tuple(sides)

    @property
    def _maps(self) -> list[int]:
        return [width * side**2 for width, side in zip(self.widths, self.sides, strict=True)]

    def params(self) -> int:
        return sum(9 * a * b + 2 * b for a, b in itertools.pairwise(self.widths))

    def macs(self) -> Macs:
        pairs = zip(itertools.pairwise(self.widths), self.sides[1:], strict=True)
        macs = sum(9 * a * b * side**2 for (a, b), side in pairs)
        return Macs(macs, macs)

    def traffic_elements(self) -> int:
        return sum(a + b for a, b in itertools.pairwise(self._maps))

    def live_elements(self) -> int:
        return max(a + b for a, b in itertools.pairwise(self._maps))


@register
@dataclasses.dataclass(frozen=True)
class FfnBlock(ChannelKeeping):
    """3x3 depthwise convolution (token interaction), then two 1x1 ones (feed-forward), each with a residual.

    The bread of the sandwich: figure 6b has one on either side of the attention, the space more.
    """

    kind: ClassVar[str] = "evit.ffn"
    examples: ClassVar[tuple[str, ...]] = ("evit.ffn(c=8,ratio=2)@7", "evit.ffn(c=16,ratio=3)@8")
    branches: ClassVar[tuple[str, ...]] = ("mix.conv", "feed.project")

    ratio: float = param("ratio")

    @property
    def removable(self) -> bool:
        return True

    @property
    def hidden(self) -> int:
        """Channels of the feed-forward network's middle."""
        return int(self.ratio * self.channels)

    def params(self) -> int:
        c, hidden = self.channels, self.hidden
        return 9 * c + 2 * c + c * hidden + 2 * hidden + hidden * c + 2 * c

    def macs(self) -> Macs:
        macs = self.depthwise_macs() + 2 * self.channels * self.hidden * self.resolution**2
        return Macs(macs, macs)

    def depthwise_macs(self) -> int:
        return 9 * self.channels * self.resolution**2

    def traffic_elements(self) -> int:
        per_pixel = 2 * self.channels + 2 * (self.channels + self.hidden) + 2 * 3 * self.channels
        return per_pixel * self.resolution**2

    def live_elements(self) -> int:
        return max(3 * self.channels, 2 * self.channels + self.hidden) * self.resolution**2


@register
@dataclasses.dataclass(frozen=True)
class PatchMerging(Projecting):
    """Inverted residual without the residual that halves the map: 1x1, 3x3 depthwise of stride 2, SE, 1x1.

    Squeeze and excitation has a quarter of the middle's channels, a multiple of 8.
    """

    kind: ClassVar[str] = "evit.merge"
    examples: ClassVar[tuple[str, ...]] = ("evit.merge(in=8,out=16)@7", "evit.merge(in=16,out=24)@8")

    @property
    def out_resolution(self) -> int:
        return conv_out(self.resolution, 2)

    @property
    def middle(self) -> int:
        """Channels of the depthwise convolution."""
        return MERGE_EXPANSION * self.inputs

    @property
    def squeezed(self) -> int:
        """Channels of squeeze and excitation."""
        return make_divisible(self.middle / 4, 8, 0)

    def params(self) -> int:
        middle, squeezed = self.middle, self.squeezed
        excite = 2 * middle * squeezed + squeezed + middle
        project = middle * self.outputs + 2 * self.outputs
        return self.inputs * middle + 2 * middle + 9 * middle + 2 * middle + excite + project

    def macs(self) -> Macs:
        area_in, area_out = self.resolution**2, self.out_resolution**2
        expand, project = self.inputs * self.middle * area_in, self.middle * self.outputs * area_out
        macs = expand + self.depthwise_macs() + 2 * self.middle * self.squeezed + project
        return Macs(macs, macs)

    def depthwise_macs(self) -> int:
        return 9 * self.middle * self.out_resolution**2

    def traffic_elements(self) -> int:
        area_in, area_out = self.resolution**2, self.out_resolution**2
        expand, depthwise = (self.inputs + self.middle) * area_in, self.middle * (area_in + area_out)
        mean, scale = self.middle * (area_out + 1), self.middle * (2 * area_out + 1)
        excite = 2 * (self.middle + self.squeezed) + 2 * self.middle
        return expand + depthwise + mean + excite + scale + (self.middle + self.outputs) * area_out

    def live_elements(self) -> int:
        area_in, area_out = self.resolution**2, self.out_resolution**2
        wide, narrow = self.middle * area_in, self.middle * area_out
        scale = 2 * narrow + self.middle
        gates = narrow + 2 * self.middle
        return max(
            self.inputs * area_in + wide, wide + narrow, gates, scale, narrow + self.outputs * area_out
        )


@register
@dataclasses.dataclass(frozen=True)
class BnFcHead(FcHead):
    """Global average pool, BN of its means, and a linear classifier with bias."""

    kind: ClassVar[str] = "head.bnfc"
    examples: ClassVar[tuple[str, ...]] = ("head.bnfc(in=8,classes=10)@3", "head.bnfc(in=16,classes=10)@4")

    def params(self) -> int:
        return super().params() + 2 * self.inputs
