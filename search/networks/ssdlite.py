"""SSDLite's predictors and extra maps, layer by layer those of torchvision's SSDLite320."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from search.blocks.ssdlite import COORDINATES, SsdExtra, SsdPredict
from search.networks.layers import ConvBnAct
from search.networks.module import module_of

BN_EPS, BN_MOMENTUM = 1e-3, 0.03
"""As SSDLite320 was trained with (torchvision)."""

INITIAL_STD = 0.03
"""Of the weights of all convolutions of the head (torchvision)."""


def conv_relu6(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> ConvBnAct:
    """Convolution, BN, ReLU6."""
    layer = ConvBnAct(inputs, outputs, kernel, stride, groups, nn.ReLU6())
    norm = layer.get_submodule("bn")
    assert isinstance(norm, nn.BatchNorm2d)
    norm.eps, norm.momentum = BN_EPS, BN_MOMENTUM
    return layer


def predictor(inputs: int, outputs: int) -> nn.Sequential:
    """(B, inputs, H, W) -> (B, outputs, H, W): separable 3x3, its 1x1 with bias."""
    return nn.Sequential(conv_relu6(inputs, inputs, 3, groups=inputs), nn.Conv2d(inputs, outputs, 1))


def _initialised(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=INITIAL_STD)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class Predict(nn.Module):
    """(B, C, H, W) -> (B, H * W * boxes, classes + 1 + 4), place by place, row by row."""

    def __init__(self, spec: SsdPredict):
        super().__init__()
        self.scores = spec.classes + 1
        self.logits = predictor(spec.inputs, spec.boxes * self.scores)
        self.offsets = predictor(spec.inputs, spec.boxes * COORDINATES)
        _initialised(self)

    def forward(self, x: Tensor) -> Tensor:
        logits = by_place(self.logits(x), self.scores)
        return torch.cat((logits, by_place(self.offsets(x), COORDINATES)), 2)


def by_place(x: Tensor, values: int) -> Tensor:
    """(B, boxes * values, H, W) -> (B, H * W * boxes, values)."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, values)


class Extra(nn.Sequential):
    """(B, C, H, W) -> (B, outputs, H / 2, W / 2), rounded up."""

    def __init__(self, spec: SsdExtra):
        middle = spec.middle
        super().__init__(
            conv_relu6(spec.inputs, middle),
            conv_relu6(middle, middle, 3, 2, groups=middle),
            conv_relu6(middle, spec.outputs),
        )
        _initialised(self)


module_of.register(SsdPredict, Predict)
module_of.register(SsdExtra, Extra)
