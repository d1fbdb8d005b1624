"""ShuffleNetV2's unit (Ma et al. 2018, figure 3 c and d)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from search.blocks.shufflenet import ShuffleHead, ShuffleStem, ShuffleUnit
from search.networks.layers import Classifier, ConvBnAct
from search.networks.module import module_of


def shuffle_channels(x: Tensor, groups: int) -> Tensor:
    """(B, C, H, W) to the same shape: channel g * C / groups + i goes to i * groups + g.

    One permutation to channels last, the order in which XNNPACK keeps maps.
    """
    batch, channels, height, width = x.shape
    x = x.permute(0, 2, 3, 1).reshape(batch * height * width, groups, channels // groups)
    return x.transpose(1, 2).reshape(batch, height, width, channels).permute(0, 3, 1, 2)


class ShuffleUnitModule(nn.Module):
    """Two branches, concatenated and shuffled; at stride 1 the left one is half of the map as it is."""

    def __init__(self, spec: ShuffleUnit):
        super().__init__()
        self.splits, self.branch = spec.splits, spec.half
        inputs, half, stride = spec.inputs, spec.half, spec.stride
        if not spec.splits:
            self.left = nn.Sequential(
                ConvBnAct(inputs, inputs, 3, stride, groups=inputs, act=False),
                ConvBnAct(inputs, half, act=nn.ReLU()),
            )
        self.right = nn.Sequential(
            ConvBnAct(half if spec.splits else inputs, half, act=nn.ReLU()),
            ConvBnAct(half, half, 3, stride, groups=half, act=False),
            ConvBnAct(half, half, act=nn.ReLU()),
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.splits:
            left, right = x[:, : self.branch], self.right(x[:, self.branch :])
        else:
            left, right = self.left(x), self.right(x)
        return shuffle_channels(torch.cat((left, right), 1), 2)


def stem(spec: ShuffleStem) -> nn.Sequential:
    """(B, inputs, H, W) -> (B, outputs, H / 4, W / 4): convolution with BN and ReLU, pool."""
    conv = ConvBnAct(spec.inputs, spec.outputs, spec.kernel, 2, act=nn.ReLU())
    return nn.Sequential(conv, nn.MaxPool2d(3, 2, padding=1))


module_of.register(ShuffleStem, stem)
module_of.register(ShuffleUnit, ShuffleUnitModule)
module_of.register(ShuffleHead, lambda spec: Classifier(spec.inputs, spec.classes, spec.middle, nn.ReLU()))
