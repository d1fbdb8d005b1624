"""Cascaded group attention with a residual (Liu et al. 2023, section 3.2, equations 2 to 4), within windows."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Self

from luts.format.errors import UsageError
from search.blocks.registry import register
from search.blocks.shapes import ChannelKeeping
from search.blocks.spec import Factors, Macs, param


@register
@dataclasses.dataclass(frozen=True)
class CascadedGroupAttention(ChannelKeeping):
    """Each head attends to a split of the channels, to which the output of the head before it is added.

    A head's split has c / heads channels; where heads don't divide c, the first c mod heads splits have one more.
    The paper's heads give as many channels as their splits have. Where `v` is another number, the addition is
    over the channels that both have. A map whose side is not a multiple of the window is padded with zeros.

    Attributes:
        kernels: One digit a head: the odd kernel of the depthwise convolution over its query.
        store_split: Channels of every head's input in a supernet's store, not a network itself; 0 elsewhere.
    """

    kind: ClassVar[str] = "evit.cga"
    complexity: ClassVar[str] = "N d^2 (1 + 1 / h) + 2 N d q + w^2 N (h q + d) + k^2 N h q (v = d / h)"
    examples: ClassVar[tuple[str, ...]] = (
        "evit.cga(c=16,heads=2,qk=4,v=8,kernels=53,window=7)@7",
        "evit.cga(c=15,heads=2,qk=4,v=4,kernels=33,window=3)@3",
        "evit.cga(c=16,heads=1,qk=8,v=20,kernels=3,window=7)@3",
        "evit.cga(c=32,heads=2,qk=8,v=24,kernels=75,window=7)@9",
    )

    heads: int = param("heads")
    qk_dim: int = param("qk")
    v_dim: int = param("v")
    kernels: int = param("kernels")
    window: int = param("window")
    store_split: int = 0

    def __post_init__(self) -> None:
        self._check_kernels()
        if self.heads > self.channels:
            raise UsageError(f"evit.cga: {self.heads} heads can't share {self.channels} channels; take fewer")

    def _check_kernels(self) -> None:
        odd = all(int(digit) % 2 for digit in str(self.kernels))
        if not odd or len(str(self.kernels)) != self.heads:
            raise UsageError(
                f"evit.cga needs one odd digit in kernels for each of its {self.heads} heads, "
                f"not {self.kernels}; at most 4 heads fit"
            )

    @property
    def removable(self) -> bool:
        return True

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
        """Side of a window; a map that is smaller is one window."""
        return min(self.window, self.resolution)

    @property
    def windows(self) -> int:
        """Windows of the padded map, each an attention of its own."""
        return (-(-self.resolution // self.side)) ** 2

    @property
    def tokens(self) -> int:
        """Tokens of a window."""
        return self.side**2

    @property
    def _pixels(self) -> int:
        """Of the padded map."""
        return self.windows * self.tokens

    def covering(self, other: Self) -> Self:
        """The store of all subnets: heads, and for each its largest kernel and split."""
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

    def params(self) -> int:
        per_head = sum(
            (split + 2) * (2 * self.qk_dim + self.v_dim) + (kernel**2 + 2) * self.qk_dim
            for split, kernel in zip(self.splits, self.kernel_sizes, strict=True)
        )
        biases = self.heads * self.tokens
        return biases + per_head + self.heads * self.v_dim * self.channels + 2 * self.channels

    def macs(self) -> Macs:
        qkv = sum(self.splits) * (2 * self.qk_dim + self.v_dim) * self._pixels
        proj = self.heads * self.v_dim * self.channels * self._pixels
        conv_linear = qkv + self.depthwise_macs() + proj
        products = self._pixels * self.tokens * self.heads * (self.qk_dim + self.v_dim)
        return Macs(conv_linear, conv_linear + products)

    def depthwise_macs(self) -> int:
        return sum(kernel**2 for kernel in self.kernel_sizes) * self.qk_dim * self._pixels

    def traffic_elements(self) -> int:
        c, qk, v, heads = self.channels, self.qk_dim, self.v_dim, self.heads
        split_and_cascade = 2 * c + 3 * min(v, c // heads) * (heads - 1)
        qkv = 3 * c + heads * (2 * qk + v)
        depthwise_and_scale = heads * 4 * qk
        products = heads * (2 * qk + 2 * v + 6 * self.tokens)
        concat_and_proj = 2 * heads * v + 2 * heads * v + heads * v + c
        windows = 4 * c if self.windows > 1 else 0
        residual = 3 * c * self.resolution**2
        per_pixel = split_and_cascade + qkv + depthwise_and_scale + products + concat_and_proj + windows
        return per_pixel * self._pixels + residual

    def live_elements(self) -> int:
        """The residual's input, the windows that heads read, outputs of the heads so far, and what a head needs."""
        image, pixels = self.channels * self.resolution**2, self._pixels
        padded = self.channels * pixels
        windows = padded if self._cuts else 0
        scores, qk, v = self.tokens * pixels, self.qk_dim * pixels, self.v_dim * pixels
        moments = [image + 2 * windows, 2 * image + padded]
        for head, split in enumerate(self.splits):
            last = head == self.heads - 1
            around = image + (0 if last and head else windows) + head * v
            part = split * pixels if head else 0
            projections, softmax, mix = part + 3 * qk + v, 2 * scores, scores + v
            moments += [around + projections, around + v + max(softmax, mix, 2 * qk + scores)]
        concat_and_proj = self.heads * v + max(self.heads * v, padded)
        return max(*moments, image + concat_and_proj)

    @property
    def _cuts(self) -> bool:
        """Whether the map is more than one window."""
        return self.resolution > self.side

    def factors(self) -> Factors:
        offsets = {f"heads.{head}.bias.table": {0: (self.side, self.side)} for head in range(self.heads)}
        return {**offsets, "proj.1.conv.weight": {1: (self.heads, self.v_dim)}}
