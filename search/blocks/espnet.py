"""ESPNetv2 (Mehta et al. 2019): a trunk that downsamples beside the image, EESP units inside of it, head."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from search.blocks.head import WideHead
from search.blocks.registry import register
from search.blocks.shapes import ChannelKeeping
from search.blocks.spec import BlockSpec, EnclosingSpec, Macs, conv_out, param

BRANCHES = 4
"""Dilated convolutions side by side, and groups of the 1x1 convolutions: K of table 1."""

LEVELS = 4
"""Strided units."""

REINFORCED = 3
"""Of the strided units, the first ones, which see the image: the authors' last one does not."""

STRIDED_DILATIONS = (4, 4, 4, 3)
"""Largest dilation of each strided unit: receptive fields of 13, 11, 9 and 7, no more than four branches reach."""


def dilations(largest: int) -> tuple[int, ...]:
    """Of the branches: 1, 2, 3, 4; those above the largest fall back to 1, and all are sorted (section 3.1)."""
    return tuple(sorted(d if d <= largest else 1 for d in range(1, BRANCHES + 1)))


@register
@dataclasses.dataclass(frozen=True)
class Eesp(ChannelKeeping):
    """Extremely efficient spatial pyramid (figure 1 c): grouped 1x1 to a quarter of the width, four dilated
    depthwise 3x3, each with the sum of those before it added, concatenation, grouped 1x1, residual; PReLU."""

    kind: ClassVar[str] = "espnet.eesp"
    examples: ClassVar[tuple[str, ...]] = ("espnet.eesp(c=16,dil=2)@5", "espnet.eesp(c=16,dil=4)@9")
    enclosed_by: ClassVar[str] = "espnet.trunk"
    elastic: ClassVar[bool] = False

    largest_dilation: int = param("dil")

    @property
    def removable(self) -> bool:
        return True

    def params(self) -> int:
        return eesp_params(self.channels, self.channels) + self.channels

    def macs(self) -> Macs:
        macs = eesp_macs(self.channels, self.channels, self.resolution, self.resolution)
        return Macs(macs, macs)

    def depthwise_macs(self) -> int:
        return 9 * self.out_elements

    def traffic_elements(self) -> int:
        return (
            eesp_traffic(self.channels, self.channels, self.resolution, self.resolution)
            + 5 * self.out_elements
        )

    def live_elements(self) -> int:
        reduced = self.out_elements // BRANCHES
        branches = self.out_elements + (BRANCHES + 2) * reduced
        return max(branches, 3 * self.out_elements)


def eesp_params(inputs: int, outputs: int) -> int:
    """Of a pyramid without its last PReLU: two grouped 1x1, four 3x3, three BN, PReLU after the first two."""
    reduced = outputs // BRANCHES
    convolutions = inputs * reduced // BRANCHES + 9 * outputs + outputs * outputs // BRANCHES
    return convolutions + 3 * reduced + 3 * outputs + 2 * outputs


