"""First-order Taylor importance of channels (Molchanov et al. 2019, as in EfficientViT's section 2.3 and figure 5).

A channel is imagined to pass a gate, 1 as it is and 0 once it is pruned. The slope of the loss at the gate says to
first order what pruning changes, and it needs no gate: for a channel that is an affine function of its weights and
bias it is the sum of weight x gradient over them. Where BN follows, its scale and shift are these weights, and
those of the convolution before it, which BN would only scale back, don't count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search.analysis.parts import Part, parts_of
from search.blocks import BlockSpec


@dataclass(frozen=True)
class ChannelImportance:
    """Importance of the channels of one role in one block.

    Attributes:
        index: The block's place in the network.
        key: The block.
        role: What the channels are: `q`, `k`, `v` or `ffn`.
        values: (channels,): mean over batches of the absolute change of the loss to first order.
    """

    index: int
    key: str
    role: str
    values: Tensor


def taylor_importance(
    network: nn.Sequential, blocks: Sequence[BlockSpec], batches: Iterable[tuple[Tensor, Tensor]]
) -> tuple[ChannelImportance, ...]:
    """Importance of all channels that blocks name (`BlockSpec.channel_roles`), by cross-entropy on `batches`.

    `batches` are images (B, 3, H, W) and labels (B,). The network is put into inference mode, its gradients are
    dropped.

    Raises:
        ValueError: there is no batch.
    """
    network.eval()
    parts = [part for part in parts_of(network, blocks) if part.spec.channel_roles()]
    sums: dict[tuple[int, str], Tensor] = {}
    count = 0
    for images, labels in batches:
        network.zero_grad()
        torch.autograd.backward(F.cross_entropy(network(images), labels))
        for part in parts:
            for role, slopes in _slopes(part).items():
                place = part.index, role
                sums[place] = sums.get(place, torch.zeros_like(slopes)) + slopes.abs()
        count += 1
    network.zero_grad()
    if count == 0:
        raise ValueError("importance needs at least one batch")
    keys = {part.index: part.spec.key for part in parts}
    return tuple(
        ChannelImportance(index, keys[index], role, total / count) for (index, role), total in sums.items()
    )


def relative_to_layer(importances: Sequence[ChannelImportance]) -> dict[tuple[int, str], float]:
    """Mean importance by block and role, 1 being the mean of all channels of the block."""
    layers: dict[int, list[Tensor]] = {}
    for one in importances:
        layers.setdefault(one.index, []).append(one.values)
    means = {index: torch.cat(values).mean().item() for index, values in layers.items()}
    return {(one.index, one.role): one.values.mean().item() / means[one.index] for one in importances}


def kept_shares(importances: Sequence[ChannelImportance], keep: float) -> dict[tuple[int, str], float]:
    """Share of the channels by block and role that is left once the least important of all blocks are pruned.

    `keep` is the share left of all channels together, above 0 and up to 1; it is rounded to whole channels.
    """
    if not 0 < keep <= 1:
        raise ValueError(f"cannot keep {keep} of all channels; give a share above 0 and up to 1")
    everything = torch.cat([one.values for one in importances])
    kept = torch.zeros(len(everything), dtype=torch.bool)
    kept[everything.argsort(descending=True, stable=True)[: max(1, round(keep * len(everything)))]] = True
    parts = torch.split(kept, [len(one.values) for one in importances])
    return {
        (one.index, one.role): part.double().mean().item()
        for one, part in zip(importances, parts, strict=True)
    }


def _slopes(part: Part) -> Mapping[str, Tensor]:
    """Slope of the loss at the gate of each channel, by role; layers with the same role are put end to end."""
    slopes: dict[str, list[Tensor]] = {}
    for name, roles in part.spec.channel_roles().items():
        layer = part.module.get_submodule(name)
        whole = torch.zeros(sum(size for _, size in roles))
        for parameter in layer.parameters(recurse=False):
            if parameter.grad is not None:
                whole += (parameter.detach() * parameter.grad).reshape(len(parameter), -1).sum(1)
        for (role, _), piece in zip(roles, torch.split(whole, [size for _, size in roles]), strict=True):
            slopes.setdefault(role, []).append(piece)
    return {role: torch.cat(pieces) for role, pieces in slopes.items()}
