"""Positions: blocks that add them to a map, and attention of all tokens by relative position.

Learned tables belong to the map of one side, `base`, and are interpolated bicubically at other sides, so that
a supernet has one table at all its resolutions. Whatever depends on weights and sizes alone is a constant of
an exported network.
"""

from __future__ import annotations

import dataclasses

from typing_extensions import override

from search.blocks.mixers import MultiHeadAttention
from search.blocks.ops import Activation, OpList, attention
from search.blocks.spec import ChannelKeeping, param, register

FIRE_HIDDEN = 32
"""Hidden units of FIRE's MLP, as in Li et al. 2024."""


@dataclasses.dataclass(frozen=True)
class Positions(ChannelKeeping):
    """Adds positions to a map; a network without positions has no such block."""

    removable = True


@register
class LearnedPositions(Positions):
    """A learned vector for each pixel of a map of side `base` (Dosovitskiy et al. 2021, equation 1)."""

    kind = "pos.learned"
    examples = ("pos.learned(c=8,base=4)@5", "pos.learned(c=16,base=4)@6")

    base: int = param("base")

    @override
    def add_ops(self, ops: OpList) -> None:
        ops.elementwise(ops.input, params=self.channels * self.base**2)


@register
class SinusoidPositions(Positions):
    """Fixed sinusoids (Vaswani et al. 2017, section 3.5): half of the channels for the row, half for the column."""

    kind = "pos.sinusoid"
    examples = ("pos.sinusoid(c=8)@5", "pos.sinusoid(c=16)@6")

    def __post_init__(self) -> None:
        """Raise `UsageError` if rows and columns do not get pairs of sine and cosine."""
        self._require(
            self.channels % 4 == 0,
            f"{self.channels} channels are not sines and cosines of rows and columns; use a multiple of 4",
        )

    @override
    def add_ops(self, ops: OpList) -> None:
        ops.elementwise(ops.input)


@register
class Peg(Positions):
    """CPVT's position encoding generator (Chu et al. 2023): a depthwise 3x3 convolution, added to the map."""

    kind = "pos.peg"
    examples = ("pos.peg(c=8)@5", "pos.peg(c=16)@6")

    @override
    def add_ops(self, ops: OpList) -> None:
        c = self.channels
        ops.add(ops.conv(ops.input, c, 3, groups=c, bias=True, norm=False), ops.input)


@dataclasses.dataclass(frozen=True)
class PositionalAttention(MultiHeadAttention):
    """Multi-head attention of all tokens whose scores depend on the difference of positions."""

    @property
    def bias_params(self) -> int | None:
        """Trained parameters of the bias of the scores; None if there is no bias."""
        return None

    def _rotated(self, ops: OpList, x: Activation) -> Activation:
        """Append what queries and keys (heads, N, head_dim) go through before their products."""
        del ops
        return x

    @override
    def add_ops(self, ops: OpList) -> None:
        n, d = self.tokens, self.channels
        qkv = ops.linear(self._to_tokens(ops), 3 * d)
        q, k, v = (ops.layout(qkv, self.heads, n, self.head_dim) for _ in range(3))
        q, k = self._rotated(ops, q), self._rotated(ops, k)
        mixed = attention(ops, ops.elementwise(q), k, v, self.bias_params)
        self._to_map(ops, ops.linear(ops.layout(mixed, 1, n, d), d))


@register
class RotaryAttention(PositionalAttention):
    """Axial RoPE (Su et al. 2021; in two dimensions Heo et al. 2024, section 3.2): queries and keys are rotated.

    Half of a head's pairs of channels rotate with the row, the others with the column.
    """

    kind = "mix.rope"
    examples = ("mix.rope(c=8,heads=2)@5", "mix.rope(c=16,heads=2)@8")

    def __post_init__(self) -> None:
        """Raise `UsageError` if heads do not divide the channels, or rows and columns do not get pairs."""
        super().__post_init__()
        self._require(
            self.head_dim % 4 == 0,
            f"{self.head_dim} channels of a head are not pairs of rows and columns; use a multiple of 4",
        )

    @override
    def _rotated(self, ops: OpList, x: Activation) -> Activation:
        """Append x cos + y sin, where y has the two halves of x in the other order."""
        heads, n, dim = x.shape
        half = ops.layout(x, heads, n, dim // 2)
        swapped = ops.concat(half, half, axis=2)
        return ops.add(ops.elementwise(x), ops.elementwise(swapped))


@register
class FireAttention(PositionalAttention):
    """FIRE (Li et al. 2024, equation 8) in two dimensions: an MLP of the distance of two pixels gives the bias."""

    kind = "mix.fire"
    examples = ("mix.fire(c=8,heads=1)@5", "mix.fire(c=16,heads=2)@8")

    @property
    @override
    def bias_params(self) -> int:
        return 2 + 2 * FIRE_HIDDEN + (FIRE_HIDDEN + 1) * self.heads


@register
class RelativeAttention(PositionalAttention):
    """Relative position bias (Liu et al. 2021, equation 4) of all tokens; offsets are those of side `base`."""

    kind = "mix.relative"
    examples = ("mix.relative(c=8,heads=1,base=4)@5", "mix.relative(c=16,heads=2,base=4)@8")

    base: int = param("base")

    @property
    @override
    def bias_params(self) -> int:
        return (2 * self.base - 1) ** 2 * self.heads
