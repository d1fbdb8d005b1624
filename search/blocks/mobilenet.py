"""Convolutions, inverted residuals and classifiers of MobileNets, with SiLU or ReLU.

The blocks with ReLU are those of NAS-Bench-Macro (Su et al. 2021, "Prioritized Architecture Sampling with
Monto-Carlo Tree Search"): as many multiply-accumulates and parameters as with SiLU, other latencies.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from typing_extensions import override

from search.blocks.ops import OpList
from search.blocks.spec import Classifying, Projecting, make_divisible, param, register

ActivationName = Literal["silu", "relu", ""]
"""Activation after convolutions; "" for none."""

MBPOOL_EXPANSION = 6
"""Width of MBPool's 1x1 convolution over its input (AutoViT, Table 1)."""


@register
class Conv(Projecting):
    """k x k convolution without bias, BN, SiLU: the stem."""

    kind = "conv"
    examples = ("conv(in=3,out=8,k=3,s=2)@8", "conv(in=3,out=16,k=5,s=2)@8")
    activation: ClassVar[ActivationName] = "silu"

    kernel: int = param("k")
    stride: int = param("s")

    @override
    def add_ops(self, ops: OpList) -> None:
        ops.conv(ops.input, self.outputs, self.kernel, self.stride)


@register
class ReluConv(Conv):
    """k x k convolution without bias, BN, ReLU."""

    kind = "conv.relu"
    examples = ("conv.relu(in=3,out=8,k=3,s=1)@8", "conv.relu(in=3,out=16,k=3,s=1)@8")
    activation = "relu"


@register
class LinearConv(Conv):
    """k x k convolution without bias, BN, no activation: an identity that changes the shape."""

    kind = "conv.linear"
    examples = ("conv.linear(in=8,out=16,k=1,s=2)@8", "conv.linear(in=16,out=24,k=1,s=2)@8")
    activation = ""


@dataclasses.dataclass(frozen=True)
class PooledStem(Projecting):
    """Convolution of stride 2 with BN and an activation, then a 3x3 max pool of stride 2."""

    kernel: ClassVar[int]
    activation: ClassVar[ActivationName]

    @override
    def add_ops(self, ops: OpList) -> None:
        ops.pool(ops.conv(ops.input, self.outputs, self.kernel, 2), 3, 2)


@register
class MBConv(Projecting):
    """Inverted residual (Sandler et al. 2018; MBConv in AutoViT's Table 1).

    1x1 expansion (left out at expansion 1), k x k depthwise, 1x1 projection, each with BN, all but the
    projection with SiLU. The input is added if the stride is 1 and the widths agree.
    """

    kind = "mbconv"
    examples: ClassVar[tuple[str, ...]] = (
        "mbconv(in=8,out=16,k=3,e=1,s=2)@8",
        "mbconv(in=12,out=12,k=3,e=1,s=1)@8",
        "mbconv(in=8,out=16,k=3,e=2,s=1)@7",
        "mbconv(in=16,out=16,k=3,e=1,s=1)@8",
        "mbconv(in=16,out=16,k=5,e=4,s=1)@8",
    )
    activation: ClassVar[ActivationName] = "silu"

    kernel: int = param("k")
    expansion: int = param("e")
    stride: int = param("s")

    @property
    def middle(self) -> int:
        """Channels of the depthwise convolution: those of the input at expansion 1."""
        return make_divisible(self.expansion * self.inputs) if self.expansion > 1 else self.inputs

    @property
    @override
    def removable(self) -> bool:
        """Whether the input is added to the output."""
        return self.stride == 1 and self.inputs == self.outputs

    @override
    def add_ops(self, ops: OpList) -> None:
        y = ops.conv(ops.input, self.middle) if self.expansion > 1 else ops.input
        y = ops.conv(ops.depthwise(y, self.kernel, self.stride), self.outputs)
        if self.removable:
            ops.add(y, ops.input)


@register
class ReluMBConv(MBConv):
    """Inverted residual with ReLU after the first two convolutions."""

    kind = "mbconv.relu"
    examples = (
        "mbconv.relu(in=8,out=16,k=3,e=3,s=2)@8",
        "mbconv.relu(in=16,out=16,k=3,e=3,s=1)@8",
        "mbconv.relu(in=16,out=16,k=5,e=6,s=1)@8",
    )
    activation = "relu"


@register
class FcHead(Classifying):
    """Global average pool and a linear classifier with bias."""

    kind = "head.fc"
    examples = ("head.fc(in=8,classes=10)@3", "head.fc(in=16,classes=10)@4")

    @override
    def add_ops(self, ops: OpList) -> None:
        ops.linear(ops.mean(ops.input), self.classes)


@register
class ConvHead(Classifying):
    """1x1 convolution with BN and SiLU to `middle` channels, global average pool, linear classifier."""

    kind = "head.conv"
    examples: ClassVar[tuple[str, ...]] = (
        "head.conv(in=8,classes=10,mid=32)@3",
        "head.conv(in=16,classes=10,mid=64)@4",
    )
    activation: ClassVar[ActivationName] = "silu"

    middle: int = param("mid")

    @override
    def add_ops(self, ops: OpList) -> None:
        ops.linear(ops.mean(ops.conv(ops.input, self.middle)), self.classes)


@register
class ReluConvHead(ConvHead):
    """`head.conv` with ReLU."""

    kind = "head.conv.relu"
    examples = ("head.conv.relu(in=8,classes=10,mid=32)@3", "head.conv.relu(in=16,classes=10,mid=64)@4")
    activation = "relu"


@register
class MbPoolHead(Classifying):
    """MBPool of AutoViT: `head.conv` whose 1x1 convolution makes six times the width."""

    kind = "head.mbpool"
    examples = ("head.mbpool(in=8,classes=10)@3", "head.mbpool(in=16,classes=10)@4")

    @property
    def as_conv_head(self) -> ConvHead:
        """The same classifier with its width as a parameter."""
        return ConvHead(self.resolution, self.inputs, self.classes, MBPOOL_EXPANSION * self.inputs)

    @override
    def add_ops(self, ops: OpList) -> None:
        self.as_conv_head.add_ops(ops)
