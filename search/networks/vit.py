"""A vision transformer whose layers may merge or prune tokens; shapes are static."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from luts.format.errors import UsageError
from search.blocks import BlockSpec
from search.blocks.vit import MergingLayer, PruningLayer, VitLayer, VitPlainLayer, VitShell
from search.networks.layers import attention_scores, join_heads, split_heads, to_tokens
from search.networks.network import module_around, module_of

NORM_EPS = 1e-6
"""Epsilon of LayerNorm in ViT and DeiT."""


@dataclass(frozen=True)
class AttentionResult:
    """Tokens after attention and its residual, and intermediate results of attention.

    Attributes:
        x: (B, n, d), the class token first.
        keys: (B * heads, n, head_dim).
        scores: (B * heads, n, n), softmax over the last dimension.
        sizes: (B, n, 1), pixels that a token represents; None if that is one for all.
    """

    x: Tensor
    keys: Tensor
    scores: Tensor
    sizes: Tensor | None


class Layer(nn.Module):
    """Attention and MLP with residuals; `reduce` drops tokens between them. (B, n, d) -> (B, n', d)."""

    def __init__(self, dim: int, heads: int, hidden: int):
        """Create the layers."""
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim, NORM_EPS)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim, NORM_EPS)
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def reduce(self, result: AttentionResult) -> tuple[Tensor, Tensor | None]:
        """Return the tokens that stay, here all, and their sizes."""
        return result.x, result.sizes

    def step(self, x: Tensor, sizes: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the layer's tokens and their sizes.

        Args:
            x: (B, n, d).
            sizes: (B, n, 1) pixels that each token represents; attention is proportional to them (Bolya,
                equation 1).
        """
        q, k, v = split_heads(self.qkv(self.norm1(x)), 3, self.heads)
        bias = None if sizes is None else sizes.log().transpose(1, 2)[:, None]
        scores = attention_scores(q, k, self.heads, bias)
        x = x + self.proj(join_heads(torch.bmm(scores, v), self.heads))
        x, sizes = self.reduce(AttentionResult(x, k, scores, sizes))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x)))), sizes

    @override
    def forward(self, x: Tensor) -> Tensor:
        return self.step(x, None)[0]


class Merging(Layer):
    """ToMe: bipartite soft matching by the similarity of keys; the class token is never merged."""

    def __init__(self, dim: int, heads: int, hidden: int, merged: int):
        """Create the layers; `merged` is the number r of tokens that are merged."""
        super().__init__(dim, heads, hidden)
        self.merged = merged

    def reduce(self, result: AttentionResult) -> tuple[Tensor, Tensor | None]:
        """Return r tokens fewer: the remaining even ones in order, then the odd ones."""
        x, sizes = result.x, result.sizes
        batch, tokens, _ = x.shape
        metric = F.normalize(result.keys.reshape(batch, self.heads, tokens, -1).mean(1), dim=-1)
        similarity = torch.bmm(_even(metric)[:, 1:], _odd(metric).transpose(1, 2))
        best, partner = similarity.max(-1)
        order = best.topk(best.shape[1]).indices
        chosen, others = order[:, : self.merged], order[:, self.merged :]
        places = (chosen, _ascending(others), partner.gather(1, chosen))
        if sizes is None:
            sizes = x.new_ones(batch, tokens, 1)
        total = _merge(sizes, places)
        return _merge(x * sizes, places) / total, total


def _even(x: Tensor) -> Tensor:
    return x[:, ::2]


def _odd(x: Tensor) -> Tensor:
    return x[:, 1::2]


def _ascending(places: Tensor) -> Tensor:
    """Sort with `topk`, because mobile runtimes have no `sort`."""
    count = places.shape[1]
    return places.gather(1, (-places.float()).topk(count).indices) if count else places


def _rows(x: Tensor, places: Tensor) -> Tensor:
    """Gather rows: (B, n, d) and indices (B, m) -> (B, m, d)."""
    return x.gather(1, places[:, :, None].expand(-1, -1, x.shape[2]))


def _merge(x: Tensor, places: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Add the chosen even tokens to their odd partners; return class token, other even ones, odd ones."""
    chosen, others, partner = places
    even = _even(x)
    index = partner[:, :, None].expand(-1, -1, x.shape[2])
    joined = _odd(x).scatter_add(1, index, _rows(even[:, 1:], chosen))
    return torch.cat((even[:, :1], _rows(even[:, 1:], others), joined), 1)


class Pruning(Layer):
    """EViT: the k tokens that the class token attends to most (mean over heads), and the rest as one."""

    def __init__(self, dim: int, heads: int, hidden: int, kept: int):
        """Create the layers; `kept` is the number k of tokens that stay."""
        super().__init__(dim, heads, hidden)
        self.kept = kept

    def reduce(self, result: AttentionResult) -> tuple[Tensor, Tensor | None]:
        """Return the class token, k tokens by descending attention, and the fused rest (all minus the k)."""
        x = result.x
        batch, tokens, _ = x.shape
        weights = result.scores[:, 0, 1:].reshape(batch, self.heads, tokens - 1).mean(1)
        most, places = weights.topk(self.kept)
        kept = _rows(x[:, 1:], places)
        fused = torch.bmm(weights[:, None], x[:, 1:]) - torch.bmm(most[:, None], kept)
        return torch.cat((x[:, :1], kept, fused), 1), result.sizes


class VisionTransformer(nn.Module):
    """(B, d, H, W) -> (B, d, 1, 1): layers over pixels and a class token, which is the output."""

    def __init__(self, dim: int, tokens: int, layers: Sequence[nn.Module]):
        """Create class token and positions for `tokens` tokens around the given layers."""
        super().__init__()
        self.class_token = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        self.positions = nn.Parameter(0.02 * torch.randn(1, tokens, dim))
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(dim, NORM_EPS)

    @override
    def forward(self, x: Tensor) -> Tensor:
        batch, dim = x.shape[:2]
        first = self.class_token if batch == 1 else self.class_token.expand(batch, -1, -1)
        tokens, sizes = torch.cat((first, to_tokens(x)), 1) + self.positions, None
        for layer in self.layers:
            assert isinstance(layer, Layer)
            tokens, sizes = layer.step(tokens, sizes)
        out: Tensor = self.norm(tokens[:, :1]).reshape(batch, dim, 1, 1)
        return out


def vision_transformer(shell: VitShell, enclosed: Sequence[BlockSpec]) -> VisionTransformer:
    """Create a shell with its layers; raise `UsageError` if a layer's key has another number of tokens."""
    tokens = shell.tokens
    for layer in enclosed:
        if not isinstance(layer, VitLayer) or layer.tokens != tokens:
            raise UsageError(
                f"{layer.key} gets {tokens} tokens; change the layers before it", code="blocks_do_not_fit"
            )
        tokens = layer.tokens_out
    return VisionTransformer(shell.dim, shell.tokens, [module_of(layer) for layer in enclosed])


module_around.register(VitShell, vision_transformer)
module_of.register(VitPlainLayer, lambda spec: Layer(spec.dim, spec.heads, spec.hidden))
module_of.register(MergingLayer, lambda spec: Merging(spec.dim, spec.heads, spec.hidden, spec.merged))
module_of.register(PruningLayer, lambda spec: Pruning(spec.dim, spec.heads, spec.hidden, spec.kept))
