"""Standard convolution with BN and SiLU (the stem)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from search.blocks.registry import register
from search.blocks.shapes import Projecting
from search.blocks.spec import Macs, conv_out, param


@register
@dataclasses.dataclass(frozen=True)
class Conv(Projecting):
    """k x k convolution without bias, BN, SiLU."""

    kind: ClassVar[str] = "conv"
    examples: ClassVar[tuple[str, ...]] = ("conv(in=3,out=8,k=3,s=2)@8", "conv(in=3,out=16,k=5,s=2)@8")

    kernel: int = param("k")
    stride: int = param("s")

    @property
    def out_resolution(self) -> int:
        return conv_out(self.resolution, self.stride)

    def params(self) -> int:
        return self.inputs * self.outputs * self.kernel**2 + 2 * self.outputs

    def macs(self) -> Macs:
        macs = self.inputs * self.outputs * self.kernel**2 * self.out_resolution**2
        return Macs(macs, macs)

    def traffic_elements(self) -> int:
        return self.inputs * self.resolution**2 + self.out_elements

    def live_elements(self) -> int:
        return self.inputs * self.resolution**2 + self.out_elements
