"""Similarity of attention heads and importance of channels, where a head sees all channels or a split of them.

Liu et al. 2023 (EfficientViT) derive their block from both: the redundancy of heads (section 2.2, figure 4) and the
first-order Taylor importance of channels (section 2.3, figure 5; Molchanov et al. 2019).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from search.blocks import BlockSpec
from search.blocks.efficientvit import CascadedGroupAttention, FfnBlock
from search.spaces import Arch
from tools.studies.attention import HEADS, NAMES, heads_network, trained
from tools.studies.shared import Options, draw_lines
from tools.studies.trainings import Evaluators
from tools.tables import Tables, mean_and_range

ByBlock = Mapping[tuple[int, str], float]
"""A figure by block and role."""
Importance = Mapping[tuple[int, str], Tensor]
"""By block and role, (channels,): the absolute change of the loss to first order, averaged over batches."""

ROLES = ("q", "k", "v", "ffn")
QUICK_SIZE = (16, 2)
"""Width and depth of the networks of a quick run."""
IMPORTANCE_BATCH = 64
KEEP = 0.5
"""Fraction of all channels that pruning leaves."""


def compare_heads(options: Options) -> Tables:
    """Train both kinds of networks; compare attention maps on held-out images, with the range over seeds.

    A head is compared with the head of its block that is most similar, by cosine; heads and images are averaged.
    Centred: the uniform map is subtracted first, because maps of positive numbers are never orthogonal.
    """
    networks, rows = [], []
    for sees in HEADS:
        arch = heads_network(sees, *options.pick((), QUICK_SIZE))
        opened = trained(arch, options)
        top1 = [100 * each.top1.accuracies([arch])[0] for each in opened]
        networks.append({"heads": NAMES[sees], "parameters": arch.params(), "top-1": mean_and_range(top1)})
        maps = [_maps(each, arch, options.pick(512, 16)) for each in opened]
        for number, of_seeds in enumerate(zip(*maps, strict=True), 1):
            rows.append(
                {
                    "heads": NAMES[sees],
                    "attention block": number,
                    "similarity": mean_and_range([head_similarity(each) for each in of_seeds]),
                    "centred": mean_and_range([head_similarity(each, centred=True) for each in of_seeds]),
                }
            )
    with options.draw("head_similarity", 760, 340, 2) as panels:
        for panel, column in zip(panels, ("similarity", "centred"), strict=True):
            draw_lines(panel, rows, "attention block", column, "heads")
    return {"Networks": networks, "Similarity of heads": rows}


def compare_channels(options: Options) -> Tables:
    """Train both kinds of networks; compare channels by the change of the training loss when one is pruned.

    `in its block`: mean of a role's channels over the mean of all channels of the block. `kept`: percent of the
    role's channels that remain when the less important half of all channels is pruned. Range over seeds.
    """
    rows, blocks = [], []
    for sees in HEADS:
        arch = heads_network(sees, *options.pick((), QUICK_SIZE))
        found = [_importance(each, arch, options.pick(4096, 64)) for each in trained(arch, options)]
        relative = [relative_to_block(each) for each in found]
        kept = [remaining_fractions(each, KEEP) for each in found]
        for index, role in kept[0]:
            fractions = mean_and_range([each[index, role] for each in kept], 100)
            blocks.append({"heads": NAMES[sees], "channels": role, "block": index, "kept, %": fractions})
        for role in ROLES:
            in_block = None if role == "ffn" else mean_and_range([_mean_of(role, each) for each in relative])
            fractions = mean_and_range([_mean_of(role, each) for each in kept], 100)
            rows.append(
                {"heads": NAMES[sees], "channels": role, "in its block": in_block, "kept, %": fractions}
            )
    with options.draw("importance", 760, 340, len(HEADS)) as panels:
        for panel, name in zip(panels, NAMES.values(), strict=True):
            own = [row for row in blocks if row["heads"] == name]
            draw_lines(panel, own, "block", "kept, %", "channels")
            panel.set(title=name, ylim=(-3, 103))
    return {"Importance of channels": rows, "Importance by block": blocks}


def _maps(opened: Evaluators, arch: Arch, count: int) -> tuple[Tensor, ...]:
    inherited = opened.inherited
    images, _ = inherited.data.batch(inherited.held_out[:count], arch.resolution)
    return attention_maps(inherited.network(arch).eval().cpu(), images)


def _importance(opened: Evaluators, arch: Arch, count: int) -> Importance:
    data = opened.inherited.data
    chosen = np.random.default_rng(0).permutation(data.split.train)[:count]
    network = opened.inherited.network(arch).cpu()
    return taylor_importance(network, arch.blocks(), data.batches(chosen, arch.resolution, IMPORTANCE_BATCH))


def _mean_of(role: str, figures: ByBlock) -> float:
    return statistics.fmean(value for (_, other), value in figures.items() if other == role)


class _SoftmaxRecorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the outputs of softmax operators."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.outputs: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._softmax.default:
            self.outputs.append(result)
        return result


@torch.no_grad()
def attention_maps(network: nn.Sequential, images: Tensor) -> tuple[Tensor, ...]:
    """Run images (B, 3, H, W) through a network; return (B, heads, N, M) for each block with a softmax per head.

    B counts windows and images; each of N queries has a softmax over M keys.
    """
    maps, x = [], images
    for block in network:
        with _SoftmaxRecorder() as recorder:
            x = block(x)
        if recorder.outputs:
            maps.append(torch.stack([each.reshape(-1, *each.shape[-2:]) for each in recorder.outputs], 1))
    return tuple(maps)


def head_similarity(maps: Tensor, *, centred: bool = False) -> float:
    """Return the cosine similarity of each head to the most similar other one, averaged over heads and maps.

    Maps (B, heads, N, M) are taken as vectors of N * M values. All are positive, so even unrelated maps are not
    orthogonal. With `centred` the uniform map 1 / M is subtracted first, which leaves the correlation of where
    heads look; a uniform head has similarity 0.
    """
    vectors = maps.flatten(2).double() - (1 / maps.shape[3] if centred else 0.0)
    vectors = vectors / vectors.norm(dim=2, keepdim=True).clamp_min(1e-12)
    similarity = torch.bmm(vectors, vectors.transpose(1, 2))
    diagonal = torch.eye(maps.shape[1], dtype=torch.bool)
    return similarity.masked_fill(diagonal, -torch.inf).amax(2).mean().item()


def taylor_importance(
    network: nn.Sequential, blocks: Sequence[BlockSpec], batches: Iterable[tuple[Tensor, Tensor]]
) -> Importance:
    """Return the importance of the channels of EfficientViT's blocks, by cross-entropy on batches.

    A channel is multiplied by an imagined gate: 1 as it is, 0 once pruned. The slope of the loss at the gate is,
    to first order, the effect of pruning. For a channel that is an affine function of its weights and bias it
    equals the sum of weight x gradient over them; where BN follows a convolution, these are BN's scale and shift.

    Args:
        network: One module per block; put into inference mode, its gradients are dropped.
        blocks: Specifications of the modules.
        batches: Images (B, 3, H, W) and labels (B,).
    """
    network.eval()
    slopes: dict[tuple[int, str], list[Tensor]] = {}
    for images, labels in batches:
        network.zero_grad()
        torch.autograd.backward(F.cross_entropy(network(images), labels))
        for index, (spec, module) in enumerate(zip(blocks, network, strict=True)):
            for role, layers in _layers_by_role(spec).items():
                gates = [_gate_slopes(module.get_submodule(name)) for name in layers]
                slopes.setdefault((index, role), []).append(torch.cat(gates).abs())
    network.zero_grad()
    return {place: torch.stack(each).mean(0) for place, each in slopes.items()}


def _layers_by_role(spec: BlockSpec) -> Mapping[str, Sequence[str]]:
    """Return the BN layers behind the layers whose channels are compared, by role."""
    if isinstance(spec, CascadedGroupAttention):
        return {role: [f"heads.{head}.{role}.bn" for head in range(spec.heads)] for role in "qkv"}
    return {"ffn": ["feed.expand.bn"]} if isinstance(spec, FfnBlock) else {}


def _gate_slopes(layer: nn.Module) -> Tensor:
    """Return (channels,) the slope of the loss at the gate of each channel of a BN layer."""
    return sum(
        (p.detach() * p.grad for p in layer.parameters(recurse=False) if p.grad is not None), torch.zeros(())
    )


def relative_to_block(importance: Importance) -> ByBlock:
    """Return the mean importance by block and role, divided by the mean of all channels of the block."""
    means = {
        index: torch.cat([values for (other, _), values in importance.items() if other == index]).mean()
        for index, _ in importance
    }
    return {(index, role): (each.mean() / means[index]).item() for (index, role), each in importance.items()}


def remaining_fractions(importance: Importance, keep: float) -> ByBlock:
    """Return the fraction of channels by block and role that remains when the least important are pruned.

    `keep`, above 0 and up to 1, is the fraction of all channels that remains, rounded to whole channels.
    """
    values = torch.cat(list(importance.values()))
    selected = torch.zeros(len(values), dtype=torch.bool)
    selected[values.argsort(descending=True, stable=True)[: max(1, round(keep * len(values)))]] = True
    pieces = torch.split(selected, [len(each) for each in importance.values()])
    return {place: piece.double().mean().item() for place, piece in zip(importance, pieces, strict=True)}
