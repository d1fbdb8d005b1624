"""Attention in linear time: separable (MobileViTv2), additive (SwiftFormer), with a feature map (Katharopoulos)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from search.blocks.mixer import HeadedMixer, TokenMixer
from search.blocks.registry import register
from search.blocks.spec import Macs


@register
@dataclasses.dataclass(frozen=True)
class SeparableAttention(TokenMixer):
    """MobileViTv2 (Mehta & Rastegari 2022, section 3.1) over all pixels of the map as one patch position."""

    kind: ClassVar[str] = "mix.separable"
    complexity: ClassVar[str] = "3 N d^2 + 2 N d"
    examples: ClassVar[tuple[str, ...]] = ("mix.separable(c=16)@5", "mix.separable(c=8)@8")

    def params(self) -> int:
        d = self.channels
        return d * (1 + 2 * d) + 1 + 2 * d + d**2 + d

    def macs(self) -> Macs:
        d = self.channels
        linear = self.tokens * (d * (1 + 2 * d) + d**2)
        return Macs(linear, linear + self.tokens * d)

    def traffic_elements(self) -> int:
        maps = (1 + 2) + 2 + 1 + (2 + 2) + 2
        return maps * self.out_elements + 4 * self.tokens + 2 * self.channels

    def live_elements(self) -> int:
        return 3 * self.out_elements + self.tokens


@register
@dataclasses.dataclass(frozen=True)
class AdditiveAttention(TokenMixer):
    """SwiftFormer (Shaker et al. 2023, equations 6 to 8), one head of the map's width."""

    kind: ClassVar[str] = "mix.additive"
    complexity: ClassVar[str] = "4 N d^2 + 5 N d"
    examples: ClassVar[tuple[str, ...]] = ("mix.additive(c=16)@5", "mix.additive(c=8)@8")

    def params(self) -> int:
        return 4 * self.channels**2 + 4 * self.channels + self.channels

    def macs(self) -> Macs:
        d, tokens = self.channels, self.tokens
        linear = tokens * (4 * d**2 + d)
        norms, context = 2 * tokens * d + tokens, tokens * d
        return Macs(linear, linear + norms + context)

    def traffic_elements(self) -> int:
        layouts, linear, norms = 4, 2 + 2 + 2 + 2, 2 * (2 + 1 + 2)
        context = 1 + 1 + 2 + 3
        return (layouts + linear + norms + context) * self.out_elements + 12 * self.tokens

    def live_elements(self) -> int:
        return 3 * self.out_elements + max(self.tokens, self.channels)


@register
@dataclasses.dataclass(frozen=True)
class LinearAttention(HeadedMixer):
    """Katharopoulos et al. 2020, equations 5 to 7: the product of keys and values of each head before queries."""

    kind: ClassVar[str] = "mix.linear"
    complexity: ClassVar[str] = "4 N d^2 + 2 N d (d / h + 1)"
    examples: ClassVar[tuple[str, ...]] = ("mix.linear(c=16,heads=2)@5", "mix.linear(c=8,heads=2)@8")

    def params(self) -> int:
        return 4 * self.channels**2 + 4 * self.channels

    def macs(self) -> Macs:
        d = self.channels
        linear = 4 * self.tokens * d**2
        return Macs(linear, linear + 2 * self.tokens * d * (self.head_dim + 1))

    def traffic_elements(self) -> int:
        layouts, linear, features, products = 4 + 8 + 2, 1 + 3 + 2, 2 * 9, 2 + 3 + 3
        return (layouts + linear + features + products) * self.out_elements

    def live_elements(self) -> int:
        features, products = 7 * self.out_elements, 5 * self.out_elements + self.channels * self.head_dim
        return max(features, products)
