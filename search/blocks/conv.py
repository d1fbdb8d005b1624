"""Standard convolution with BN and SiLU (the stem)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from search.blocks.spec import BlockSpec, Macs, conv_out, param, register


@register
@dataclasses.dataclass(frozen=True)
class Conv(BlockSpec):
    """k x k convolution without bias, BN, SiLU."""

    kind: ClassVar[str] = "conv"

    inputs: int = param("in")
    outputs: int = param("out")
    kernel: int = param("k")
    stride: int = param("s")

    @property
    def in_channels(self) -> int:
        return self.inputs

    @property
    def out_channels(self) -> int:
        return self.outputs

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
