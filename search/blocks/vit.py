"""A vision transformer on the pixels of a map: plain layers, token merging (ToMe), token pruning (EViT)."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from typing import ClassVar

from typing_extensions import override

from luts.format.errors import UsageError
from search.blocks.ops import Activation, OpList, attention
from search.blocks.registry import register
from search.blocks.spec import BlockSpec, DimKeeping, EnclosingSpec, param


@register
@dataclasses.dataclass(frozen=True)
class VitShell(DimKeeping, EnclosingSpec):
    """Class token, learned positions and last LayerNorm of a ViT whose tokens are the pixels of a map.

    The output is the normalised class token as a map of one pixel. The shell hands the sizes of merged tokens
    from layer to layer.
    """

    kind: ClassVar[str] = "vit.shell"
    elastic: ClassVar[bool] = False
    examples: ClassVar[tuple[str, ...]] = ("vit.shell(d=8)@3", "vit.shell(d=16)@4")

    @property
    def tokens(self) -> int:
        """Tokens of the first layer: the map's pixels and the class token."""
        return self.resolution**2 + 1

    @override
    def ops(self) -> OpList:
        ops, d, n = OpList(self.input_shape), self.dim, self.tokens
        pixels = ops.layout(ops.input, 1, n - 1, d)
        tokens = ops.with_class_token(pixels, traffic=(2 * n + 1) * d)
        tokens = ops.elementwise(tokens, params=n * d)
        first = ops.layout(tokens, 1, 1, d)
        ops.layout(ops.norm(first), 1, d, 1, 1)
        return ops

    @override
    def surrounding_elements(self) -> int:
        """Return 0: the layers' input counts as theirs."""
        return 0

    @override
    def encloses(self, other: BlockSpec) -> bool:
        return isinstance(other, VitLayer) and (other.dim, other.resolution) == (self.dim, self.resolution)


@dataclasses.dataclass(frozen=True)
class VitLayer(DimKeeping):
    """Pre-norm layer over n tokens: attention and MLP with residuals, fewer tokens after attention.

    `resolution` is that of the shell's map.
    """

    enclosed_by: ClassVar[str] = "vit.shell"
    elastic: ClassVar[bool] = False

    heads: int = param("heads")
    mlp_ratio: float = param("ratio")
    tokens: int = param("n")

    def __post_init__(self) -> None:
        """Raise `UsageError` if heads do not divide the dimension or too many tokens are dropped."""
        if self.dim % self.heads:
            raise UsageError(
                f"{self.key}: {self.heads} heads do not divide {self.dim} channels; change one of them",
                code="invalid_block_parameter",
            )
        self._check_tokens()

    def _check_tokens(self) -> None:
        """Raise `UsageError` if more tokens are dropped than there are."""

    @property
    @abstractmethod
    def tokens_out(self) -> int:
        """Tokens after the layer."""

    @property
    @override
    def input_shape(self) -> tuple[int, ...]:
        return (1, self.tokens, self.dim)

    @property
    def hidden(self) -> int:
        """Channels between the MLP's layers."""
        return int(self.mlp_ratio * self.dim)

    @override
    def ops(self) -> OpList:
        ops, d, n = OpList(self.input_shape), self.dim, self.tokens
        x = ops.input
        qkv = ops.linear(ops.norm(x), 3 * d).view(self.heads, n, d // self.heads)
        q = ops.elementwise(qkv, traffic=n * d)
        x = ops.add(ops.linear(attention(ops, q, qkv, qkv).view(1, n, d), d), x)
        x = self._reduce(ops, x)
        y = ops.elementwise(ops.linear(ops.norm(x), self.hidden))
        ops.add(ops.linear(y, d), x)
        return ops

    @abstractmethod
    def _reduce(self, ops: OpList, x: Activation) -> Activation:
        """Append what drops tokens: (1, n, d) to (1, n', d). Its traffic is small and left out."""


@register
@dataclasses.dataclass(frozen=True)
class VitPlainLayer(VitLayer):
    """Dosovitskiy et al. 2021, equations 2 and 3: all tokens stay."""

    kind: ClassVar[str] = "vit.layer"
    complexity: ClassVar[str] = "12 N d^2 + 2 N^2 d (MLP of 4 d)"
    examples: ClassVar[tuple[str, ...]] = ("vit.layer(d=16,heads=2,ratio=2,n=17)@4",)

    @property
    @override
    def tokens_out(self) -> int:
        return self.tokens

    @property
    @override
    def removable(self) -> bool:
        return True

    @override
    def _reduce(self, ops: OpList, x: Activation) -> Activation:
        return x


@register
@dataclasses.dataclass(frozen=True)
class MergingLayer(VitLayer):
    """Token merging (Bolya et al. 2023, section 3): merges the r most similar pairs of alternate tokens.

    Similarity is that of keys, averaged over heads. Tokens are weighted by the number of pixels that they
    represent, in the mean that joins them and in attention (proportional attention).
    """

    kind: ClassVar[str] = "vit.tome"
    complexity: ClassVar[str] = "(4 N + 8 (N - r)) d^2 + 2 N^2 d + N^2 d / 4 h"
    examples: ClassVar[tuple[str, ...]] = (
        "vit.tome(d=16,heads=2,ratio=2,n=16,r=3)@4",
        "vit.tome(d=16,heads=4,ratio=2,n=37,r=4)@6",
    )

    merged: int = param("r")

    @override
    def _check_tokens(self) -> None:
        if self.merged > self.sources:
            raise UsageError(
                f"{self.key}: r = {self.merged}, but at most {self.sources} tokens can be merged; lower r",
                code="invalid_block_parameter",
            )

    @property
    def sources(self) -> int:
        """Every other token but the class token."""
        return (self.tokens - 1) // 2

    @property
    @override
    def tokens_out(self) -> int:
        return self.tokens - self.merged

    @override
    def _reduce(self, ops: OpList, x: Activation) -> Activation:
        head_dim, targets = self.dim // self.heads, self.tokens // 2
        ops.matmul(x.view(1, self.sources, head_dim), x.view(1, head_dim, targets), traffic=0)
        return ops.copy(x, 1, self.tokens_out, self.dim, traffic=0)


@register
@dataclasses.dataclass(frozen=True)
class PruningLayer(VitLayer):
    """EViT (Liang et al. 2022, section 3): the k tokens that the class token attends to most stay.

    The others become one, each weighted by that attention.
    """

    kind: ClassVar[str] = "vit.evit"
    complexity: ClassVar[str] = "(4 N + 8 (k + 2)) d^2 + 2 N^2 d + (N + k) d"
    examples: ClassVar[tuple[str, ...]] = (
        "vit.evit(d=16,heads=2,ratio=2,n=16,k=9)@4",
        "vit.evit(d=16,heads=4,ratio=2,n=37,k=25)@6",
    )

    kept: int = param("k")

    @override
    def _check_tokens(self) -> None:
        if self.kept > self.tokens - 2:
            raise UsageError(
                f"{self.key}: k = {self.kept} of {self.tokens - 1} tokens leaves none to fuse; lower k",
                code="invalid_block_parameter",
            )

    @property
    @override
    def tokens_out(self) -> int:
        return self.kept + 2

    @override
    def _reduce(self, ops: OpList, x: Activation) -> Activation:
        for summed in (self.tokens - 1, self.kept):
            ops.matmul(x.view(1, 1, summed), x.view(1, summed, self.dim), traffic=0)
        return ops.copy(x, 1, self.tokens_out, self.dim, traffic=0)
