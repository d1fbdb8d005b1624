"""Plug-in with ToMe, EViT and Top-K by `topk`, `gather` and `scatter_add`, which XNNPACK leaves to other kernels.

The package selects tokens by products (`search/networks/vit.py`). To measure both forms side by side:
`bench --import tools/studies/gathered_tokens.py blocks --device host --blocks vit,evit,evit-gather`.
Multiply-accumulates leave the selection out.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from orchestrator.tasks import blocks
from search.blocks import Activation, OpList
from search.blocks.spec import register
from search.blocks.vit import MergingLayer, PruningLayer, TopKLayer, VitLayer
from search.networks.network import module_of
from search.networks.vit import Merging, Selecting


def rows(x: Tensor, places: Tensor) -> Tensor:
    """Gather rows: (B, n, d) and indices (B, m) -> (B, m, d)."""
    return x.gather(1, places[:, :, None].expand(-1, -1, x.shape[2]))


class GatheredMerging(Merging):
    """`vit.tome`; sorts by `topk`, because mobile runtimes have no `sort`."""

    @override
    def reduce(self, x: Tensor, keys: Tensor, scores: Tensor, sizes: Tensor | None) -> Any:
        batch, tokens, _ = x.shape
        metric = F.normalize(keys.reshape(batch, self.heads, tokens, -1).mean(1), dim=-1)
        best, partner = torch.bmm(metric[:, ::2][:, 1:], metric[:, 1::2].transpose(1, 2)).max(-1)
        order = best.topk(self.sources).indices
        chosen, others = order[:, : self.merged], order[:, self.merged :]
        others = others.gather(1, (-others.float()).topk(others.shape[1]).indices)
        target = partner.gather(1, chosen)

        def merge(y: Tensor) -> Tensor:
            even, index = y[:, ::2], target[:, :, None].expand(-1, -1, y.shape[2])
            joined = y[:, 1::2].scatter_add(1, index, rows(even[:, 1:], chosen))
            return torch.cat((even[:, :1], rows(even[:, 1:], others), joined), 1)

        sizes = x.new_ones(batch, tokens, 1) if sizes is None else sizes
        total = merge(sizes)
        return merge(x * sizes) / total, total


class GatheredPruning(Selecting):
    """`vit.evit`: the k tokens that the class token attends to most, and the rest as all minus these."""

    fuses = True

    @override
    def reduce(self, x: Tensor, keys: Tensor, scores: Tensor, sizes: Tensor | None) -> Any:
        weights = self.mean_over_heads(scores[:, :1, 1:])[:, 0]
        most, places = weights.topk(self.kept)
        parts = [x[:, :1], rows(x[:, 1:], places)]
        if self.fuses:
            parts.append(torch.bmm(weights[:, None], x[:, 1:]) - torch.bmm(most[:, None], parts[1]))
        return torch.cat(parts, 1), sizes


class GatheredTopK(GatheredPruning):
    """`vit.topk`."""

    fuses = False


def _add(base: type[VitLayer], module: Any) -> None:
    """Register the gather form of a kind and its name in `bench blocks`."""

    def reduce(layer: VitLayer, ops: OpList, x: Activation) -> Activation:
        return ops.copy(x, 1, layer.tokens_out, layer.dim)

    kind, name = f"{base.kind}.gather", base.kind.removeprefix("vit.")
    examples = tuple(key.replace(base.kind, kind) for key in base.examples)
    members = {"kind": kind, "examples": examples, "_reduce": reduce, "__module__": __name__}
    module_of.register(register(type(f"Gathered{base.__name__}", (base,), members)), module)
    key = blocks.OTHERS[name]
    blocks.OTHERS[f"{name}-gather"] = lambda s: key(s).replace(base.kind, kind)


_add(MergingLayer, GatheredMerging)
_add(PruningLayer, GatheredPruning)
_add(TopKLayer, GatheredTopK)
