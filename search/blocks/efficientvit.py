"""EfficientViT's blocks (Liu et al. 2023, figure 6 and sections 3.2 and 3.3), ReLU throughout.

A network is a sandwich: feed-forward blocks on either side of each cascaded group attention.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Self

from typing_extensions import override

from luts.format.errors import UsageError
from search.blocks.mobilenet import FcHead
from search.blocks.ops import Activation, OpList, attention
from search.blocks.spec import ChannelKeeping, Factors, Projecting, make_divisible, param, register

STEM_FRACTIONS = (8, 4, 2, 1)
"""The stem's convolutions have 1/8, 1/4, 1/2 and all of its output channels."""

MERGE_EXPANSION = 4
"""Width of patch merging's depthwise convolution over its input."""


@register
class OverlapStem(Projecting):
    """Overlapping patch embedding: four 3x3 convolutions of stride 2 with BN, ReLU between them."""

    kind = "evit.stem"
    examples = ("evit.stem(in=3,out=8)@32", "evit.stem(in=3,out=16)@40")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels before the first convolution and after each."""
        return (self.inputs, *(max(1, self.outputs // fraction) for fraction in STEM_FRACTIONS))

    @override
    def add_ops(self, ops: OpList) -> None:
        x = ops.input
        for width in self.widths[1:]:
            x = ops.conv(x, width, 3, 2)


@register
class FfnBlock(ChannelKeeping):
    """3x3 depthwise convolution (token interaction), then two 1x1 ones (feed-forward), each with a residual."""

    kind = "evit.ffn"
    examples: ClassVar[tuple[str, ...]] = ("evit.ffn(c=8,ratio=2)@7", "evit.ffn(c=16,ratio=3)@8")
    branches: ClassVar[tuple[str, ...]] = ("mix.conv", "feed.project")
    removable = True

    ratio: float = param("ratio")

    @property
    def hidden(self) -> int:
        """Channels between the two 1x1 convolutions."""
        return int(self.ratio * self.channels)

    @override
    def add_ops(self, ops: OpList) -> None:
        x = self._interact(ops, ops.input)
        y = ops.conv(ops.conv(x, self.hidden), self.channels)
        ops.add(y, x)

    def _interact(self, ops: OpList, x: Activation) -> Activation:
        return ops.add(ops.depthwise(x, 3), x)


@register
class PatchMerging(Projecting):
    """Inverted residual without the residual that halves the map: 1x1, 3x3 depthwise of stride 2, SE, 1x1.

    Squeeze and excitation has a quarter of the middle's channels, rounded to a multiple of 8.
    """

    kind = "evit.merge"
    examples = ("evit.merge(in=8,out=16)@7", "evit.merge(in=16,out=24)@8")

    @property
    def middle(self) -> int:
        """Channels of the depthwise convolution."""
        return MERGE_EXPANSION * self.inputs

    @property
    def squeezed(self) -> int:
        """Channels of squeeze and excitation."""
        return make_divisible(self.middle / 4, 8, 0)

    @override
    def add_ops(self, ops: OpList) -> None:
        y = ops.depthwise(ops.conv(ops.input, self.middle), 3, 2)
        gate = ops.linear(ops.linear(ops.mean(y), self.squeezed), self.middle)
        ops.conv(ops.mul(y, ops.elementwise(gate)), self.outputs)


@register
class BnFcHead(FcHead):
    """Global average pool, BN of its means, and a linear classifier with bias."""

    kind = "head.bnfc"
    examples = ("head.bnfc(in=8,classes=10)@3", "head.bnfc(in=16,classes=10)@4")

    @override
    def add_ops(self, ops: OpList) -> None:
        ops.linear(ops.in_place(ops.mean(ops.input), params=2 * self.inputs), self.classes)


@register
class CascadedGroupAttention(ChannelKeeping):
    """Cascaded group attention with a residual, within windows (Liu et al. 2023, equations 2 to 4).

    Each head attends to a split of the channels, to which the output of the head before it is added. A head's
    split has c / heads channels; if heads do not divide c, the first c mod heads splits have one more. The
    paper's heads output as many channels as their splits have. If `v` differs, the addition is over the
    channels that both have. A map whose side is not a multiple of the window is padded with zeros.

    Attributes:
        kernels: One digit a head: the odd kernel of the depthwise convolution over its query.
        store_split: Channels of every head's input in a supernet's weights; 0 in a network.
    """

    kind = "evit.cga"
    complexity = "N d^2 (1 + 1 / h) + 2 N d q + w^2 N (h q + d) + k^2 N h q (v = d / h)"
    examples: ClassVar[tuple[str, ...]] = (
        "evit.cga(c=16,heads=2,qk=4,v=8,kernels=53,window=7)@7",
        "evit.cga(c=15,heads=2,qk=4,v=4,kernels=33,window=3)@3",
        "evit.cga(c=16,heads=1,qk=8,v=20,kernels=3,window=7)@3",
        "evit.cga(c=32,heads=2,qk=8,v=24,kernels=75,window=7)@9",
    )
    removable = True

    heads: int = param("heads")
    qk_dim: int = param("qk")
    v_dim: int = param("v")
    kernels: int = param("kernels")
    window: int = param("window")
    store_split: int = 0

    def __post_init__(self) -> None:
        """Raise `UsageError` if kernels or heads are impossible."""
        self._check_kernels()
        if self.heads > self.channels:
            raise UsageError(
                f"evit.cga: {self.heads} heads cannot share {self.channels} channels; use fewer heads",
                code="invalid_block_parameter",
            )

    def _check_kernels(self) -> None:
        odd = all(int(digit) % 2 for digit in str(self.kernels))
        if not odd or len(str(self.kernels)) != self.heads:
            raise UsageError(
                f"evit.cga needs one odd digit in kernels for each of its {self.heads} heads, "
                f"not {self.kernels}; at most 4 heads are possible",
                code="invalid_block_parameter",
            )

    @property
    def splits(self) -> tuple[int, ...]:
        """Input channels of each head."""
        if self.store_split:
            return (self.store_split,) * self.heads
        least, more = divmod(self.channels, self.heads)
        return tuple(least + (head < more) for head in range(self.heads))

    @property
    def kernel_sizes(self) -> tuple[int, ...]:
        """Kernel of each head's depthwise convolution."""
        return tuple(int(digit) for digit in str(self.kernels))

    @property
    def side(self) -> int:
        """Side of a window in pixels; a map that is smaller is one window."""
        return min(self.window, self.resolution)

    @property
    def windows(self) -> int:
        """Windows of the padded map; attention stays within each."""
        return (-(-self.resolution // self.side)) ** 2

    @override
    def covering(self, other: Self) -> Self:
        sizes = [
            max(pair)
            for pair in zip(
                self.kernel_sizes + other.kernel_sizes[self.heads :],
                other.kernel_sizes + self.kernel_sizes[other.heads :],
                strict=True,
            )
        ]
        return dataclasses.replace(
            super().covering(other),
            kernels=int("".join(map(str, sizes))),
            store_split=max(*self.splits, *other.splits),
        )

    @override
    def add_ops(self, ops: OpList) -> None:
        x, padded = ops.input, self.channels * self.windows * self.side**2
        windows = x.view(self.windows, self.channels, self.side, self.side)
        if self.windows > 1:
            windows = ops.copy(ops.copy(windows, traffic=0), *windows.shape, traffic=2 * padded)
        outputs: list[Activation] = []
        for split, kernel in zip(self.splits, self.kernel_sizes, strict=True):
            part = self._head_input(ops, windows, split, outputs)
            outputs.append(self._head(ops, part, kernel))
        joined = ops.concat(*outputs)
        y = ops.conv(ops.elementwise(joined), self.channels)
        if self.windows > 1:
            y = ops.copy(y)
        ops.add(x, y.view(*x.shape))

    def _head_input(
        self, ops: OpList, windows: Activation, split: int, outputs: list[Activation]
    ) -> Activation:
        """Append what makes a head's input: its split of the channels, plus the output of the head before it."""
        part = ops.layout(windows, windows.shape[0], split, *windows.shape[2:])
        if not outputs:
            return part
        common = min(self.v_dim, self.channels // self.heads) * self.windows * self.side**2
        return ops.add(part, outputs[-1].view(*part.shape), traffic=3 * common)

    def _head(self, ops: OpList, part: Activation, kernel: int) -> Activation:
        """Append one head: (windows, split, side, side) to (windows, v, side, side)."""
        windows, n, qk, v = self.windows, self.side**2, self.qk_dim, self.v_dim
        query = ops.conv(part, qk)
        if kernel:
            query = ops.depthwise(query, kernel)
        key, value = ops.conv(part, qk), ops.conv(part, v)
        q = ops.elementwise(query).view(windows, n, qk)
        mixed = attention(ops, q, key.view(windows, n, qk), value.view(windows, n, v), bias=n)
        return mixed.view(windows, v, self.side, self.side)

    @override
    def factors(self) -> Factors:
        offsets = {f"heads.{head}.bias.table": {0: (self.side, self.side)} for head in range(self.heads)}
        return {**offsets, "proj.1.conv.weight": {1: (self.heads, self.v_dim)}}
