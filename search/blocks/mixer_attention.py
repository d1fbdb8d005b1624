"""Softmax attention: of all tokens, inside windows (Swin), and with fewer keys than queries (PVT)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from search.blocks.mixer import HeadedMixer
from search.blocks.registry import register
from search.blocks.spec import Macs, param


@register
@dataclasses.dataclass(frozen=True)
class MultiHeadAttention(HeadedMixer):
    """Vaswani et al. 2017, section 3.2; query, key and value have d channels together and biases."""

    kind: ClassVar[str] = "mix.mha"
    complexity: ClassVar[str] = "4 N d^2 + 2 N^2 d"
    examples: ClassVar[tuple[str, ...]] = ("mix.mha(c=16,heads=2)@5", "mix.mha(c=8,heads=2)@8")

    def params(self) -> int:
        return 4 * self.channels**2 + 4 * self.channels

    def macs(self) -> Macs:
        linear = 4 * self.tokens * self.channels**2
        return Macs(linear, linear + 2 * self.tokens**2 * self.channels)

    def traffic_elements(self) -> int:
        layouts, linear, products = 4 + 8, 1 + 3 + 2, 6
        scores = 4 * self.heads * self.tokens**2
        return (layouts + linear + products) * self.out_elements + scores

    def live_elements(self) -> int:
        maps, scores = self.out_elements, self.heads * self.tokens**2
        return max(4 * maps + scores, 3 * maps + 2 * scores)


@register
@dataclasses.dataclass(frozen=True)
class WindowAttention(HeadedMixer):
    """Swin's W-MSA (Liu et al. 2021, equations 2 and 4), windows of w x w pixels without a shift."""

    kind: ClassVar[str] = "mix.window"
    complexity: ClassVar[str] = "4 N d^2 + 2 w^2 N d"
    examples: ClassVar[tuple[str, ...]] = (
        "mix.window(c=16,heads=2,w=3)@6",
        "mix.window(c=8,heads=2,w=4)@8",
    )

    window: int = param("w")

    def __post_init__(self) -> None:
        """`UsageError` where windows do not tile the map."""
        super().__post_init__()
        self._whole_cells(self.window, "windows")

    @property
    def area(self) -> int:
        """Tokens of a window."""
        return self.window**2

    def params(self) -> int:
        return 4 * self.channels**2 + 4 * self.channels + (2 * self.window - 1) ** 2 * self.heads

    def macs(self) -> Macs:
        linear = 4 * self.tokens * self.channels**2
        return Macs(linear, linear + 2 * self.tokens * self.area * self.channels)

    def traffic_elements(self) -> int:
        layouts, linear, products = 8 + 8, 1 + 3 + 2, 6
        scores = 6 * self.heads * self.tokens * self.area
        return (layouts + linear + products) * self.out_elements + scores

    def live_elements(self) -> int:
        maps, scores = self.out_elements, self.heads * self.tokens * self.area
        split, products, biased = 6 * maps, 3 * maps + scores, maps + 2 * scores
        return max(split, products, biased)


@register
@dataclasses.dataclass(frozen=True)
class SpatialReductionAttention(HeadedMixer):
    """PVT's SRA (Wang et al. 2021, equations 1 to 3): keys and values of the map made smaller s times a side."""

    kind: ClassVar[str] = "mix.sr"
    complexity: ClassVar[str] = "3 N d^2 + 2 N d^2 / s^2 + 2 N^2 d / s^2"
    examples: ClassVar[tuple[str, ...]] = ("mix.sr(c=16,heads=2,s=3)@6", "mix.sr(c=8,heads=2,s=2)@8")

    reduction: int = param("s")

    def __post_init__(self) -> None:
        """`UsageError` where the reduction leaves a rest of the map."""
        super().__post_init__()
        self._whole_cells(self.reduction, "cells")

    @property
    def keys(self) -> int:
        """Tokens of the smaller map."""
        return self.tokens // self.reduction**2

    def params(self) -> int:
        d = self.channels
        return 4 * d**2 + 4 * d + d**2 * self.reduction**2 + d + 2 * d

    def macs(self) -> Macs:
        linear = (3 * self.tokens + 2 * self.keys) * self.channels**2
        return Macs(linear, linear + 2 * self.tokens * self.keys * self.channels)

    def traffic_elements(self) -> int:
        d = self.channels
        queries = (4 + 4 + 2 + 2 + 3) * self.tokens * d
        keys = (1 + 2 + 2 + 3 + 4 + 2) * self.keys * d
        return queries + keys + self.tokens * d + 4 * self.heads * self.tokens * self.keys

    def live_elements(self) -> int:
        maps, small = self.out_elements, self.keys * self.channels
        scores = self.heads * self.tokens * self.keys
        return 2 * small + max(2 * maps, maps + scores, 2 * scores)
