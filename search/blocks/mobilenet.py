"""Convolutions, inverted residuals and classifiers of MobileNets, with SiLU or ReLU.

The blocks with ReLU are those of NAS-Bench-Macro (Su et al. 2021, "Prioritized Architecture Sampling with
Monto-Carlo Tree Search"): as many multiply-accumulates and parameters as with SiLU, other latencies.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from typing import ClassVar

from typing_extensions import override

from search.blocks.ops import OpList
from search.blocks.registry import register
from search.blocks.spec import Classifying, Projecting, make_divisible, param

MBPOOL_EXPANSION = 6
"""Width of MBPool's 1x1 convolution over its input (AutoViT, Table 1)."""


@register
@dataclasses.dataclass(frozen=True)
class Conv(Projecting):
    """k x k convolution without bias, BN, SiLU: the stem."""

    kind: ClassVar[str] = "conv"
    examples: ClassVar[tuple[str, ...]] = ("conv(in=3,out=8,k=3,s=2)@8", "conv(in=3,out=16,k=5,s=2)@8")

    kernel: int = param("k")
    stride: int = param("s")

    @override
    def ops(self) -> OpList:
        ops = OpList(self.input_shape)
        ops.conv(ops.input, self.outputs, self.kernel, self.stride)
        return ops


@register
@dataclasses.dataclass(frozen=True)
class ReluConv(Conv):
    """k x k convolution without bias, BN, ReLU."""

    kind: ClassVar[str] = "conv.relu"
    examples: ClassVar[tuple[str, ...]] = (
        "conv.relu(in=3,out=8,k=3,s=1)@8",
        "conv.relu(in=3,out=16,k=3,s=1)@8",
    )


@register
@dataclasses.dataclass(frozen=True)
class LinearConv(Conv):
    """k x k convolution without bias, BN, no activation: an identity that changes the shape."""

    kind: ClassVar[str] = "conv.linear"
    examples: ClassVar[tuple[str, ...]] = (
        "conv.linear(in=8,out=16,k=1,s=2)@8",
        "conv.linear(in=16,out=24,k=1,s=2)@8",
    )


@dataclasses.dataclass(frozen=True)
class PooledStem(Projecting):
    """Convolution of stride 2 with BN, then a 3x3 max pool of stride 2."""

    kernel: ClassVar[int]

    @override
    def ops(self) -> OpList:
        ops = OpList(self.input_shape)
        ops.pool(ops.conv(ops.input, self.outputs, self.kernel, 2), 3, 2)
        return ops


@register
@dataclasses.dataclass(frozen=True)
class MBConv(Projecting):
    """Inverted residual (Sandler et al. 2018; MBConv in AutoViT's Table 1).

    1x1 expansion (left out at expansion 1), k x k depthwise, 1x1 projection, each with BN, all but the
    projection with SiLU. The input is added if the stride is 1 and the widths agree.
    """

    kind: ClassVar[str] = "mbconv"
    examples: ClassVar[tuple[str, ...]] = (
        "mbconv(in=8,out=16,k=3,e=1,s=2)@8",
        "mbconv(in=8,out=16,k=3,e=2,s=1)@7",
        "mbconv(in=16,out=16,k=3,e=1,s=1)@8",
        "mbconv(in=16,out=16,k=5,e=4,s=1)@8",
    )

    kernel: int = param("k")
    expansion: int = param("e")
    stride: int = param("s")

    @property
    def middle(self) -> int:
        """Channels of the depthwise convolution."""
        return make_divisible(self.expansion * self.inputs)

    @property
    def expands(self) -> bool:
        """Whether there is a 1x1 expansion."""
        return self.expansion != 1

    @property
    def residual(self) -> bool:
        """Whether the input is added to the output."""
        return self.stride == 1 and self.inputs == self.outputs

    @property
    @override
    def removable(self) -> bool:
        return self.residual

    @override
    def ops(self) -> OpList:
        ops = OpList(self.input_shape)
        x = ops.input
        y = ops.conv(x, self.middle) if self.expands else x
        y = ops.conv(ops.depthwise(y, self.kernel, self.stride), self.outputs)
        if self.residual:
            ops.add(y, x)
        return ops


@register
@dataclasses.dataclass(frozen=True)
class ReluMBConv(MBConv):
    """Inverted residual with ReLU after the first two convolutions."""

    kind: ClassVar[str] = "mbconv.relu"
    examples: ClassVar[tuple[str, ...]] = (
        "mbconv.relu(in=8,out=16,k=3,e=3,s=2)@8",
        "mbconv.relu(in=16,out=16,k=3,e=3,s=1)@8",
        "mbconv.relu(in=16,out=16,k=5,e=6,s=1)@8",
    )


@register
@dataclasses.dataclass(frozen=True)
class FcHead(Classifying):
    """Global average pool and a linear classifier with bias."""

    kind: ClassVar[str] = "head.fc"
    examples: ClassVar[tuple[str, ...]] = ("head.fc(in=8,classes=10)@3", "head.fc(in=16,classes=10)@4")

    @override
    def ops(self) -> OpList:
        ops = OpList(self.input_shape)
        ops.linear(ops.mean(ops.input), self.classes)
        return ops


@dataclasses.dataclass(frozen=True)
class WideHead(Classifying):
    """1x1 convolution with BN and an activation, SiLU by default, global average pool, linear classifier."""

    @property
    @abstractmethod
    def middle(self) -> int:
        """Channels of the 1x1 convolution."""

    @override
    def ops(self) -> OpList:
        ops = OpList(self.input_shape)
        ops.linear(ops.mean(ops.conv(ops.input, self.middle)), self.classes)
        return ops


@register
@dataclasses.dataclass(frozen=True)
class MbPoolHead(WideHead):
    """MBPool of AutoViT: its 1x1 convolution makes six times the width."""

    kind: ClassVar[str] = "head.mbpool"
    examples: ClassVar[tuple[str, ...]] = (
        "head.mbpool(in=8,classes=10)@3",
        "head.mbpool(in=16,classes=10)@4",
    )

    @property
    @override
    def middle(self) -> int:
        return MBPOOL_EXPANSION * self.inputs


@register
@dataclasses.dataclass(frozen=True)
class ConvHead(WideHead):
    """The head of MobileNet and MobileViT: the width of its 1x1 convolution is a parameter."""

    kind: ClassVar[str] = "head.conv"
    examples: ClassVar[tuple[str, ...]] = (
        "head.conv(in=8,classes=10,mid=32)@3",
        "head.conv(in=16,classes=10,mid=64)@4",
    )

    width: int = param("mid")

    @property
    @override
    def middle(self) -> int:
        return self.width


@register
@dataclasses.dataclass(frozen=True)
class ReluConvHead(ConvHead):
    """`head.conv` with ReLU."""

    kind: ClassVar[str] = "head.conv.relu"
    examples: ClassVar[tuple[str, ...]] = (
        "head.conv.relu(in=8,classes=10,mid=32)@3",
        "head.conv.relu(in=16,classes=10,mid=64)@4",
    )
