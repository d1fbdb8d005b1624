"""SSDLite (Sandler et al. 2018, MobileNetV2, section 6.2): SSD whose predictors and extra maps are separable.

One `ssd.predict` reads each predicted map; an `ssd.extra` halves the last map, so that larger boxes have a map
too. Layers are those of torchvision's SSDLite320 (Howard et al. 2019, MobileNetV3, section 6.3): ReLU6, six boxes
a place.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from search.blocks.registry import register
from search.blocks.shapes import Projecting
from search.blocks.spec import Macs, SideSpec, conv_out, param

COORDINATES = 4
"""Offsets of a box: centre x and y, width, height."""

ASPECT_RATIOS = (2.0, 3.0)
"""Of the default boxes, beside squares of two sizes (Liu et al. 2016, SSD, section 2.2)."""

BOXES = 2 + 2 * len(ASPECT_RATIOS)
"""Default boxes at each place of a map: two squares, and of each ratio one lying and one standing."""

EXTRA_WIDTHS = (512, 256, 256, 128)
"""Channels of the extra maps, the largest map first: as in SSDLite320, and as MobileViT's authors have them."""

FINEST_SIDE = 4
"""Least side in pixels of the largest map that is predicted on: 4 x 4 places are few for any objects."""


@register
@dataclasses.dataclass(frozen=True)
class SsdPredict(SideSpec):
    """For each default box logits of the background and of `classes`, then four offsets; the map goes on as it was.

    Of logits and of offsets each: depthwise 3x3 with BN and ReLU6, 1x1 with bias.
    """

    kind: ClassVar[str] = "ssd.predict"
    examples: ClassVar[tuple[str, ...]] = (
        "ssd.predict(in=8,boxes=6,classes=3)@5",
        "ssd.predict(in=16,boxes=6,classes=10)@4",
    )
    elastic: ClassVar[bool] = False
    of_task: ClassVar[bool] = True

    inputs: int = param("in")
    boxes: int = param("boxes")
    classes: int = param("classes")

    @property
    def in_channels(self) -> int:
        return self.inputs

    @property
    def out_channels(self) -> int:
        return self.classes + 1 + COORDINATES

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (1, self.boxes * self.resolution**2, self.out_channels)

    def params(self) -> int:
        depthwise = 2 * (9 * self.inputs + 2 * self.inputs)
        return depthwise + (self.inputs + 1) * self.boxes * self.out_channels

    def macs(self) -> Macs:
        pointwise = self.inputs * self.boxes * self.out_channels * self.resolution**2
        return Macs(self.depthwise_macs() + pointwise, self.depthwise_macs() + pointwise)

    def depthwise_macs(self) -> int:
        return 2 * 9 * self.inputs * self.resolution**2

    def traffic_elements(self) -> int:
        depthwise_and_pointwise = 2 * 3 * self.inputs * self.resolution**2 + self.out_elements
        transposed, joined = 2 * self.out_elements, 2 * self.out_elements
        return depthwise_and_pointwise + transposed + joined

    def live_elements(self) -> int:
        return self._peak(0)

    def passing_elements(self) -> int:
        return self._peak(self.inputs * self.resolution**2)

    def _peak(self, passed: int) -> int:
        """Most elements that live at once, `passed` of them the map where it is still needed afterwards."""
        image = self.inputs * self.resolution**2
        places = self.boxes * self.resolution**2
        logits, offsets = places * (self.classes + 1), places * COORDINATES
        pointwise = 2 * image + logits
        transposed = image + 2 * logits
        second = logits + max(2 * image, passed + image + offsets, passed + 2 * offsets)
        return max(pointwise, transposed, second, passed + 2 * (logits + offsets))


@register
@dataclasses.dataclass(frozen=True)
class SsdExtra(Projecting):
    """1x1 to half of `outputs`, depthwise 3x3 of stride 2, 1x1; each with BN and ReLU6."""

    kind: ClassVar[str] = "ssd.extra"
    examples: ClassVar[tuple[str, ...]] = ("ssd.extra(in=8,out=16)@5", "ssd.extra(in=16,out=32)@8")
    elastic: ClassVar[bool] = False
    of_task: ClassVar[bool] = True

    @property
    def out_resolution(self) -> int:
        return conv_out(self.resolution, 2)

    @property
    def middle(self) -> int:
        """Channels of the depthwise convolution."""
        return self.outputs // 2

    def params(self) -> int:
        convolutions = (self.inputs + 9 + self.outputs) * self.middle
        return convolutions + 2 * (2 * self.middle + self.outputs)

    def macs(self) -> Macs:
        reduce = self.inputs * self.middle * self.resolution**2
        macs = reduce + self.depthwise_macs() + self.middle * self.out_elements
        return Macs(macs, macs)

    def depthwise_macs(self) -> int:
        return 9 * self.middle * self.out_resolution**2

    def traffic_elements(self) -> int:
        before, after = self.resolution**2, self.out_resolution**2
        reduce_and_depthwise = (self.inputs + 2 * self.middle) * before + self.middle * after
        return reduce_and_depthwise + (self.middle + self.outputs) * after

    def live_elements(self) -> int:
        before, after = self.resolution**2, self.out_resolution**2
        reduce, halve = (self.inputs + self.middle) * before, self.middle * (before + after)
        return max(reduce, halve, (self.middle + self.outputs) * after)
