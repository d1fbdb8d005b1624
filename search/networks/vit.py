"""A ViT over the pixels of a map, and its layers, which reduce tokens by products with one-hot matrices.

XNNPACK has no `topk`, `gather` and `scatter_add`, and no comparisons either. A comparison of a and b is
clamp(large * (a - b), 0, 1), the rank of a score is the number of scores before it, and row j of a one-hot matrix
is 1 where the rank is j. Outputs are those of `topk` and `gather`; of equal scores the first counts as the larger.
Nothing is learned through ranks and one-hot matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from luts.format.errors import UsageError
from search.blocks import BlockSpec
from search.blocks.vit import (
    CoveringLayer,
    DroppingLayer,
    IdleLayer,
    MergingLayer,
    MlerpLayer,
    PatchMergerLayer,
    PruningLayer,
    ScoredLayer,
    SelectingLayer,
    TopKLayer,
    VitLayer,
    VitShell,
)
from search.networks.layers import (
    attention,
    attention_scores,
    join_heads,
    split_heads,
    to_map,
    to_tokens,
)
from search.networks.network import module_around, module_of
from search.networks.transformers import NORM_EPS

STEEP = 6e4
"""Factor of a comparison, applied twice: the largest round number in fp16's range. Its square tells any two fp32
numbers between 1/256 and 1 apart."""


def indices(like: Tensor, count: int) -> Tensor:
    """Return 0, 1, ... (count,) in the type and on the device of another tensor."""
    return torch.arange(count, dtype=like.dtype, device=like.device)


def _constant(x: Tensor) -> Tensor:
    """Return x without its gradient; in an exported program `detach` would be a copy outside the delegate."""
    return x.detach() if torch.is_grad_enabled() else x


def ranks(scores: Tensor) -> Tensor:
    """Return the ranks of scores (B, 1, m), 0 the largest, in the same shape."""
    scores, count = _constant(scores), scores.shape[2]
    place = indices(scores, count)
    earlier = (place[:, None] > place).to(scores.dtype)
    lead = (STEEP * (scores - scores.reshape(-1, count, 1))).clamp(-1.0, 1.0)
    return (STEEP * lead + earlier).clamp(0.0, 1.0).sum(2).reshape(-1, 1, count)


def nearest(similarity: Tensor, best: Tensor) -> Tensor:
    """Return weights (B, b, a): those of the best similarities of a column are equal and sum to 1."""
    partner = F.relu(1.0 + STEEP * (STEEP * (similarity - best)).clamp(-1.0, 0.0))
    return partner / partner.sum(1, keepdim=True)


class Comparison(nn.Module):
    """Calls a function whose operations stay fp32 in an int8 program: 8 bits can't hold a steep slope."""

    @override
    def forward(self, compare: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        return compare(*inputs)


def one_hot(places: Tensor, count: int) -> Tensor:
    """Return a matrix (B, count, m) whose row j is 1 where `places` (B, 1, m), whole numbers, are j."""
    return F.relu(1.0 - (places - indices(places, count).reshape(1, count, 1)).abs())


def picked(matrix: Tensor, x: Tensor) -> Tensor:
    """Return the class token of x (B, 1 + m, d) and the product of a matrix (B, k, m) with the other tokens."""
    return torch.cat((x[:, :1], torch.bmm(matrix, x[:, 1:])), 1)


@module_of.register(VitLayer)
class Layer(nn.Module):
    """Attention and MLP with residuals; `reduce` drops tokens between them. (B, n, d) -> (B, n', d)."""

    def __init__(self, spec: VitLayer):
        super().__init__()
        self.heads = spec.heads
        self.norm1 = nn.LayerNorm(spec.dim, NORM_EPS)
        self.qkv = nn.Linear(spec.dim, 3 * spec.inner)
        self.proj = nn.Linear(spec.inner, spec.dim)
        self.norm2 = nn.LayerNorm(spec.dim, NORM_EPS)
        self.fc1 = nn.Linear(spec.dim, spec.hidden)
        self.fc2 = nn.Linear(spec.hidden, spec.dim)
        self.compare = Comparison()

    def reduce(
        self,
        x: Tensor,
        keys: Tensor,  # noqa: ARG002
        scores: Tensor,  # noqa: ARG002
        sizes: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the tokens that stay after attention, here all, and their sizes.

        Args:
            x: (B, n, d), the class token first, after attention and its residual.
            keys: (B * heads, n, head_dim).
            scores: (B * heads, n, n), softmax over the last dimension.
            sizes: (B, n, 1), pixels that a token represents; None if that is one for all.
        """
        return x, sizes

    def step(self, x: Tensor, sizes: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the layer's tokens and their sizes, to which attention is proportional (Bolya, equation 1)."""
        q, k, v = split_heads(self.qkv(self.norm1(x)), 3, self.heads)
        scores = attention_scores(q, k, self.heads, self.bias(sizes))
        x = x + self.proj(join_heads(torch.bmm(scores, v), self.heads))
        x, sizes = self.reduce(x, k, scores, sizes)
        return self.feed(x), sizes

    def bias(self, sizes: Tensor | None) -> Tensor | None:
        """Return what attention adds to its scores for the sizes of keys."""
        return None if sizes is None else sizes.log().transpose(1, 2)[:, None]

    def feed(self, x: Tensor) -> Tensor:
        """Return x after the MLP and its residual."""
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))

    def mean_over_heads(self, scores: Tensor) -> Tensor:
        """Return the mean (B, 1, m) of the scores (B * heads, 1, m) of one token."""
        return scores.reshape(-1, self.heads, scores.shape[2]).mean(1, keepdim=True)

    @override
    def forward(self, x: Tensor) -> Tensor:
        return self.step(x, None)[0]


