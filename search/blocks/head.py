"""Classifier heads: a 1x1 convolution or none, global average pool, a linear classifier with bias."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from typing import ClassVar

from search.blocks.registry import register
from search.blocks.shapes import Classifying
from search.blocks.spec import Macs, param

MBPOOL_EXPANSION = 6
"""Width of MBPool's 1x1 convolution over its input (Table 1's expansion ratio of MBPool)."""


@register
@dataclasses.dataclass(frozen=True)
class FcHead(Classifying):
    """Global average pool and a linear classifier with bias."""

    kind: ClassVar[str] = "head.fc"
    examples: ClassVar[tuple[str, ...]] = ("head.fc(in=8,classes=10)@3", "head.fc(in=16,classes=10)@4")

    def params(self) -> int:
        return self.inputs * self.classes + self.classes

    def macs(self) -> Macs:
        macs = self.inputs * self.classes
        return Macs(macs, macs)

    def traffic_elements(self) -> int:
        return self.inputs * (self.resolution**2 + 2) + self.classes

    def live_elements(self) -> int:
        pool = self.inputs * (self.resolution**2 + 1)
        return max(pool, self.inputs + self.classes)


@dataclasses.dataclass(frozen=True)
class WideHead(Classifying):
    """1x1 convolution with BN and an activation, SiLU by default, global average pool, linear classifier."""

    @property
    @abstractmethod
    def middle(self) -> int:
        """Channels of the 1x1 convolution."""

    def params(self) -> int:
        return self.inputs * self.middle + 2 * self.middle + self.middle * self.classes + self.classes

    def macs(self) -> Macs:
        macs = self.inputs * self.middle * self.resolution**2 + self.middle * self.classes
        return Macs(macs, macs)

    def traffic_elements(self) -> int:
        return (self.inputs + 2 * self.middle) * self.resolution**2 + 2 * self.middle + self.classes

    def live_elements(self) -> int:
        convolution = (self.inputs + self.middle) * self.resolution**2
        pool = self.middle * (self.resolution**2 + 1)
        return max(convolution, pool, self.middle + self.classes)


@register
@dataclasses.dataclass(frozen=True)
class MbPoolHead(WideHead):
    """MBPool of AutoViT: its 1x1 convolution makes six times the width."""

    kind: ClassVar[str] = "head.mbpool"
    examples: ClassVar[tuple[str, ...]] = (
        "head.mbpool(in=8,classes=10)@3",
        "head.mbpool(in=16,classes=10)@4",
    )

    @property
    def middle(self) -> int:
        return MBPOOL_EXPANSION * self.inputs


@register
@dataclasses.dataclass(frozen=True)
class ConvHead(WideHead):
    """The head of MobileNet and MobileViT: its 1x1 convolution has a width of its own."""

    kind: ClassVar[str] = "head.conv"
    examples: ClassVar[tuple[str, ...]] = (
        "head.conv(in=8,classes=10,mid=32)@3",
        "head.conv(in=16,classes=10,mid=64)@4",
    )

    width: int = param("mid")

    @property
    def middle(self) -> int:
        return self.width
