"""A ViT over the pixels of a map (Dosovitskiy et al. 2021), whose layers may reduce the number of tokens.

Each kind of layer keeps, prunes or merges a fixed number of tokens between attention and MLP, so that shapes are
static. All kinds share the weights of `vit.layer` in a supernet. Selecting and merging are products with one-hot
matrices, since XNNPACK has no `topk`, `gather` and `scatter_add`; they count as operations here.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from typing_extensions import override

from search.blocks.ops import Activation, OpList, attention
from search.blocks.spec import BlockSpec, DimKeeping, EnclosingSpec, Factors, param, register
from search.blocks.transformers import TransformerLayer

RANK_PASSES = 7
"""Element-wise passes over the matrix that compares all scores with each other, their sum included."""


@register
class VitShell(DimKeeping, EnclosingSpec):
    """Class token, learned positions and last LayerNorm of a ViT whose tokens are the pixels of a map.

    The output is the normalised class token as a map of one pixel. The shell hands the sizes of merged tokens
    from layer to layer.
    """

    kind = "vit.shell"
    examples = ("vit.shell(d=8)@3", "vit.shell(d=16)@4")

    @property
    def tokens(self) -> int:
        """Tokens of the first layer: the map's pixels and the class token."""
        return self.resolution**2 + 1

    @override
    def add_ops(self, ops: OpList) -> None:
        d, n = self.dim, self.tokens
        pixels = ops.layout(ops.input, 1, n - 1, d)
        tokens = ops.with_class_token(pixels, traffic=(2 * n + 1) * d)
        tokens = ops.elementwise(tokens, params=n * d)
        first = ops.layout(tokens, 1, 1, d)
        ops.layout(ops.norm(first), 1, d, 1, 1)

    @override
    def factors(self) -> Factors:
        """Return the channels of class token and positions, of which a smaller shell has the first."""
        return {name: {2: (self.dim,)} for name in ("class_token", "positions")}

    @override
    def surrounding_elements(self) -> int:
        """Return 0: the layers' input counts as theirs."""
        return 0

    @override
    def encloses(self, other: BlockSpec) -> bool:
        return isinstance(other, VitLayer) and (other.dim, other.resolution) == (self.dim, self.resolution)


@dataclasses.dataclass(frozen=True)
class VitLayer(TransformerLayer):
    """A layer over n tokens of a `vit.shell`, of which fewer may stay after attention."""

    enclosed_by = "vit.shell"
    elastic = True
    branches = ("proj", "fc2")

    tokens: int = param("n")

    def __post_init__(self) -> None:
        """Raise `UsageError` if heads do not divide the dimension or too many or too few tokens stay."""
        self._require(
            self.dim % self.heads == 0,
            f"{self.heads} heads do not divide {self.dim} channels; change one of them",
        )

    @property
    @override
    def input_shape(self) -> tuple[int, ...]:
        return (1, self.tokens, self.dim)

    @property
    def tokens_out(self) -> int:
        """Tokens after the layer."""
        return self.tokens

    @property
    def head_dim(self) -> int:
        """Channels of a head's query, key and value."""
        return self.dim // self.heads

    @property
    def inner(self) -> int:
        """Channels of query, of key and of value."""
        return self.heads * self.head_dim

    @override
    def add_ops(self, ops: OpList) -> None:
        self._feed(ops, self._reduce(ops, self._attend(ops, ops.input, query_traffic=self.tokens * self.dim)))

    def _feed(self, ops: OpList, x: Activation) -> Activation:
        """Append the MLP branch: LayerNorm, two linear layers with GELU between them, residual."""
        y = ops.elementwise(ops.linear(ops.norm(x), self.hidden))
        return ops.add(ops.linear(y, self.dim), x)

    def _reduce(self, ops: OpList, x: Activation) -> Activation:  # noqa: ARG002
        """Append what drops tokens: (1, n, d) to (1, n', d)."""
        return x

    def _one_hot(self, ops: OpList, x: Activation, scores: int, rows: int) -> Activation:
        """Append ranks, for which all scores are compared with each other, and their matrix (1, rows, scores)."""
        compared = ops.elementwise(x.view(1, scores, scores), traffic=RANK_PASSES * 2 * scores**2)
        return ops.elementwise(compared.view(1, rows, scores))

    def _multiply(self, ops: OpList, matrix: Activation, x: Activation, channels: int) -> Activation:
        """Append the product of a matrix (1, rows, columns) with tokens: (1, rows, channels)."""
        return ops.matmul(matrix, x.view(1, matrix.shape[2], channels))

    @override
    def factors(self) -> Factors:
        heads = (self.heads, self.head_dim)
        return {"qkv.weight": {0: (3, *heads)}, "qkv.bias": {0: (3, *heads)}, "proj.weight": {1: heads}}

    @override
    def covering(self, other: Any) -> Any:
        """Return the layer that holds the weights of both, whatever their kinds."""
        return CoveringLayer(
            self.resolution,
            max(self.dim, other.dim),
            max(self.heads, other.heads),
            max(self.mlp_ratio, other.mlp_ratio),
            max(self.tokens, other.tokens),
            max(self.head_dim, other.head_dim),
        )


