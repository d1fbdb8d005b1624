"""Convolution, BN and activation in the combinations that the papers' figures draw."""

from __future__ import annotations

from torch import Tensor, nn

from search.blocks import Conv, FcHead, MBConv, MbPoolHead


class ConvBnAct(nn.Sequential):
    """Convolution without bias, BN, and SiLU unless `act` is false; padding keeps the map's side at stride 1."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: bool = True
    ):
        super().__init__()
        self.add_module(
            "conv", nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        )
        self.add_module("bn", nn.BatchNorm2d(outputs))
        if act:
            self.add_module("act", nn.SiLU())


def build_conv(spec: Conv) -> nn.Module:
    """The stem."""
    return ConvBnAct(spec.inputs, spec.outputs, spec.kernel, spec.stride)


class InvertedResidual(nn.Module):
    """MBConv: expand, depthwise, project; residual where shapes allow."""

    def __init__(self, spec: MBConv):
        super().__init__()
        self.residual = spec.residual
        self.expand = ConvBnAct(spec.inputs, spec.middle) if spec.expands else nn.Identity()
        self.depthwise = ConvBnAct(spec.middle, spec.middle, spec.kernel, spec.stride, groups=spec.middle)
        self.project = ConvBnAct(spec.middle, spec.outputs, act=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        out: Tensor = x + y if self.residual else y
        return out


class Classifier(nn.Module):
    """Global average pool and linear classifier, after MBPool's 1x1 convolution where there is one."""

    def __init__(self, spec: FcHead | MbPoolHead):
        super().__init__()
        width = spec.middle if isinstance(spec, MbPoolHead) else spec.inputs
        self.conv = ConvBnAct(spec.inputs, width) if isinstance(spec, MbPoolHead) else nn.Identity()
        self.fc = nn.Linear(width, spec.classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.conv(x).mean((2, 3), keepdim=True).flatten(1))
        return logits
