"""Modules of DeepLabv3's heads and of SSDLite.

DeepLabv3: image pooling is added instead of concatenated. With the joining convolution cut in two the sum is
the same, and nothing is resized to the map's side. `of_pooled` has the last `mid` inputs of torchvision's
weights. SSDLite: layer by layer torchvision's SSDLite320.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import override

from search.blocks.task_heads import COORDINATES, DeepLabLite, SsdExtra, SsdPredict
from search.networks.layers import ConvBnAct
from search.networks.network import module_of

LITE_DROPOUT, DROPOUT = 0.1, 0.5
"""Dropout before the classifier: MobileViT's of the lite head, torchvision's of the whole one."""


def conv_relu(inputs: int, outputs: int) -> ConvBnAct:
    """Create 1x1 convolution, BN, ReLU."""
    return ConvBnAct(inputs, outputs, act=nn.ReLU())


def atrous(inputs: int, outputs: int, rate: int) -> nn.Sequential:
    """Create 3x3 convolution with a dilation, BN, ReLU; the map keeps its size."""
    conv = nn.Conv2d(inputs, outputs, 3, padding=rate, dilation=rate, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class Join(nn.Module):
    """1x1 convolution of the branches, sum with the pooled image, BN, ReLU, dropout."""

    def __init__(self, inputs: int, outputs: int, dropout: float):
        super().__init__()
        self.of_map = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.of_pooled = nn.Conv2d(outputs, outputs, 1, bias=False)
        self.rest = nn.Sequential(nn.BatchNorm2d(outputs), nn.ReLU(), nn.Dropout(dropout))

    def forward(self, x: Tensor, pooled: Tensor) -> Tensor:
        """Return (B, outputs, H, W) for branches (B, inputs, H, W) and pooled (B, outputs, 1, 1)."""
        return self.rest(self.of_map(x) + pooled)


@module_of.register(DeepLabLite)
class DeepLabHead(nn.Module):
    """(B, C, H, W) -> (B, classes + 1, H, W), with or without atrous branches."""

    def __init__(self, spec: DeepLabLite):
        super().__init__()
        mid, rates = spec.middle, spec.rates
        self.local = conv_relu(spec.inputs, mid)
        self.atrous = nn.ModuleList(atrous(spec.inputs, mid, rate) for rate in rates)
        self.pool = conv_relu(spec.inputs, mid)
        self.join = Join((1 + len(rates)) * mid, mid, DROPOUT if rates else LITE_DROPOUT)
        last = [atrous(mid, mid, 1)] if rates else []
        classifier = nn.Conv2d(mid, spec.out_channels, 1)
        self.classifier = nn.Sequential(*last, classifier) if rates else classifier

    @override
    def forward(self, x: Tensor) -> Tensor:
        pooled = self.join.of_pooled(self.pool(x.mean((2, 3), keepdim=True)))
        branches = [self.local(x), *(branch(x) for branch in self.atrous)]
        joined = self.join(torch.cat(branches, 1) if len(branches) > 1 else branches[0], pooled)
        return self.classifier(joined)


BN_EPS, BN_MOMENTUM = 1e-3, 0.03
"""BN of torchvision's SSDLite320."""

INITIAL_STD = 0.03
"""Standard deviation of the head's initial weights (torchvision)."""


def conv_relu6(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> ConvBnAct:
    """Create convolution, BN, ReLU6."""
    layer = ConvBnAct(inputs, outputs, kernel, stride, groups, act=nn.ReLU6())
    norm = layer.get_submodule("bn")
    assert isinstance(norm, nn.BatchNorm2d)
    norm.eps, norm.momentum = BN_EPS, BN_MOMENTUM
    return layer


def predictor(inputs: int, outputs: int) -> nn.Sequential:
    """Create a separable 3x3 convolution with bias in its 1x1: (B, inputs, H, W) -> (B, outputs, H, W)."""
    return nn.Sequential(conv_relu6(inputs, inputs, 3, groups=inputs), nn.Conv2d(inputs, outputs, 1))


def _initialised(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=INITIAL_STD)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


@module_of.register(SsdPredict)
class Predict(nn.Module):
    """(B, C, H, W) -> (B, H * W * boxes, classes + 1 + 4), row by row, all boxes of a pixel together."""

    def __init__(self, spec: SsdPredict):
        super().__init__()
        self.scores = spec.classes + 1
        self.logits = predictor(spec.inputs, spec.boxes * self.scores)
        self.offsets = predictor(spec.inputs, spec.boxes * COORDINATES)
        _initialised(self)

    @override
    def forward(self, x: Tensor) -> Tensor:
        logits = by_place(self.logits(x), self.scores)
        return torch.cat((logits, by_place(self.offsets(x), COORDINATES)), 2)


def by_place(x: Tensor, values: int) -> Tensor:
    """Return (B, boxes * values, H, W) as (B, H * W * boxes, values)."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, values)


@module_of.register(SsdExtra)
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
