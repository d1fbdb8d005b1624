"""Modules of ShuffleNetV2 (Ma et al. 2018) and ESPNetv2 (Mehta et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from search.blocks import BlockSpec
from search.blocks.efficient_cnns import (
    BRANCHES,
    REINFORCED,
    STRIDED_DILATIONS,
    Eesp,
    EspHead,
    EspTrunk,
    ShuffleUnit,
    dilations,
)
from search.networks.layers import Classifier, ConvBnAct
from search.networks.network import module_around, module_of


def shuffle_channels(x: Tensor, groups: int) -> Tensor:
    """Move channel g * C / groups + i of (B, C, H, W) to i * groups + g.

    One permutation to channels last, the order in which XNNPACK keeps maps.
    """
    batch, channels, height, width = x.shape
    x = x.permute(0, 2, 3, 1).reshape(batch * height * width, groups, channels // groups)
    return x.transpose(1, 2).reshape(batch, height, width, channels).permute(0, 3, 1, 2)


@module_of.register(ShuffleUnit)
class ShuffleUnitModule(nn.Module):
    """Two branches, concatenated and shuffled; at stride 1 the left one is half of the map as it is."""

    def __init__(self, spec: ShuffleUnit):
        super().__init__()
        self.splits, self.branch = spec.removable, spec.half
        inputs, half, stride = spec.inputs, spec.half, spec.stride
        if not spec.removable:
            self.left = nn.Sequential(
                ConvBnAct(inputs, inputs, 3, stride, groups=inputs, act=None),
                ConvBnAct(inputs, half, act=nn.ReLU()),
            )
        self.right = nn.Sequential(
            ConvBnAct(half if spec.removable else inputs, half, act=nn.ReLU()),
            ConvBnAct(half, half, 3, stride, groups=half, act=None),
            ConvBnAct(half, half, act=nn.ReLU()),
        )

    @override
    def forward(self, x: Tensor) -> Tensor:
        if self.splits:
            left, right = x[:, : self.branch], self.right(x[:, self.branch :])
        else:
            left, right = self.left(x), self.right(x)
        return shuffle_channels(torch.cat((left, right), 1), 2)


def conv_prelu(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> ConvBnAct:
    """Create convolution, BN, and PReLU with one slope a channel."""
    return ConvBnAct(inputs, outputs, kernel, stride, groups, act=nn.PReLU(outputs))


def halve(x: Tensor) -> Tensor:
    """Average 3x3 windows at stride 2, counting the zeros around the map.

    The map is padded first, because XNNPACK's pool counts no zeros.
    """
    return F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 2)


class Pyramid(nn.Module):
    """Reduce, dilated depthwise convolutions with hierarchical fusion, expand; no last activation.

    (B, inputs, H, W) -> (B, outputs, H / stride, W / stride). `largest_dilation` limits the dilations.
    """

    def __init__(self, inputs: int, outputs: int, largest_dilation: int, stride: int = 1):
        super().__init__()
        reduced = outputs // BRANCHES
        self.reduce = conv_prelu(inputs, reduced, groups=BRANCHES)
        self.branches = nn.ModuleList(
            nn.Conv2d(reduced, reduced, 3, stride, d, dilation=d, groups=reduced, bias=False)
            for d in dilations(largest_dilation)
        )
        self.fused = nn.Sequential(nn.BatchNorm2d(outputs), nn.PReLU(outputs))
        self.expand = ConvBnAct(outputs, outputs, groups=BRANCHES, act=None)

    @override
    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x)
        first, *others = self.branches
        sums = [first(x)]
        for branch in others:
            sums.append(branch(x) + sums[-1])
        return self.expand(self.fused(torch.cat(sums, 1)))


@module_of.register(Eesp)
class EespModule(nn.Module):
    """A pyramid of stride 1 with a residual, and PReLU: (B, C, H, W) to the same shape."""

    def __init__(self, spec: Eesp):
        super().__init__()
        self.pyramid = Pyramid(spec.channels, spec.channels, spec.largest_dilation)
        self.act = nn.PReLU(spec.channels)

    @override
    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.pyramid(x) + x)


class StridedEesp(nn.Module):
    """The pooled map and a pyramid of stride 2, concatenated, plus the image's features if given; PReLU.

    With `image_channels` = 0 it does not read the image.
    """

    def __init__(self, inputs: int, outputs: int, largest_dilation: int, image_channels: int):
        super().__init__()
        self.pyramid = Pyramid(inputs, outputs - inputs, largest_dilation, stride=2)
        if image_channels:
            self.reinforce = nn.Sequential(
                conv_prelu(image_channels, image_channels, 3),
                ConvBnAct(image_channels, outputs, act=None),
            )
        self.act = nn.PReLU(outputs)

    def forward(self, x: Tensor, image: Tensor | None) -> Tensor:
        """Return (B, C', H/2, W/2) for a map (B, C, H, W) and the image at (H/2, W/2)."""
        y = torch.cat((halve(x), self.pyramid(x)), 1)
        if image is not None:
            y = y + self.reinforce(image)
        return self.act(y)


@module_around.register(EspTrunk)
class EspTrunkModule(nn.Module):
    """(B, 3, H, W) -> (B, 8 c, H/32, W/32); an enclosed unit runs after the strided unit of its size."""

    def __init__(self, spec: EspTrunk, layers: Sequence[BlockSpec]):
        super().__init__()
        self.stem = conv_prelu(spec.inputs, spec.stem, 3, 2)
        before = (spec.stem, *spec.widths[:-1])
        self.strided = nn.ModuleList(
            StridedEesp(inputs, outputs, dilation, spec.inputs if level < REINFORCED else 0)
            for level, (inputs, outputs, dilation) in enumerate(
                zip(before, spec.widths, STRIDED_DILATIONS, strict=True)
            )
        )
        self.layers = nn.Sequential(*(module_of(layer) for layer in layers))
        self.of_level = [
            [index for index, layer in enumerate(layers) if layer.in_channels == width]
            for width in spec.widths
        ]

    @override
    def forward(self, x: Tensor) -> Tensor:
        image, x = halve(x), self.stem(x)
        for level, strided in enumerate(self.strided):
            reinforced = level < REINFORCED
            image = halve(image) if reinforced else image
            x = strided(x, image if reinforced else None)
            for index in self.of_level[level]:
                x = self.layers[index](x)
        return x


@module_of.register
def head(spec: EspHead) -> nn.Module:
    """Create the head: depthwise 3x3, grouped 1x1, classifier; (B, C, H, W) -> (B, classes)."""
    return nn.Sequential(
        conv_prelu(spec.inputs, spec.inputs, 3, groups=spec.inputs),
        conv_prelu(spec.inputs, spec.middle, groups=BRANCHES),
        Classifier(spec.middle, spec.classes, act=None),
    )
