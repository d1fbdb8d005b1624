"""Convolutional networks of AutoViT's Table 2: ShuffleNetV2 (Ma et al. 2018) and ESPNetv2 (Mehta et al. 2019)."""

from __future__ import annotations

from typing_extensions import override

from search.blocks.mobilenet import ConvHead, PooledStem, ReluConvHead
from search.blocks.ops import Activation, OpList
from search.blocks.spec import BlockSpec, ChannelKeeping, EnclosingSpec, Projecting, conv_out, param, register

BRANCHES = 4
"""Dilated convolutions side by side in ESPNetv2, and groups of its 1x1 convolutions: K of table 1."""

LEVELS = 4
"""Strided units of ESPNetv2."""

REINFORCED = 3
"""Number of strided units, from the first, that read the image; the authors' last one does not."""

STRIDED_DILATIONS = (4, 4, 4, 3)
"""Largest dilation of each strided unit: receptive fields of 13, 11, 9 and 7, the most that four branches reach."""


@register
class ShuffleStem(PooledStem):
    """3x3 convolution of stride 2 with BN and ReLU, 3x3 max pool of stride 2 (Conv1 and MaxPool of table 5)."""

    kind = "shufflenet.stem"
    examples = ("shufflenet.stem(in=3,out=4)@9", "shufflenet.stem(in=3,out=8)@16")
    kernel = 3
    activation = "relu"


@register
class ShuffleUnit(Projecting):
    """ShuffleNetV2's unit (figure 3 c and d): two branches, concatenated, and their channels shuffled.

    At stride 1 the map is split: one half stays as it is, the other goes through 1x1, depthwise 3x3 and 1x1.
    At stride 2 both branches read the whole map; the first is a depthwise 3x3 and a 1x1. Every convolution
    has BN, every 1x1 ReLU. Not elastic, because the shuffle mixes which channels come first.
    """

    kind = "shufflenet.unit"
    examples = ("shufflenet.unit(in=6,out=16,s=2)@7", "shufflenet.unit(in=8,out=8,s=1)@7")
    elastic = False

    stride: int = param("s")

    @property
    def half(self) -> int:
        """Channels of a branch."""
        return self.outputs // 2

    @property
    @override
    def removable(self) -> bool:
        """Whether half of the map stays as it is."""
        return self.stride == 1

    @override
    def add_ops(self, ops: OpList) -> None:
        left = right = ops.input
        if self.removable:
            left = right = left.view(1, self.half, self.resolution, self.resolution)
        else:
            left = ops.conv(ops.depthwise(left, 3, self.stride), self.half)
        right = ops.conv(ops.depthwise(ops.conv(right, self.half), 3, self.stride), self.half)
        ops.copy(ops.concat(left, right))


@register
class ShuffleHead(ReluConvHead):
    """Conv5 of table 5 and the classifier."""

    kind = "head.shufflenet"
    examples = ("head.shufflenet(in=8,classes=10,mid=32)@3", "head.shufflenet(in=16,classes=10,mid=64)@4")


def dilations(largest: int) -> tuple[int, ...]:
    """Return the branches' dilations: 1 to 4, those above the largest replaced by 1, sorted (section 3.1)."""
    return tuple(sorted(d if d <= largest else 1 for d in range(1, BRANCHES + 1)))


def _pyramid(ops: OpList, x: Activation, outputs: int, largest_dilation: int, stride: int = 1) -> Activation:
    """Append an extremely efficient spatial pyramid (figure 1 c) without its residual and last PReLU."""
    reduced = outputs // BRANCHES
    x = ops.in_place(ops.conv(x, reduced, groups=BRANCHES), params=reduced)
    sums: list[Activation] = []
    for dilation in dilations(largest_dilation):
        branch = ops.conv(x, reduced, 3, stride, reduced, dilation, norm=False)
        sums.append(ops.add(branch, sums[-1]) if sums else branch)
    y = ops.concat(*sums)
    y = ops.in_place(y, params=3 * outputs, traffic=2 * y.elements)  # BN and PReLU
    return ops.conv(y, outputs, groups=BRANCHES)


