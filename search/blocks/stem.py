"""What stems with a pool have in common."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from search.blocks.shapes import Projecting
from search.blocks.spec import Macs, conv_out


@dataclasses.dataclass(frozen=True)
class PooledStem(Projecting):
    """Convolution of stride 2 with BN, then a 3x3 max pool of stride 2."""

    kernel: ClassVar[int]

    @property
    def conv_resolution(self) -> int:
        """Side of the map between convolution and pool."""
        return conv_out(self.resolution, 2)

    @property
    def out_resolution(self) -> int:
        return conv_out(self.conv_resolution, 2)

    def params(self) -> int:
        return self.kernel**2 * self.inputs * self.outputs + 2 * self.outputs

    def macs(self) -> Macs:
        macs = self.kernel**2 * self.inputs * self.outputs * self.conv_resolution**2
        return Macs(macs, macs)

    def traffic_elements(self) -> int:
        wide = self.outputs * self.conv_resolution**2
        return self.inputs * self.resolution**2 + 2 * wide + self.out_elements

    def live_elements(self) -> int:
        wide = self.outputs * self.conv_resolution**2
        return max(self.inputs * self.resolution**2 + wide, wide + self.out_elements)
