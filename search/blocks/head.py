"""Classifier heads."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from search.blocks.spec import BlockSpec, Macs, param, register

MBPOOL_EXPANSION = 6
"""Width of MBPool's 1x1 convolution over its input (Table 1's expansion ratio of MBPool)."""


@dataclasses.dataclass(frozen=True)
class _Head(BlockSpec):
    inputs: int = param("in")
    classes: int = param("classes")

    @property
    def in_channels(self) -> int:
        return self.inputs

    @property
    def out_channels(self) -> int:
        return self.classes

    @property
    def out_resolution(self) -> int:
        return 1


@register
@dataclasses.dataclass(frozen=True)
class FcHead(_Head):
    """Global average pool and a linear classifier with bias."""

    kind: ClassVar[str] = "head.fc"

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


@register
@dataclasses.dataclass(frozen=True)
class MbPoolHead(_Head):
    """1x1 convolution to six times the width with BN and SiLU, global average pool, linear classifier."""

    kind: ClassVar[str] = "head.mbpool"

    @property
    def middle(self) -> int:
        """Channels of the 1x1 convolution."""
        return MBPOOL_EXPANSION * self.inputs

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
