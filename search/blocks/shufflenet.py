"""ShuffleNetV2 (Ma et al. 2018): stem, the two units of figure 3 (c) and (d), head."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from search.blocks.head import WideHead
from search.blocks.registry import register
from search.blocks.shapes import Projecting
from search.blocks.spec import Macs, conv_out, param
from search.blocks.stem import PooledStem


@register
@dataclasses.dataclass(frozen=True)
class ShuffleStem(PooledStem):
    """3x3 convolution of stride 2 with BN and ReLU, 3x3 max pool of stride 2 (Conv1 and MaxPool of table 5)."""

    kind: ClassVar[str] = "shufflenet.stem"
    examples: ClassVar[tuple[str, ...]] = ("shufflenet.stem(in=3,out=4)@9", "shufflenet.stem(in=3,out=8)@16")
    kernel: ClassVar[int] = 3


@register
@dataclasses.dataclass(frozen=True)
class ShuffleUnit(Projecting):
    """Two branches side by side, concatenated, and their channels shuffled.

    At stride 1 the map is split: one half passes as it is, the other goes through 1x1, depthwise 3x3 and 1x1. At
    stride 2 the whole map goes into both branches, the first of which is a depthwise 3x3 and a 1x1. Every
    convolution has BN, every 1x1 ReLU. No elastic version: the shuffle mixes which channels are the first ones.
    """

    kind: ClassVar[str] = "shufflenet.unit"
    examples: ClassVar[tuple[str, ...]] = (
        "shufflenet.unit(in=6,out=16,s=2)@7",
        "shufflenet.unit(in=8,out=8,s=1)@7",
    )
    elastic: ClassVar[bool] = False

    stride: int = param("s")

    @property
    def out_resolution(self) -> int:
        return conv_out(self.resolution, self.stride)

    @property
    def half(self) -> int:
        """Channels of a branch."""
        return self.outputs // 2

    @property
    def splits(self) -> bool:
        """Whether half of the map passes as it is."""
        return self.stride == 1

    @property
    def removable(self) -> bool:
        return self.splits

    def params(self) -> int:
        half, before = self.half, self.half if self.splits else self.inputs
        right = before * half + 9 * half + half * half + 6 * half
        left = 0 if self.splits else 9 * self.inputs + self.inputs * half + 2 * self.inputs + 2 * half
        return left + right

    def macs(self) -> Macs:
        half, before = self.half, self.half if self.splits else self.inputs
        area_in, area_out = self.resolution**2, self.out_resolution**2
        right = before * half * area_in + (9 * half + half * half) * area_out
        left = 0 if self.splits else (9 * self.inputs + self.inputs * half) * area_out
        return Macs(left + right, left + right)

    def depthwise_macs(self) -> int:
        channels = self.half if self.splits else self.half + self.inputs
        return 9 * channels * self.out_resolution**2

    def traffic_elements(self) -> int:
        half, before = self.half, self.half if self.splits else self.inputs
        area_in, area_out = self.resolution**2, self.out_resolution**2
        right = (before + 2 * half) * area_in + 3 * half * area_out
        left = 0 if self.splits else self.inputs * area_in + (2 * self.inputs + half) * area_out
        concat_and_shuffle = 4 * self.outputs * area_out
        return left + right + concat_and_shuffle

    def live_elements(self) -> int:
        area_in, area_out = self.resolution**2, self.out_resolution**2
        image, branch = self.inputs * area_in, self.half * area_out
        concat = (image if self.splits else branch) + branch + 2 * branch
        if self.splits:
            return concat
        left = image + self.inputs * area_out + branch
        wide = self.half * area_in
        return max(left, image + branch + wide, wide + 2 * branch, concat)


@register
@dataclasses.dataclass(frozen=True)
class ShuffleHead(WideHead):
    """1x1 convolution with BN and ReLU (Conv5 of table 5), global average pool, linear classifier."""

    kind: ClassVar[str] = "head.shufflenet"
    examples: ClassVar[tuple[str, ...]] = (
        "head.shufflenet(in=8,classes=10,mid=32)@3",
        "head.shufflenet(in=16,classes=10,mid=64)@4",
    )

    width: int = param("mid")

    @property
    def middle(self) -> int:
        return self.width