def _halve(ops: OpList, x: Activation) -> Activation:
    """Append a 3x3 mean of stride 2 over a padded copy, because XNNPACK's pool counts no zeros around a map."""
    channels, side = x.shape[1:3]
    padded = ops.copy(x, 1, channels, side + 2, side + 2, traffic=0)
    return ops.pool(padded.view(*x.shape), 3, 2)


@register
class Eesp(ChannelKeeping):
    """ESPNetv2's EESP unit (figure 1 c).

    Grouped 1x1 to a quarter of the width, four dilated depthwise 3x3, each with the sum of those before it
    added, concatenation, grouped 1x1, residual; PReLU.
    """

    kind = "espnet.eesp"
    examples = ("espnet.eesp(c=16,dil=2)@5", "espnet.eesp(c=16,dil=4)@9")
    enclosed_by = "espnet.trunk"
    elastic = False
    removable = True

    largest_dilation: int = param("dil")

    @override
    def add_ops(self, ops: OpList) -> None:
        y = ops.add(_pyramid(ops, ops.input, self.channels, self.largest_dilation), ops.input)
        ops.in_place(y, params=self.channels, traffic=2 * y.elements)


@register
class EspTrunk(EnclosingSpec):
    """ESPNetv2's stem and four strided EESP units (figure 2); it runs the EESP units of each level.

    A strided unit concatenates the average-pooled map and a pyramid of stride 2. The image, pooled to their
    size and through two convolutions, is added to the first three. Widths: `stem`, then `c`, 2 c, 4 c, 8 c.
    """

    kind = "espnet.trunk"
    examples = ("espnet.trunk(in=3,stem=16,c=32)@64",)
    elastic = False

    inputs: int = param("in")
    stem: int = param("stem")
    width: int = param("c")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels after each strided unit."""
        return tuple(self.width << level for level in range(LEVELS))

    @property
    def sides(self) -> tuple[int, ...]:
        """Side of the map in pixels after the stem and after each strided unit."""
        sides = [conv_out(self.resolution, 2)]
        for _ in range(LEVELS):
            sides.append(conv_out(sides[-1], 2))
        return tuple(sides)

    @override
    def add_ops(self, ops: OpList) -> None:
        image = _halve(ops, ops.input)
        x = ops.conv(ops.input, self.stem, 3, 2)
        x = ops.in_place(x, params=self.stem, traffic=2 * x.elements)
        for level, width in enumerate(self.widths):
            reinforced = level < REINFORCED
            image = _halve(ops, image) if reinforced else image
            pooled = _halve(ops, x)
            pyramid = _pyramid(ops, x, width - x.shape[1], STRIDED_DILATIONS[level], stride=2)
            x = ops.concat(pooled, pyramid)
            if reinforced:
                features = ops.conv(image, image.shape[1], 3)
                features = ops.in_place(features, params=image.shape[1], traffic=image.elements)
                x = ops.add(x, ops.conv(features, width))
            x = ops.in_place(x, params=width, traffic=2 * x.elements)

    @override
    def surrounding_elements(self) -> int:
        """Return the elements of the pooled image at the first level with units inside."""
        return self.inputs * self.sides[2] ** 2

    @override
    def encloses(self, other: BlockSpec) -> bool:
        return isinstance(other, Eesp) and (other.channels, other.resolution) in zip(
            self.widths, self.sides[1:], strict=True
        )


@register
class EspHead(ConvHead):
    """Depthwise 3x3 and grouped 1x1 convolution, each with BN and PReLU, global average pool, classifier."""

    kind = "head.espnet"
    examples = ("head.espnet(in=16,classes=10,mid=32)@3",)
    elastic = False

    @override
    def add_ops(self, ops: OpList) -> None:
        y = ops.in_place(ops.depthwise(ops.input, 3), params=self.inputs)
        y = ops.in_place(ops.conv(y, self.middle, groups=BRANCHES), params=self.middle)
        ops.linear(ops.mean(y), self.classes)
