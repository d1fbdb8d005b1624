"""What multi-head self-attention costs: of a pre-norm residual branch whose heads share the width."""

from __future__ import annotations

import dataclasses

from search.blocks.spec import Macs


@dataclasses.dataclass(frozen=True)
class AttentionCost:
    """LayerNorm, query, key and value in one linear layer, attention, projection with bias, residual.

    Attributes:
        dim: Channels d of a token, and of queries, keys and values.
        heads: Heads, each of d / heads channels.
        tokens: Tokens N.
        qkv_bias: Whether the first linear layer has a bias.
    """

    dim: int
    heads: int
    tokens: int
    qkv_bias: bool

    def params(self) -> int:
        """Trainable parameters."""
        d = self.dim
        return 2 * d + 3 * d * d + (3 * d if self.qkv_bias else 0) + d * d + d

    def macs(self) -> Macs:
        """4 N d^2 in linear layers, 2 N^2 d in the two products."""
        linear = 4 * self.tokens * self.dim**2
        return Macs(linear, linear + 2 * self.tokens**2 * self.dim)

    def traffic_elements(self) -> int:
        """Activation elements read and written."""
        norm_and_residual, linear, products = 5 * self.dim, 6 * self.dim, 4 * self.dim
        return self.tokens * (norm_and_residual + linear + products + 4 * self.heads * self.tokens)

    def live_elements(self) -> int:
        """Most activation elements live at once, the branch's input among them; heads are views of one tensor."""
        d, scores = self.dim, self.heads * self.tokens
        products, softmax = 5 * d + scores, 4 * d + 2 * scores
        return self.tokens * max(products, softmax)
