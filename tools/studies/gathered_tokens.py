"""Plug-in with ToMe, EViT and Top-K by `topk`, `gather` and `scatter_add`, which XNNPACK leaves to other kernels.

The package selects tokens by products (`search/networks/vit.py`). To measure both forms side by side:
`bench --import tools/studies/gathered_tokens.py blocks --device host --blocks vit,evit,evit-gather,tome,tome-gather`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from orchestrator.tasks import blocks
from search.blocks import Activation, OpList
from search.blocks.spec import register
from search.blocks.vit import MergingLayer, PruningLayer, TopKLayer
from search.networks.network import module_of
from search.networks.vit import Merging, Pruning, Selecting


@register
class GatheredMergingLayer(MergingLayer):
    """`vit.tome`, whose matching is sorted and whose tokens are gathered and added by index."""

    kind: ClassVar[str] = "vit.tome.gather"
    examples: ClassVar[tuple[str, ...]] = tuple(
        key.replace(MergingLayer.kind, "vit.tome.gather") for key in MergingLayer.examples
    )

    @override
    def _reduce(self, ops: OpList, x: Activation) -> Activation:
        targets = self.tokens // 2
        ops.matmul(x.view(1, targets, self.head_dim), x.view(1, self.head_dim, self.sources))
        return ops.copy(x, 1, self.tokens_out, self.dim)


@register
class GatheredPruningLayer(PruningLayer):
    """`vit.evit`, whose tokens are gathered."""

    kind: ClassVar[str] = "vit.evit.gather"
    examples: ClassVar[tuple[str, ...]] = tuple(
        key.replace(PruningLayer.kind, "vit.evit.gather") for key in PruningLayer.examples
    )

    @override
    def _reduce(self, ops: OpList, x: Activation) -> Activation:
        for summed in (self.tokens - 1, self.kept):
            ops.matmul(x.view(1, 1, summed), x.view(1, summed, self.dim))
        return ops.copy(x, 1, self.tokens_out, self.dim)


@register
class GatheredTopKLayer(TopKLayer):
    """`vit.topk`, whose tokens are gathered."""

    kind: ClassVar[str] = "vit.topk.gather"
    examples: ClassVar[tuple[str, ...]] = tuple(
        key.replace(TopKLayer.kind, "vit.topk.gather") for key in TopKLayer.examples
    )

    @override
    def _reduce(self, ops: OpList, x: Activation) -> Activation:
        return ops.copy(x, 1, self.tokens_out, self.dim)


def rows(x: Tensor, places: Tensor) -> Tensor:
    """Gather rows: (B, n, d) and indices (B, m) -> (B, m, d)."""
    return x.gather(1, places[:, :, None].expand(-1, -1, x.shape[2]))


@module_of.register(GatheredMergingLayer)
class GatheredMerging(Merging):
    """Sorts by `topk`, because mobile runtimes have no `sort`."""

    @override
    def reduce(
        self, x: Tensor, keys: Tensor, scores: Tensor, sizes: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        batch, tokens, _ = x.shape
        metric = F.normalize(keys.reshape(batch, self.heads, tokens, -1).mean(1), dim=-1)
        best, partner = torch.bmm(metric[:, ::2][:, 1:], metric[:, 1::2].transpose(1, 2)).max(-1)
        order = best.topk(self.sources).indices
        chosen, others = order[:, : self.merged], order[:, self.merged :]
        if others.shape[1]:
            others = others.gather(1, (-others.float()).topk(others.shape[1]).indices)
        target = partner.gather(1, chosen)

        def merge(y: Tensor) -> Tensor:
            even, index = y[:, ::2], target[:, :, None].expand(-1, -1, y.shape[2])
            joined = y[:, 1::2].scatter_add(1, index, rows(even[:, 1:], chosen))
            return torch.cat((even[:, :1], rows(even[:, 1:], others), joined), 1)

        sizes = x.new_ones(batch, tokens, 1) if sizes is None else sizes
        total = merge(sizes)
        return merge(x * sizes) / total, total


@module_of.register(GatheredTopKLayer)
class GatheredTopK(Selecting):
    """Gathers the k tokens that the class token attends to most."""

    @override
    def reduce(
        self, x: Tensor, keys: Tensor, scores: Tensor, sizes: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        places = self.mean_over_heads(scores[:, :1, 1:])[:, 0].topk(self.kept).indices
        return torch.cat((x[:, :1], rows(x[:, 1:], places)), 1), sizes


@module_of.register(GatheredPruningLayer)
class GatheredPruning(Pruning):
    """Gathers the k tokens that the class token attends to most; the rest is all minus these."""

    @override
    def reduce(
        self, x: Tensor, keys: Tensor, scores: Tensor, sizes: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        weights = self.mean_over_heads(scores[:, :1, 1:])[:, 0]
        most, places = weights.topk(self.kept)
        kept = rows(x[:, 1:], places)
        fused = torch.bmm(weights[:, None], x[:, 1:]) - torch.bmm(most[:, None], kept)
        return torch.cat((x[:, :1], kept, fused), 1), sizes


def _key_of(kind: str) -> Any:
    """Return the key of a setting in the gather form, from that of the package's form."""
    make = blocks.MIXERS[kind]
    return lambda setting: make(setting).replace(f"vit.{kind}(", f"vit.{kind}.gather(")


blocks.MIXERS = blocks.MIXERS | {f"{kind}-gather": _key_of(kind) for kind in ("tome", "evit", "topk")}
