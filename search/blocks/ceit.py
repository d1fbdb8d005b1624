"""CeiT (Yuan et al. 2021): image-to-tokens, locally enhanced feed-forward, layer-wise class-token attention."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from search.blocks.attention import AttentionCost
from search.blocks.registry import register
from search.blocks.shapes import Scoring
from search.blocks.spec import BlockSpec, EnclosingSpec, Macs, param
from search.blocks.stem import PooledStem
from search.blocks.tokens import TokenLayer, count_tokens


@register
@dataclasses.dataclass(frozen=True)
class CeitStem(PooledStem):
    """The convolution, BN and pool of image-to-tokens (equation 4); the patches are a `tokens.embed` after it."""

    kind: ClassVar[str] = "ceit.stem"
    examples: ClassVar[tuple[str, ...]] = ("ceit.stem(in=3,out=4)@9", "ceit.stem(in=3,out=8)@16")
    kernel: ClassVar[int] = 7


@register
@dataclasses.dataclass(frozen=True)
class CeitLayer(TokenLayer):
    """Attention, then LeFF: 1x1, depthwise 3x3, 1x1 with bias and BN on the tokens as a map (equations 5 to 10)."""

    kind: ClassVar[str] = "ceit.layer"
    examples: ClassVar[tuple[str, ...]] = ("ceit.layer(d=12,heads=2,ratio=4)@3",)
    enclosed_by: ClassVar[str] = "ceit.encoder"

    @property
    def _attention(self) -> AttentionCost:
        return AttentionCost(self.dim, self.heads, self.tokens, qkv_bias=True)

    def params(self) -> int:
        d, hidden = self.dim, self.hidden
        convolutions = d * hidden + hidden + 9 * hidden + hidden + hidden * d + d
        return self._attention.params() + 2 * d + convolutions + 2 * (hidden + hidden + d)

    def macs(self) -> Macs:
        local = (2 * self.dim + 9) * self.hidden * self.resolution**2
        return self._attention.macs() + Macs(local, local)

    def depthwise_macs(self) -> int:
        return 9 * self.hidden * self.resolution**2

    def traffic_elements(self) -> int:
        convolutions = 2 * (self.dim + 2 * self.hidden) * self.resolution**2
        norm_join_and_residual = (2 + 2 + 3) * self.out_elements
        return self._attention.traffic_elements() + convolutions + norm_join_and_residual

    def live_elements(self) -> int:
        tokens, wide, image = (
            self.out_elements,
            self.hidden * self.resolution**2,
            self.dim * self.resolution**2,
        )
        local = 2 * tokens + wide + max(wide, image)
        return max(self._attention.live_elements(), local, 3 * tokens + image)


@register
@dataclasses.dataclass(frozen=True)
class CeitEncoder(Scoring, EnclosingSpec):
    """Runs `ceit.layer`s, lets the last class token attend over those of all of them (figure 5), and classifies it.

    One class token a layer: where fewer than `depth` layers stand inside, a missing one is the identity, which
    leaves the class token as it was.
    """

    kind: ClassVar[str] = "ceit.encoder"
    examples: ClassVar[tuple[str, ...]] = ("ceit.encoder(d=12,heads=2,ratio=4,depth=2,classes=10)@4",)
    elastic: ClassVar[bool] = False

    dim: int = param("d")
    heads: int = param("heads")
    mlp_ratio: float = param("ratio")
    depth: int = param("depth")
    classes: int = param("classes")

    @property
    def in_channels(self) -> int:
        return self.dim

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (1, count_tokens(self.resolution), self.dim)

    @property
    def hidden(self) -> int:
        """Channels in the middle of the last feed-forward network."""
        return int(self.mlp_ratio * self.dim)

    def params(self) -> int:
        d, hidden = self.dim, self.hidden
        attention = AttentionCost(d, self.heads, self.depth, qkv_bias=True).params()
        mlp = 2 * d + d * hidden + hidden + hidden * d + d
        return self.depth * d + attention + mlp + 2 * d + d * self.classes + self.classes

    def macs(self) -> Macs:
        d = self.dim
        linear = (2 + 2 * self.depth) * d * d + 2 * d * self.hidden + d * self.classes
        return Macs(linear, linear + 2 * self.depth * d)

    def traffic_elements(self) -> int:
        classes_tokens = (count_tokens(self.resolution) + self.depth * (2 + 2 + 3 + 2 + 2)) * self.dim
        return classes_tokens + 14 * self.dim + 2 * self.hidden + self.classes

    def live_elements(self) -> int:
        d, depth = self.dim, self.depth
        gathered = count_tokens(self.resolution) + depth
        attended = 5 * depth + 2
        return max(gathered * d, attended * d, 2 * d + self.hidden, d + self.classes)

    def held_elements(self) -> int:
        """The class tokens of all layers."""
        return self.depth * self.dim

    def encloses(self, other: BlockSpec) -> bool:
        return isinstance(other, CeitLayer) and (other.dim, other.resolution) == (self.dim, self.resolution)
