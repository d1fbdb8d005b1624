"""T2T-ViT (Yuan et al. 2021): soft splits with a Performer after each, embedding, narrow transformer layers."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from search.blocks.attention import AttentionCost
from search.blocks.registry import register
from search.blocks.spec import Macs, param
from search.blocks.tokens import Embedding, Patches, TokenLayer


@register
@dataclasses.dataclass(frozen=True)
class T2tPerformer(Patches):
    """One tokens-to-token step (equations 2 and 3): k x k windows as tokens, a Performer on them, a map again.

    Attention over all tokens is linear by e/2 random features (Choromanski et al. 2021, equation 5), one head, its
    residual from the values. The soft split is a depthwise convolution with fixed weights of 0 and 1, because
    XNNPACK has no unfold: its MACs are in `total` alone, as those of the features and of attention's products.
    """

    kind: ClassVar[str] = "t2t.performer"
    examples: ClassVar[tuple[str, ...]] = (
        "t2t.performer(in=3,e=8,k=7,s=4)@16",
        "t2t.performer(in=8,e=8,k=3,s=2)@9",
    )
    elastic: ClassVar[bool] = False

    dim: int = param("e")

    @property
    def window(self) -> int:
        """Channels of a token after the soft split."""
        return self.inputs * self.kernel**2

    @property
    def features(self) -> int:
        """Random features m of a query or key."""
        return self.dim // 2

    def params(self) -> int:
        d, e = self.window, self.dim
        attention = 2 * d + 3 * d * e + 3 * e + e * e + e
        return attention + 2 * e + 2 * (e * e + e)

    def macs(self) -> Macs:
        tokens, e, m = self.out_resolution**2, self.dim, self.features
        linear = tokens * (3 * self.window * e + 3 * e * e)
        split = tokens * self.window * self.kernel**2
        features = 2 * tokens * (e * m + e)
        products = 2 * tokens * (m * e + m)
        return Macs(linear, linear + split + features + products)

    def depthwise_macs(self) -> int:
        return self.out_resolution**2 * self.window * self.kernel**2

    def traffic_elements(self) -> int:
        d, e, m = self.window, self.dim, self.features
        split_and_norm, linear = 3 * d, d + 3 * e
        features = 2 * (3 * e + 1 + 7 * m)
        products = m + (m + e) + (m + e) + (m + 1) + 3 * e + 1
        rest = (2 * e + 3 * e) + 2 * e + 4 * e + 3 * e
        return self.inputs * self.resolution**2 + self.out_resolution**2 * (
            split_and_norm + linear + features + products + rest
        )

    def live_elements(self) -> int:
        tokens, d, e, m = self.out_resolution**2, self.window, self.dim, self.features
        split = self.inputs * self.resolution**2 + tokens * d
        keys = tokens * (3 * e + m + m + e + 1)
        divided = tokens * (3 * e + 2 * e + 1)
        return max(split, tokens * 2 * d, tokens * (d + 3 * e), keys, divided)


@register
@dataclasses.dataclass(frozen=True)
class T2tEmbed(Embedding):
    """The last soft split and its linear layer, which together are a convolution; positions are fixed sinusoids."""

    kind: ClassVar[str] = "t2t.embed"
    examples: ClassVar[tuple[str, ...]] = ("t2t.embed(in=8,d=12,k=3,s=2)@7",)
    learned_positions: ClassVar[bool] = False


@register
@dataclasses.dataclass(frozen=True)
class T2tLayer(TokenLayer):
    """Pre-norm attention without bias in query, key and value, MLP with GELU (equation 4)."""

    kind: ClassVar[str] = "t2t.layer"
    examples: ClassVar[tuple[str, ...]] = ("t2t.layer(d=12,heads=2,ratio=2)@3",)

    @property
    def _attention(self) -> AttentionCost:
        return AttentionCost(self.dim, self.heads, self.tokens, qkv_bias=False)

    def params(self) -> int:
        d, hidden = self.dim, self.hidden
        return self._attention.params() + 2 * d + d * hidden + hidden + hidden * d + d

    def macs(self) -> Macs:
        mlp = 2 * self.tokens * self.dim * self.hidden
        return self._attention.macs() + Macs(mlp, mlp)

    def traffic_elements(self) -> int:
        mlp = 2 * (self.dim + self.hidden) + 5 * self.dim
        return self._attention.traffic_elements() + self.tokens * mlp

    def live_elements(self) -> int:
        return max(self._attention.live_elements(), self.tokens * (2 * self.dim + self.hidden))