def eesp_macs(inputs: int, outputs: int, resolution: int, out_resolution: int) -> int:
    """Of a pyramid."""
    reduce = inputs * outputs // BRANCHES**2 * resolution**2
    return reduce + (9 * outputs + outputs * outputs // BRANCHES) * out_resolution**2


def eesp_traffic(inputs: int, outputs: int, resolution: int, out_resolution: int) -> int:
    """Elements read and written by a pyramid without its residual and last PReLU."""
    reduced = outputs // BRANCHES
    reduce = (inputs + reduced) * resolution**2
    branches = BRANCHES * reduced * resolution**2 + outputs * out_resolution**2
    sums = 3 * (BRANCHES - 1) * reduced * out_resolution**2
    concat_norm_and_expand = 6 * outputs * out_resolution**2
    return reduce + branches + sums + concat_norm_and_expand


@register
@dataclasses.dataclass(frozen=True)
class EspTrunk(EnclosingSpec):
    """Stem and four strided EESP units (figure 2), the EESP units of each level inside of it.

    A strided unit concatenates the average-pooled map and a pyramid of stride 2; to the first three of them the
    image is added, pooled to their size and through two convolutions. Widths: `stem`, then `c`, 2 c, 4 c, 8 c.
    """

    kind: ClassVar[str] = "espnet.trunk"
    examples: ClassVar[tuple[str, ...]] = ("espnet.trunk(in=3,stem=16,c=32)@64",)
    elastic: ClassVar[bool] = False

    inputs: int = param("in")
    stem: int = param("stem")
    width: int = param("c")

    @property
    def in_channels(self) -> int:
        return self.inputs

    @property
    def out_channels(self) -> int:
        return self.widths[-1]

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels after each strided unit."""
        return tuple(self.width << level for level in range(LEVELS))

    @property
    def sides(self) -> tuple[int, ...]:
        """Side of the map after the stem and after each strided unit."""
        sides = [conv_out(self.resolution, 2)]
        for _ in range(LEVELS):
            sides.append(conv_out(sides[-1], 2))
        return tuple(sides)

    @property
    def out_resolution(self) -> int:
        return self.sides[-1]

    def _strided(self) -> list[tuple[int, int, int, int]]:
        """Inputs, outputs, side before and after of each strided unit."""
        before = (self.stem, *self.widths[:-1])
        return list(zip(before, self.widths, self.sides[:-1], self.sides[1:], strict=True))

    def params(self) -> int:
        image = self.inputs
        total = 9 * image * self.stem + 3 * self.stem
        for level, (inputs, outputs, _, _) in enumerate(self._strided()):
            total += eesp_params(inputs, outputs - inputs) + outputs
            if level < REINFORCED:
                total += 9 * image * image + 3 * image + image * outputs + 2 * outputs
        return total

    def macs(self) -> Macs:
        image = self.inputs
        total = 9 * image * self.stem * self.sides[0] ** 2
        for level, (inputs, outputs, before, after) in enumerate(self._strided()):
            total += eesp_macs(inputs, outputs - inputs, before, after)
            if level < REINFORCED:
                total += (9 * image * image + image * outputs) * after**2
        return Macs(total, total)

    def depthwise_macs(self) -> int:
        return sum(9 * (outputs - inputs) * after**2 for inputs, outputs, _, after in self._strided())

    def traffic_elements(self) -> int:
        image = self.inputs
        total = image * self.resolution**2 + 3 * self.stem * self.sides[0] ** 2
        total += image * (self.resolution**2 + self.sides[0] ** 2)
        for level, (inputs, outputs, before, after) in enumerate(self._strided()):
            total += eesp_traffic(inputs, outputs - inputs, before, after)
            total += inputs * (before**2 + after**2) + (2 + 2) * outputs * after**2
            if level < REINFORCED:
                total += image * (before**2 + 5 * after**2) + 4 * outputs * after**2
        return total

    def live_elements(self) -> int:
        image, half = self.inputs, self.inputs * self.sides[0] ** 2
        whole = image * self.resolution**2
        peaks = [
            whole + image * (self.resolution + 2) ** 2 + half,
            whole + half + self.stem * self.sides[0] ** 2,
        ]
        for level, (inputs, outputs, before, after) in enumerate(self._strided()):
            source, pooled = inputs * before**2, inputs * after**2
            kept = image * after**2 if level < REINFORCED else 0
            if kept:
                peaks.append(source + image * (before**2 + (before + 2) ** 2) + kept)
            reduced = (outputs - inputs) // BRANCHES
            peaks.append(kept + source + inputs * (before + 2) ** 2 + pooled)
            peaks.append(kept + source + pooled + reduced * before**2)
            branches = reduced * before**2 + (BRANCHES + 1) * reduced * after**2
            peaks.append(kept + pooled + branches)
            peaks.append(kept + 2 * outputs * after**2)
            if kept:
                still_kept = kept if level + 1 < REINFORCED else 0
                peaks.append(still_kept + 3 * outputs * after**2)
        return max(peaks)

    def held_elements(self) -> int:
        """The pooled image at the first level with units inside."""
        return self.inputs * self.sides[2] ** 2

    def encloses(self, other: BlockSpec) -> bool:
        return isinstance(other, Eesp) and (other.channels, other.resolution) in zip(
            self.widths, self.sides[1:], strict=True
        )


@register
@dataclasses.dataclass(frozen=True)
class EspHead(WideHead):
    """Depthwise 3x3 and grouped 1x1 convolution, each with BN and PReLU, global average pool, classifier."""

    kind: ClassVar[str] = "head.espnet"
    examples: ClassVar[tuple[str, ...]] = ("head.espnet(in=16,classes=10,mid=32)@3",)
    elastic: ClassVar[bool] = False

    width: int = param("mid")

    @property
    def middle(self) -> int:
        return self.width

    def params(self) -> int:
        convolutions = 9 * self.inputs + self.inputs * self.middle // BRANCHES
        return convolutions + 3 * (self.inputs + self.middle) + self.middle * self.classes + self.classes

    def macs(self) -> Macs:
        per_pixel = 9 * self.inputs + self.inputs * self.middle // BRANCHES
        macs = per_pixel * self.resolution**2 + self.middle * self.classes
        return Macs(macs, macs)

    def depthwise_macs(self) -> int:
        return 9 * self.inputs * self.resolution**2

    def traffic_elements(self) -> int:
        return super().traffic_elements() + 2 * self.inputs * self.resolution**2

    def live_elements(self) -> int:
        return max(super().live_elements(), 2 * self.inputs * self.resolution**2)