@dataclasses.dataclass(frozen=True)
class CoveringLayer(VitLayer):
    """The weights of every kind of layer at one place of a supernet; no network has it.

    Attributes:
        widest_head: Channels of a head; those of all heads need not be `dim`.
    """

    widest_head: int = param("head_dim")

    @override
    def __post_init__(self) -> None:
        """Accept heads that do not divide the dimension."""

    @property
    @override
    def head_dim(self) -> int:
        return self.widest_head


@register
class VitPlainLayer(VitLayer):
    """Dosovitskiy et al. 2021, equations 2 and 3: all tokens stay."""

    kind = "vit.layer"
    complexity = "12 N d^2 + 2 N^2 d (MLP of 4 d)"
    examples = ("vit.layer(d=8,heads=2,ratio=1.5,n=10)@3", "vit.layer(d=16,heads=2,ratio=2,n=17)@4")
    removable = True


@register
class MergingLayer(VitLayer):
    """Token merging (Bolya et al. 2023, section 3): merges the r most similar pairs of alternate tokens.

    Similarity is that of keys, averaged over heads. Tokens are weighted by the number of pixels that they
    represent, in the mean that joins them and in attention (proportional attention).
    """

    kind = "vit.tome"
    complexity = "(4 N + 8 (N - r)) d^2 + 2 N^2 d + N^2 (d / h + 2 d) / 4"
    examples = ("vit.tome(d=8,heads=2,ratio=2,n=16,r=3)@4", "vit.tome(d=16,heads=4,ratio=2,n=37,r=4)@6")

    merged: int = param("r")

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(
            0 < self.merged <= self.sources,
            f"r = {self.merged}, but 1 to {self.sources} tokens can be merged; change r",
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
        sources, targets, sized = self.sources, self.tokens // 2, self.dim + 1
        metric = ops.elementwise(x.view(1, self.tokens, self.head_dim))
        similar = ops.matmul(metric.view(1, targets, self.head_dim), metric.view(1, self.head_dim, sources))
        self._join(ops, ops.elementwise(similar), x)
        stay = self._one_hot(ops, x, sources, sources - self.merged)
        if sources > self.merged:
            ops.linear(stay.view(1, 1, sources), sources, trained=False)
            self._multiply(ops, stay, x, sized)
        return ops.copy(x, 1, self.tokens_out, self.dim)

    def _join(self, ops: OpList, weights: Activation, x: Activation) -> None:
        """Append the sum of odd tokens and those that are merged with them."""
        self._multiply(ops, weights, x, self.dim + 1)


@register
class DroppingLayer(MergingLayer):
    """Token Fusion (Kim et al. 2024) where a network is far from linear: tokens that ToMe merges are dropped."""

    kind = "vit.drop"
    complexity = "(4 N + 8 (N - r)) d^2 + 2 N^2 d + N^2 (d / h + d) / 4"
    examples = ("vit.drop(d=8,heads=2,ratio=2,n=16,r=3)@4", "vit.drop(d=16,heads=4,ratio=2,n=37,r=4)@6")

    @override
    def _join(self, ops: OpList, weights: Activation, x: Activation) -> None:
        """Append nothing."""


@register
class MlerpLayer(MergingLayer):
    """Token Fusion (Kim et al. 2024) where a network is nearly linear: means as long as their longest token."""

    kind = "vit.mlerp"
    examples = ("vit.mlerp(d=8,heads=2,ratio=2,n=16,r=3)@4", "vit.mlerp(d=16,heads=4,ratio=2,n=37,r=4)@6")

    @override
    def _join(self, ops: OpList, weights: Activation, x: Activation) -> None:
        super()._join(ops, weights, x)
        ops.elementwise(ops.elementwise(weights))
        ops.elementwise(ops.elementwise(x))


@dataclasses.dataclass(frozen=True)
class SelectingLayer(VitLayer):
    """A layer after whose attention the class token and k others stay."""

    kept: int = param("k")

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(
            0 < self.kept < self.tokens - 1,
            f"k = {self.kept} of {self.tokens - 1} tokens; keep 1 to {self.tokens - 2}",
        )

    @property
    @override
    def tokens_out(self) -> int:
        return self.kept + 1

    def _picked(self, ops: OpList, matrix: Activation, x: Activation, channels: int) -> Activation:
        """Append the product of a matrix with all tokens but the class token, which is put before it."""
        return ops.concat(x.view(1, 1, channels), self._multiply(ops, matrix, x, channels))

    @override
    def _reduce(self, ops: OpList, x: Activation) -> Activation:
        matrix = self._one_hot(ops, x, self.tokens - 1, self.tokens_out - 1)
        return self._picked(ops, matrix, x, self.dim)


@register
class TopKLayer(SelectingLayer):
    """The k tokens that the class token attends to most stay (EViT, section 3.2, without the fused token)."""

    kind = "vit.topk"
    complexity = "(4 N + 8 (k + 1)) d^2 + 2 N^2 d + N k d + N^2"
    examples = ("vit.topk(d=8,heads=2,ratio=2,n=16,k=9)@4", "vit.topk(d=16,heads=4,ratio=2,n=37,k=25)@6")


@register
class PruningLayer(SelectingLayer):
    """EViT (Liang et al. 2022, section 3): the k tokens that the class token attends to most stay.

    The others become one, each weighted by that attention.
    """

    kind = "vit.evit"
    complexity = "(4 N + 8 (k + 2)) d^2 + 2 N^2 d + N (k + 1) d + N^2"
    examples = ("vit.evit(d=8,heads=2,ratio=2,n=16,k=9)@4", "vit.evit(d=16,heads=4,ratio=2,n=37,k=25)@6")

    @property
    @override
    def tokens_out(self) -> int:
        return self.kept + 2


@register
class ScoredLayer(SelectingLayer):
    """DynamicViT's learned scores (Rao et al. 2021, equations 2 to 5), of which the k largest stay.

    A score depends on the token and on the mean over all of them. The two probabilities of equation 5 are one
    logit, their difference: the order is the same, and k is fixed instead of sampled (as in SPViT's deployment).
    """

    kind = "vit.scored"
    complexity = "(4 N + 8 (k + 1) + 5 N / 4) d^2 + 2 N^2 d + N k d + N^2"
    examples = ("vit.scored(d=8,heads=2,ratio=2,n=16,k=9)@4", "vit.scored(d=16,heads=4,ratio=2,n=37,k=25)@6")

    @override
    def _reduce(self, ops: OpList, x: Activation) -> Activation:
        others, half = self.tokens - 1, self.dim // 2
        normed = ops.norm(x.view(1, others, self.dim))
        local = ops.linear(ops.elementwise(ops.linear(normed, half)), half)
        common = ops.elementwise(ops.linear(normed, half))
        mean = ops.elementwise(common).view(1, 1, half)
        scores = ops.elementwise(ops.add(local, ops.linear(mean, half, bias=False)))
        ops.linear(scores, 1)
        return super()._reduce(ops, x)


@register
class PatchMergerLayer(SelectingLayer):
    """PatchMerger (Renggli et al. 2022, section 3): k tokens softmax((X W)^T) X of all but the class token.

    As all reductions here it is after attention; the paper has it between two layers.
    """

    kind = "vit.merger"
    complexity = "(4 N + 8 (k + 1)) d^2 + 2 N^2 d + 2 N k d"
    examples = ("vit.merger(d=8,heads=2,ratio=2,n=16,k=7)@4", "vit.merger(d=16,heads=4,ratio=2,n=37,k=25)@6")

    @override
    def _reduce(self, ops: OpList, x: Activation) -> Activation:
        others = x.view(1, self.tokens - 1, self.dim)
        matrix = ops.softmax(ops.linear(others, self.kept, bias=False).view(1, self.kept, self.tokens - 1))
        return self._picked(ops, matrix, x, self.dim)


@register
class IdleLayer(SelectingLayer):
    """IdleViT (Xu et al. 2023, section 3): the class token and k others go through the layer, all tokens stay.

    The k are those whose keys the class token's query fits best, in the mean over heads. The others pass by
    unchanged and may be chosen in a later layer. Query, key and value are computed for all tokens.
    """

    kind = "vit.idle"
    complexity = "(3 N + 9 k) d^2 + 2 k^2 d + 5 N k d + N^2"
    examples = ("vit.idle(d=8,heads=2,ratio=2,n=16,k=9)@4", "vit.idle(d=16,heads=4,ratio=2,n=37,k=25)@6")

    @property
    @override
    def tokens_out(self) -> int:
        return self.tokens

    @override
    def add_ops(self, ops: OpList) -> None:
        n, d, chosen = self.tokens, self.dim, self.kept + 1
        x = ops.input
        qkv = ops.linear(ops.norm(x), 3 * d)
        ops.matmul(qkv.view(self.heads, 1, self.head_dim), qkv.view(self.heads, self.head_dim, n))
        matrix = self._one_hot(ops, qkv, n - 1, self.kept)
        both = self._picked(ops, matrix, ops.concat(x, qkv, axis=2), 4 * d)
        heads = both.view(self.heads, chosen, self.head_dim)
        mixed = attention(ops, heads, heads, heads)
        y = self._feed(ops, ops.add(ops.linear(mixed.view(1, chosen, d), d), both.view(1, chosen, d)))
        change = ops.add(y, both.view(1, chosen, d))
        ops.add(self._picked(ops, matrix.view(1, n - 1, self.kept), change, d), x)
