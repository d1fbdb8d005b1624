"""DeepLabv3's heads (Chen et al. 2017): the whole one, and the lite one of MobileNetV2."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from search.blocks.registry import register
from search.blocks.shapes import Projecting
from search.blocks.spec import Macs, param

WIDTH = 256
"""Channels of every branch (Chen et al. 2017, section 3.3)."""

RATES = 12
"""Dilation of the first atrous branch; the others have two and three times as much (torchvision, MobileViT)."""

LEAST_SIDE = 4
"""Least side in pixels of the map: a mask of fewer places than 4 x 4 says where nothing is."""


@dataclasses.dataclass(frozen=True)
class Segmenting(Projecting):
    """`inputs` channels become logits of the background and of `classes` at every place of the map."""

    of_task: ClassVar[bool] = True

    @property
    def out_channels(self) -> int:
        return self.outputs + 1

    @property
    def _area(self) -> int:
        return self.resolution**2


@register
@dataclasses.dataclass(frozen=True)
class DeepLabLite(Segmenting):
    """1x1 convolution beside image pooling, joined by a 1x1 convolution, classifier (Sandler et al. 2018,
    section 6.3: ASPP's atrous branches left out).

    Convolutions but the last have BN and ReLU. What joins is one convolution of both branches, written as two.
    """

    kind: ClassVar[str] = "deeplab.lite"
    examples: ClassVar[tuple[str, ...]] = (
        "deeplab.lite(in=8,classes=3,mid=16)@5",
        "deeplab.lite(in=16,classes=10,mid=32)@4",
    )
    elastic: ClassVar[bool] = False

    outputs: int = param("classes")
    middle: int = param("mid")

    def params(self) -> int:
        branches = 2 * (self.inputs * self.middle + 2 * self.middle)
        join = 2 * self.middle**2 + 2 * self.middle
        return branches + join + (self.middle + 1) * self.out_channels

    def macs(self) -> Macs:
        pooled = (self.inputs + self.middle) * self.middle
        macs = pooled + (pooled + self.middle * self.out_channels) * self._area
        return Macs(macs, macs)

    def traffic_elements(self) -> int:
        pooled = self.inputs * (self._area + 2) + 3 * self.middle
        places = (self.inputs + 6 * self.middle) * self._area + self.out_elements
        return pooled + places

    def live_elements(self) -> int:
        image, wide = self.inputs * self._area, self.middle * self._area
        pooled = image + max(self.inputs + self.middle, 2 * self.middle)
        return max(
            image + self.inputs,
            pooled,
            self.middle + image + wide,
            self.middle + 2 * wide,
            wide + self.out_elements,
        )


@register
@dataclasses.dataclass(frozen=True)
class DeepLab(Segmenting):
    """Atrous spatial pyramid pooling: 1x1, three atrous 3x3 and image pooling side by side, joined by a 1x1
    convolution; then a 3x3 convolution and the classifier, as torchvision's DeepLabv3.

    `rate` is the dilation of the first atrous convolution; the others have two and three times as much.
    """

    kind: ClassVar[str] = "deeplab.aspp"
    examples: ClassVar[tuple[str, ...]] = (
        "deeplab.aspp(in=8,classes=3,mid=16,rate=1)@5",
        "deeplab.aspp(in=16,classes=10,mid=32,rate=2)@7",
    )
    elastic: ClassVar[bool] = False

    outputs: int = param("classes")
    middle: int = param("mid")
    rate: int = param("rate")

    @property
    def rates(self) -> tuple[int, ...]:
        """Dilations of the atrous convolutions."""
        return (self.rate, 2 * self.rate, 3 * self.rate)

    def params(self) -> int:
        mid, kernels = self.middle, 1 + 9 * len(self.rates) + 1
        branches = self.inputs * mid * kernels + 2 * mid * (len(self.rates) + 2)
        join = mid * mid * (len(self.rates) + 2) + 2 * mid
        return branches + join + 9 * mid * mid + 2 * mid + (mid + 1) * self.out_channels

    def macs(self) -> Macs:
        mid, atrous = self.middle, len(self.rates)
        pooled = (self.inputs + mid) * mid
        branches = self.inputs * mid * (1 + 9 * atrous)
        join = mid * mid * (1 + atrous)
        macs = pooled + (branches + join + 9 * mid * mid + mid * self.out_channels) * self._area
        return Macs(macs, macs)

    def traffic_elements(self) -> int:
        maps, mid = 1 + len(self.rates), self.middle
        pooled = self.inputs * (self._area + 2) + 3 * mid
        branches = maps * (self.inputs + mid) * self._area
        concat_and_join = (3 * maps + 1) * mid * self._area
        return pooled + branches + concat_and_join + 5 * mid * self._area + self.out_elements

    def live_elements(self) -> int:
        image, wide, maps = self.inputs * self._area, self.middle * self._area, 1 + len(self.rates)
        pooled = image + max(self.inputs + self.middle, 2 * self.middle)
        branches = self.middle + image + maps * wide
        concat = self.middle + 2 * maps * wide
        return max(image + self.inputs, pooled, branches, concat, wide + self.out_elements)
