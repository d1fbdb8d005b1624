"""Layers that blocks are made of, in the combinations that the papers' figures draw."""

from __future__ import annotations

from torch import Tensor, nn


class ConvBnAct(nn.Sequential):
    """Convolution without bias, BN, and an activation: SiLU if `act` is true, none if it is false.

    Padding keeps the map's side at stride 1.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        act: bool | nn.Module = True,
    ):
        super().__init__()
        self.add_module(
            "conv", nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        )
        self.add_module("bn", nn.BatchNorm2d(outputs))
        if act:
            self.add_module("act", nn.SiLU() if act is True else act)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each pixel: (B, C, H, W) to the same."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Residual(nn.Sequential):
    """Its parts one after the other, and the input added to what they give."""

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for part in self:
            y = part(y)
        return x + y


class Classifier(nn.Module):
    """Global average pool and linear classifier; before them a 1x1 convolution to `middle` channels, if given."""

    def __init__(self, inputs: int, classes: int, middle: int | None = None, act: bool | nn.Module = True):
        super().__init__()
        self.conv = ConvBnAct(inputs, middle, act=act) if middle else nn.Identity()
        self.fc = nn.Linear(middle or inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.conv(x).mean((2, 3), keepdim=True).flatten(1))
        return logits
