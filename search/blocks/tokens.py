"""A map as a sequence of tokens with a class token in front, and the classifier that reads it."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from search.blocks.registry import register
from search.blocks.shapes import Classifying, DimKeeping
from search.blocks.spec import BlockSpec, Macs, param


def count_tokens(resolution: int) -> int:
    """Tokens N of a map of this side, the class token included."""
    return resolution**2 + 1


@dataclasses.dataclass(frozen=True)
class Patches(BlockSpec):
    """Makes a token of each k x k patch of a map, side by side or overlapping; `dim` channels each."""

    inputs: int = param("in")
    dim: int = param("d")
    kernel: int = param("k")
    stride: int = param("s")

    @property
    def in_channels(self) -> int:
        return self.inputs

    @property
    def out_channels(self) -> int:
        return self.dim

    @property
    def padding(self) -> int:
        """Zeros on each side: none for patches side by side, as soft splits have it for those that overlap."""
        return (self.kernel - self.stride + 1) // 2

    @property
    def out_resolution(self) -> int:
        return (self.resolution + 2 * self.padding - self.kernel) // self.stride + 1


@dataclasses.dataclass(frozen=True)
class Embedding(Patches):
    """k x k convolution with bias, the map's pixels as tokens, a class token before them, positions added."""

    elastic: ClassVar[bool] = False
    learned_positions: ClassVar[bool]

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (1, count_tokens(self.out_resolution), self.dim)

    def params(self) -> int:
        convolution = self.kernel**2 * self.inputs * self.dim + self.dim
        return convolution + self.dim + (self.out_elements if self.learned_positions else 0)

    def macs(self) -> Macs:
        macs = self.kernel**2 * self.inputs * self.dim * self.out_resolution**2
        return Macs(macs, macs)

    def traffic_elements(self) -> int:
        image = self.dim * self.out_resolution**2
        return self.inputs * self.resolution**2 + 2 * image + 3 * self.out_elements

    def live_elements(self) -> int:
        image = self.dim * self.out_resolution**2
        return max(self.inputs * self.resolution**2 + image, 2 * self.out_elements)


@register
@dataclasses.dataclass(frozen=True)
class TokenEmbed(Embedding):
    """Patch embedding of ViT (Dosovitskiy et al. 2021, equation 1), with learned positions."""

    kind: ClassVar[str] = "tokens.embed"
    examples: ClassVar[tuple[str, ...]] = ("tokens.embed(in=3,d=8,k=4,s=4)@12",)
    learned_positions: ClassVar[bool] = True


@register
@dataclasses.dataclass(frozen=True)
class TokenHead(Classifying):
    """LayerNorm and a linear classifier on the class token."""

    kind: ClassVar[str] = "head.token"
    examples: ClassVar[tuple[str, ...]] = ("head.token(in=8,classes=10)@2", "head.token(in=12,classes=10)@3")

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (1, count_tokens(self.resolution), self.inputs)

    def params(self) -> int:
        return 2 * self.inputs + self.inputs * self.classes + self.classes

    def macs(self) -> Macs:
        macs = self.inputs * self.classes
        return Macs(macs, macs)

    def traffic_elements(self) -> int:
        return self.inputs * (count_tokens(self.resolution) + 3) + self.classes

    def live_elements(self) -> int:
        return max(self.inputs * (count_tokens(self.resolution) + 1), self.inputs + self.classes)


@dataclasses.dataclass(frozen=True)
class TokenLayer(DimKeeping):
    """A transformer layer on the tokens of a map and a class token; `resolution` is the side of that map."""

    elastic: ClassVar[bool] = False

    heads: int = param("heads")
    mlp_ratio: float = param("ratio")

    @property
    def removable(self) -> bool:
        return True

    @property
    def tokens(self) -> int:
        """Tokens N, the class token included."""
        return count_tokens(self.resolution)

    @property
    def hidden(self) -> int:
        """Channels in the middle of the feed-forward network."""
        return int(self.mlp_ratio * self.dim)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (1, self.tokens, self.dim)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.input_shape
