"""A vision transformer on the pixels of a map, and its layers: plain, merging tokens (ToMe), pruning (EViT)."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from typing import ClassVar

from luts.format.errors import UsageError
from search.blocks.registry import register
from search.blocks.shapes import DimKeeping
from search.blocks.spec import BlockSpec, EnclosingSpec, Macs, param


@register
@dataclasses.dataclass(frozen=True)
class VitShell(DimKeeping, EnclosingSpec):
    """Pixels as tokens with a class token before them and learned positions; after the layers, the normalised class
    token as a map of one pixel. It hands the sizes of merged tokens from layer to layer."""

    kind: ClassVar[str] = "vit.shell"
    elastic: ClassVar[bool] = False
    examples: ClassVar[tuple[str, ...]] = ("vit.shell(d=8)@3", "vit.shell(d=16)@4")

    @property
    def out_resolution(self) -> int:
        return 1

    @property
    def tokens(self) -> int:
        """Tokens that the first layer gets: the map's pixels and the class token."""
        return self.resolution**2 + 1

    def params(self) -> int:
        return self.dim + self.tokens * self.dim + 2 * self.dim

    def macs(self) -> Macs:
        return Macs(0, 0)

    def traffic_elements(self) -> int:
        return self.dim * (6 * self.tokens + 5)

    def live_elements(self) -> int:
        return 2 * self.dim * self.tokens

    def held_elements(self) -> int:
        """Nothing: the layers' input is counted as theirs."""
        return 0

    def encloses(self, other: BlockSpec) -> bool:
        return isinstance(other, VitLayer) and (other.dim, other.resolution) == (self.dim, self.resolution)


@dataclasses.dataclass(frozen=True)
class VitLayer(DimKeeping):
    """Pre-norm layer over n tokens: attention and MLP with residuals, tokens given up between the two.

    `resolution` is that of the shell's map.
    """

    enclosed_by: ClassVar[str] = "vit.shell"
    elastic: ClassVar[bool] = False

    heads: int = param("heads")
    mlp_ratio: float = param("ratio")
    tokens: int = param("n")

    def __post_init__(self) -> None:
        """`UsageError` where the heads have no equal channels, or more tokens would go than there are."""
        if self.dim % self.heads:
            raise UsageError(
                f"{self.key}: {self.dim} channels do not make {self.heads} equal heads; change one"
            )
        self._check_tokens()

    def _check_tokens(self) -> None:
        """`UsageError` where more tokens would go than there are."""

    @property
    @abstractmethod
    def tokens_out(self) -> int:
        """Tokens that are left."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (1, self.tokens, self.dim)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (1, self.tokens_out, self.dim)

    @property
    def hidden(self) -> int:
        """Channels of the MLP's middle."""
        return int(self.mlp_ratio * self.dim)

    def params(self) -> int:
        d = self.dim
        return 4 * d**2 + 4 * d + 2 * d * self.hidden + self.hidden + d + 4 * d

    def macs(self) -> Macs:
        d = self.dim
        linear = 4 * self.tokens * d**2 + 2 * self.tokens_out * d * self.hidden
        return Macs(linear, linear + 2 * self.tokens**2 * d + self._reducing_macs())

    def _reducing_macs(self) -> int:
        """MACs of the products with which tokens are chosen and joined."""
        return 0

    def traffic_elements(self) -> int:
        attention = self.tokens * (16 * self.dim + 4 * self.heads * self.tokens)
        mlp = self.tokens_out * (7 * self.dim + 4 * self.hidden)
        return attention + mlp

    def live_elements(self) -> int:
        """Of attention and MLP; choosing tokens takes less than the scores wherever n is above d / heads."""
        tokens, scores = self.dim * self.tokens, self.heads * self.tokens**2
        attention = max(5 * tokens + scores, 4 * tokens + 2 * scores)
        return max(attention, self.tokens_out * (self.dim + 2 * self.hidden))


@register
@dataclasses.dataclass(frozen=True)
class VitPlainLayer(VitLayer):
    """Dosovitskiy et al. 2021, equations 2 and 3: all tokens stay."""

    kind: ClassVar[str] = "vit.layer"
    complexity: ClassVar[str] = "12 N d^2 + 2 N^2 d (MLP of 4 d)"
    examples: ClassVar[tuple[str, ...]] = ("vit.layer(d=16,heads=2,ratio=2,n=17)@4",)

    @property
    def tokens_out(self) -> int:
        return self.tokens

    @property
    def removable(self) -> bool:
        return True


@register
@dataclasses.dataclass(frozen=True)
class MergingLayer(VitLayer):
    """Token merging (Bolya et al. 2023, section 3): the r most similar pairs of alternate tokens become one each.

    Similarity is that of keys, averaged over heads; tokens weigh as many pixels as they stand for, in the mean that
    joins them and in attention (proportional attention).
    """

    kind: ClassVar[str] = "vit.tome"
    complexity: ClassVar[str] = "(4 N + 8 (N - r)) d^2 + 2 N^2 d + N^2 d / 4 h"
    examples: ClassVar[tuple[str, ...]] = (
        "vit.tome(d=16,heads=2,ratio=2,n=16,r=3)@4",
        "vit.tome(d=16,heads=4,ratio=2,n=37,r=4)@6",
    )

    merged: int = param("r")

    def _check_tokens(self) -> None:
        if self.merged > self.sources:
            raise UsageError(
                f"{self.key}: {self.merged} tokens are merged but {self.sources} can be; lower r"
            )

    @property
    def sources(self) -> int:
        """Every other token but the class token."""
        return (self.tokens - 1) // 2

    @property
    def tokens_out(self) -> int:
        return self.tokens - self.merged

    def _reducing_macs(self) -> int:
        return self.sources * (self.tokens // 2) * (self.dim // self.heads)


@register
@dataclasses.dataclass(frozen=True)
class PruningLayer(VitLayer):
    """EViT (Liang et al. 2022, section 3): the k tokens that the class token attends to most stay, the others
    become one, each weighed by that attention."""

    kind: ClassVar[str] = "vit.evit"
    complexity: ClassVar[str] = "(4 N + 8 (k + 2)) d^2 + 2 N^2 d + (N + k) d"
    examples: ClassVar[tuple[str, ...]] = (
        "vit.evit(d=16,heads=2,ratio=2,n=16,k=9)@4",
        "vit.evit(d=16,heads=4,ratio=2,n=37,k=25)@6",
    )

    kept: int = param("k")

    def _check_tokens(self) -> None:
        if self.kept > self.tokens - 2:
            raise UsageError(
                f"{self.key}: {self.kept} of {self.tokens - 1} tokens are kept, none is left to fuse; lower k"
            )

    @property
    def tokens_out(self) -> int:
        return self.kept + 2

    def _reducing_macs(self) -> int:
        return (self.tokens - 1 + self.kept) * self.dim
