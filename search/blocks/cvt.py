"""CvT (Wu et al. 2021): attention whose queries, keys and values are depthwise convolutions of the map."""

from __future__ import annotations

import dataclasses

from typing_extensions import override

from search.blocks.ops import Activation, OpList, attention
from search.blocks.spec import BlockSpec, DimKeeping, param, register
from search.blocks.transformers import TokenBlock


@dataclasses.dataclass(frozen=True)
class ConvolutionalAttention(DimKeeping, BlockSpec):
    """Convolutional projection (section 3.3): depthwise 3x3 convolutions with BN, of stride 2 for keys and values.

    Pre-norm attention and MLP with GELU, each with a residual.
    """

    elastic = False
    removable = True

    heads: int = param("heads")
    mlp_ratio: float = param("ratio")

    @property
    def prefix(self) -> int:
        """Number of class tokens, which the convolutions leave as they are."""
        return 0

    def _projected(self, ops: OpList, x: Activation, stride: int) -> Activation:
        """Append the projection of tokens (1, n, d) by one convolution: (heads, n', head_dim)."""
        pixels = x.view(1, self.dim, self.resolution, self.resolution)
        tokens = ops.depthwise(pixels, 3, stride)
        count = tokens.shape[2] ** 2
        tokens = tokens.view(1, count, self.dim)
        if self.prefix:
            tokens = ops.concat(x.view(1, self.prefix, self.dim), tokens)
        projected = ops.linear(tokens, self.dim)
        return ops.layout(projected, self.heads, count + self.prefix, self.dim // self.heads)

    @override
    def add_ops(self, ops: OpList) -> None:
        d, n = self.dim, self.resolution**2 + self.prefix
        tokens = ops.input if self.prefix else ops.layout(ops.input, 1, n, d)
        normed = ops.norm(tokens)
        q, k, v = (self._projected(ops, normed, stride) for stride in (1, 2, 2))
        mixed = ops.layout(attention(ops, ops.elementwise(q), k, v), 1, n, d)
        x = ops.add(ops.linear(mixed, d), tokens)
        hidden = ops.linear(ops.norm(x), int(self.mlp_ratio * d))
        x = ops.add(ops.linear(hidden, d), x)
        if not self.prefix:
            ops.layout(x, *self.input_shape)


@register
class CvtLayer(ConvolutionalAttention):
    """A layer of CvT's first two stages, on a map."""

    kind = "cvt.layer"
    examples = ("cvt.layer(d=16,heads=2,ratio=2)@5",)


@register
class CvtTokenLayer(ConvolutionalAttention, TokenBlock):
    """A layer of CvT's last stage, on a class token and the pixels of a map."""

    kind = "cvt.token_layer"
    examples = ("cvt.token_layer(d=16,heads=2,ratio=2)@4",)

    @property
    @override
    def prefix(self) -> int:
        return 1


@register
class CvtTokens(DimKeeping, BlockSpec):
    """The pixels of a map as tokens, with a class token before them and no positions."""

    kind = "cvt.tokens"
    elastic = False
    examples = ("cvt.tokens(d=8)@3",)

    @override
    def add_ops(self, ops: OpList) -> None:
        ops.with_class_token(ops.layout(ops.input, 1, self.resolution**2, self.dim))
