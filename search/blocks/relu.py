"""Convolutions, inverted residuals and a classifier with ReLU, as the networks of NAS-Bench-Macro have them.

Su et al., "Prioritized Architecture Sampling with Monto-Carlo Tree Search", CVPR 2021. They cost what those with
SiLU do in multiply-accumulates and parameters; a phone's milliseconds differ.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from search.blocks.conv import Conv
from search.blocks.head import ConvHead
from search.blocks.mbconv import MBConv
from search.blocks.registry import register


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
    """k x k convolution without bias, BN, no activation: what an identity is that must change shape."""

    kind: ClassVar[str] = "conv.linear"
    examples: ClassVar[tuple[str, ...]] = (
        "conv.linear(in=8,out=16,k=1,s=2)@8",
        "conv.linear(in=16,out=24,k=1,s=2)@8",
    )


@register
@dataclasses.dataclass(frozen=True)
class ReluMBConv(MBConv):
    """1x1 expansion, k x k depthwise, 1x1 projection, with ReLU behind the first two."""

    kind: ClassVar[str] = "mbconv.relu"
    examples: ClassVar[tuple[str, ...]] = (
        "mbconv.relu(in=8,out=16,k=3,e=3,s=2)@8",
        "mbconv.relu(in=16,out=16,k=3,e=3,s=1)@8",
        "mbconv.relu(in=16,out=16,k=5,e=6,s=1)@8",
    )


@register
@dataclasses.dataclass(frozen=True)
class ReluConvHead(ConvHead):
    """1x1 convolution to a width of its own, BN, ReLU, global average pool, linear classifier with bias."""

    kind: ClassVar[str] = "head.conv.relu"
    examples: ClassVar[tuple[str, ...]] = (
        "head.conv.relu(in=8,classes=10,mid=32)@3",
        "head.conv.relu(in=16,classes=10,mid=64)@4",
    )