@module_of.register(MergingLayer)
class Merging(Layer):
    """ToMe: bipartite soft matching by the similarity of keys; the class token is never merged.

    A token that is equally similar to several others is split evenly among them.
    """

    def __init__(self, spec: MergingLayer):
        super().__init__(spec)
        self.merged, self.sources = spec.merged, spec.sources

    @override
    def reduce(
        self, x: Tensor, keys: Tensor, scores: Tensor, sizes: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return r tokens fewer: the remaining even ones in order, then the odd ones."""
        batch, tokens, dim = x.shape
        metric = _constant(keys).reshape(batch, self.heads, tokens, -1).mean(1)
        odd, even = _alternate(F.normalize(metric, dim=-1))
        similarity = torch.bmm(odd, even.transpose(1, 2))
        best = _largest(similarity)
        partner = self.compare(nearest, similarity, best)
        chosen = (float(self.merged) - self.compare(ranks, best)).clamp(0.0, 1.0)
        if sizes is None:  # not `ones_like`, which is outside the delegate
            sizes = torch.ones((batch, tokens, 1), dtype=x.dtype, device=x.device)
        sized = torch.cat((x * sizes, sizes), 2)
        odd, even = _alternate(sized)
        parts = [sized[:, :1], self.join(odd, even, partner * chosen)]
        if self.merged < self.sources:
            before = indices(x, self.sources)
            order = F.linear(1.0 - chosen, (before[:, None] > before).to(x.dtype))
            stay = one_hot(order + float(self.sources) * chosen, self.sources - self.merged)
            parts.insert(1, torch.bmm(stay, even))
        joined = torch.cat(parts, 1)
        sizes = joined[:, :, dim:]
        return joined[:, :, :dim] / sizes, sizes

    def join(self, odd: Tensor, even: Tensor, weights: Tensor) -> Tensor:
        """Return odd tokens joined with even ones by weights (B, b, a).

        Tokens (B, b, d + 1) and (B, a, d + 1) are multiplied by their sizes, the last channel.
        """
        return odd + torch.bmm(weights, even)


@module_of.register(DroppingLayer)
class Dropping(Merging):
    """Token Fusion in early layers: tokens that ToMe merges are dropped."""

    @override
    def join(self, odd: Tensor, even: Tensor, weights: Tensor) -> Tensor:
        return odd


@module_of.register(MlerpLayer)
class Mlerp(Merging):
    """Token Fusion in late layers: a mean of tokens gets the length of the longest of them."""

    @override
    def join(self, odd: Tensor, even: Tensor, weights: Tensor) -> Tensor:
        joined = super().join(odd, even, weights)
        lengths, others, means = (_lengths(each) for each in (odd, even, joined))
        merged = (STEEP * weights).clamp(0.0, 1.0) * others.transpose(1, 2)
        longest = torch.maximum(lengths, _largest(merged.transpose(1, 2)).transpose(1, 2))
        return torch.cat((joined[:, :, :-1] * (longest / means), joined[:, :, -1:]), 2)


def _alternate(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the odd tokens of (B, n, d), and the even ones but the class token; XNNPACK has no strided slices."""
    batch, tokens, dim = x.shape
    pairs = x[:, 1 : tokens - (tokens - 1) % 2].reshape(batch, (tokens - 1) // 2, 2 * dim)
    odd, even = pairs[:, :, :dim], pairs[:, :, dim:]
    return (odd if tokens % 2 else torch.cat((odd, x[:, tokens - 1 :]), 1)), even


def _lengths(x: Tensor) -> Tensor:
    """Return the lengths (B, n, 1) of tokens (B, n, d + 1) that are multiplied by their sizes, the last channel."""
    return (x[:, :, :-1] / x[:, :, -1:]).square().sum(2, keepdim=True).sqrt().clamp(min=1e-6)


def _largest(x: Tensor) -> Tensor:
    """Return the maximum of each column: (B, b, a) to (B, 1, a), as a pool, which XNNPACK has."""
    rows = x.shape[1]
    return to_tokens(F.max_pool2d(to_map(x, rows), (rows, 1)))


class Selecting(Layer):
    """The class token stays, and products of the other tokens with a matrix."""

    def __init__(self, spec: SelectingLayer):
        super().__init__(spec)
        self.kept = spec.kept

    def matrix(self, others: Tensor, attended: Tensor) -> Tensor:
        """Return the matrix (B, k, m) for tokens (B, m, d) and the class token's attention to them (B, 1, m)."""
        raise NotImplementedError

    @override
    def reduce(
        self, x: Tensor, keys: Tensor, scores: Tensor, sizes: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        matrix = self.matrix(x[:, 1:], self.mean_over_heads(scores[:, :1, 1:]))
        return picked(matrix, x), None if sizes is None else picked(matrix, sizes)


@module_of.register(TopKLayer)
class TopK(Selecting):
    """The k tokens that the class token attends to most, by descending attention."""

    @override
    def matrix(self, others: Tensor, attended: Tensor) -> Tensor:
        return one_hot(self.compare(ranks, attended * float(attended.shape[2])), self.kept)


@module_of.register(PruningLayer)
class Pruning(Selecting):
    """EViT: the k tokens that the class token attends to most, and the rest as one."""

    @override
    def matrix(self, others: Tensor, attended: Tensor) -> Tensor:
        order = self.compare(ranks, attended * float(attended.shape[2]))
        rest = attended * (order - (self.kept - 1.0)).clamp(0.0, 1.0)
        return torch.cat((one_hot(order, self.kept), rest), 1)


class Scorer(nn.Module):
    """DynamicViT's predictor (equations 2 to 5): (B, m, d) to scores (B, 1, m).

    The layer after the concatenation of local and global features is two layers, whose outputs are added.
    """

    def __init__(self, dim: int):
        super().__init__()
        half = dim // 2
        self.norm = nn.LayerNorm(dim, NORM_EPS)
        self.local, self.common = nn.Linear(dim, half), nn.Linear(dim, half)
        self.from_local, self.from_common = nn.Linear(half, half), nn.Linear(half, half, bias=False)
        self.score = nn.Linear(half, 1)

    @override
    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        common = F.gelu(self.common(x)).mean(1, keepdim=True)
        joined = self.from_local(F.gelu(self.local(x))) + self.from_common(common)
        scores: Tensor = self.score(F.gelu(joined))
        return scores.reshape(len(x), 1, -1)


@module_of.register(ScoredLayer)
class Scored(Selecting):
    """DynamicViT: the k tokens of the largest learned scores.

    In training the gradient of a token that stays is also that of its probability to stay (straight through),
    as for the paper's hard Gumbel-Softmax.
    """

    def __init__(self, spec: ScoredLayer):
        super().__init__(spec)
        self.scorer = Scorer(spec.dim)

    @override
    def matrix(self, others: Tensor, attended: Tensor) -> Tensor:
        scores: Tensor = self.scorer(others)
        chosen = one_hot(self.compare(ranks, scores), self.kept)
        if not self.training:
            return chosen
        probability = scores.sigmoid()
        return chosen * (1.0 + (probability - probability.detach()))


@module_of.register(PatchMergerLayer)
class PatchMerger(Selecting):
    """PatchMerger: each of k outputs is a mean of all tokens, weighted by softmax over tokens of X W."""

    def __init__(self, spec: PatchMergerLayer):
        super().__init__(spec)
        self.merge = nn.Linear(spec.dim, spec.kept, bias=False)

    @override
    def matrix(self, others: Tensor, attended: Tensor) -> Tensor:
        return self.merge(others).transpose(1, 2).softmax(2)


@module_of.register(IdleLayer)
class Idle(Layer):
    """IdleViT: class token and k others go through the layer; the others are unchanged."""

    def __init__(self, spec: IdleLayer):
        super().__init__(spec)
        self.kept = spec.kept

    @override
    def step(self, x: Tensor, sizes: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return all tokens and their sizes."""
        dim, qkv = x.shape[2], self.qkv(self.norm1(x))
        (query,) = split_heads(qkv[:, :1, :dim], 1, self.heads)
        (keys,) = split_heads(qkv[:, :, dim : 2 * dim], 1, self.heads)
        scores = self.mean_over_heads(torch.bmm(query, keys.transpose(1, 2))[:, :, 1:])
        matrix = one_hot(self.compare(ranks, scores), self.kept)
        both = picked(matrix, torch.cat((x, qkv), 2))
        chosen = both[:, :, :dim]
        bias = self.bias(None if sizes is None else picked(matrix, sizes))
        mixed = chosen + self.proj(attention(both[:, :, dim:], self.heads, bias))
        return x + picked(matrix.transpose(1, 2), self.feed(mixed) - chosen), sizes


@module_of.register(CoveringLayer)
class Covering(Layer):
    """Holds the weights of all kinds of layer in a supernet."""

    def __init__(self, spec: CoveringLayer):
        super().__init__(spec)
        self.scorer = Scorer(spec.dim)
        self.merge = nn.Linear(spec.dim, spec.tokens - 1, bias=False)


@module_around.register(VitShell)
class VisionTransformer(nn.Module):
    """(B, d, H, W) -> (B, d, 1, 1): layers over pixels and a class token, which is the output."""

    def __init__(self, shell: VitShell, enclosed: Sequence[BlockSpec]):
        super().__init__()
        tokens = shell.tokens
        for layer in enclosed:
            if isinstance(layer, CoveringLayer):
                continue
            if not isinstance(layer, VitLayer) or layer.tokens != tokens:
                raise UsageError(
                    f"{layer.key} gets {tokens} tokens; change the layers before it", code="blocks_do_not_fit"
                )
            tokens = layer.tokens_out
        self.layers = nn.ModuleList(module_of(layer) for layer in enclosed)
        self.class_token = nn.Parameter(0.02 * torch.randn(1, 1, shell.dim))
        self.positions = nn.Parameter(0.02 * torch.randn(1, shell.tokens, shell.dim))
        self.norm = nn.LayerNorm(shell.dim, NORM_EPS)

    @override
    def forward(self, x: Tensor) -> Tensor:
        batch, dim = x.shape[:2]
        first = self.class_token if batch == 1 else self.class_token.expand(batch, -1, -1)
        tokens, sizes = torch.cat((first, to_tokens(x)), 1) + self.positions, None
        for layer in self.layers:
            assert isinstance(layer, Layer)
            tokens, sizes = layer.step(tokens, sizes)
        return self.norm(tokens[:, :1]).reshape(batch, dim, 1, 1)
