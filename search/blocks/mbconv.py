"""Inverted residual of MobileNetV2 (MBConv in Table 1 of AutoViT)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from search.blocks.registry import register
from search.blocks.shapes import Projecting
from search.blocks.spec import Macs, conv_out, make_divisible, param


@register
@dataclasses.dataclass(frozen=True)
class MBConv(Projecting):
    """1x1 expansion (left out at expansion 1), k x k depthwise, 1x1 projection.

    Every convolution has BN, all but the projection SiLU; a residual where stride is 1 and the widths agree.
    """

    kind: ClassVar[str] = "mbconv"
    examples: ClassVar[tuple[str, ...]] = (
        "mbconv(in=8,out=16,k=3,e=1,s=2)@8",
        "mbconv(in=8,out=16,k=3,e=2,s=1)@7",
        "mbconv(in=16,out=16,k=3,e=1,s=1)@8",
        "mbconv(in=16,out=16,k=5,e=4,s=1)@8",
    )

    kernel: int = param("k")
    expansion: int = param("e")
    stride: int = param("s")

    @property
    def out_resolution(self) -> int:
        return conv_out(self.resolution, self.stride)

    @property
    def middle(self) -> int:
        """Channels of the depthwise convolution."""
        return make_divisible(self.expansion * self.inputs)

    @property
    def expands(self) -> bool:
        """Whether there is a 1x1 expansion."""
        return self.expansion != 1

    @property
    def residual(self) -> bool:
        """Whether the input is added to the output."""
        return self.stride == 1 and self.inputs == self.outputs

    @property
    def removable(self) -> bool:
        return self.residual

    def params(self) -> int:
        expand = self.inputs * self.middle + 2 * self.middle if self.expands else 0
        depthwise = self.middle * self.kernel**2 + 2 * self.middle
        return expand + depthwise + self.middle * self.outputs + 2 * self.outputs

    def macs(self) -> Macs:
        expand = self.inputs * self.middle * self.resolution**2 if self.expands else 0
        per_pixel = self.middle * self.kernel**2 + self.middle * self.outputs
        macs = expand + per_pixel * self.out_resolution**2
        return Macs(macs, macs)

    def depthwise_macs(self) -> int:
        return self.middle * self.kernel**2 * self.out_resolution**2

    def traffic_elements(self) -> int:
        area_in, area_out = self.resolution**2, self.out_resolution**2
        expand = (self.inputs + self.middle) * area_in if self.expands else 0
        depthwise = self.middle * (area_in + area_out)
        project = (self.middle + self.outputs) * area_out
        return expand + depthwise + project + (2 * self.outputs * area_out if self.residual else 0)

    def live_elements(self) -> int:
        area_in, area_out = self.resolution**2, self.out_resolution**2
        image, wide = self.inputs * area_in, self.middle * area_in
        narrow, out = self.middle * area_out, self.outputs * area_out
        kept = image if self.residual else 0
        expand = image + wide if self.expands else 0
        depthwise = wide + narrow + (kept if self.expands else 0)
        return max(expand, depthwise, kept + narrow + out, kept + 2 * out if self.residual else 0)
