"""Attention maps of a trained network, similarity of its attention heads, importance of its channels.

Liu et al. 2023 (EfficientViT) derive their block from both: the redundancy of heads (section 2.2, figure 4) and the
first-order Taylor importance of channels (section 2.3, figure 5; Molchanov et al. 2019).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from luts.format.errors import UsageError
from search.blocks import BlockSpec
from search.blocks.efficientvit import CascadedGroupAttention, FfnBlock


@dataclass(frozen=True)
class BlockMaps:
    """The attention maps of one block.

    Attributes:
        index: Position of the block in the network.
        key: Key of the block.
        maps: (B, heads, N, M), softmax over M keys for each of N queries. B counts windows and images.
    """

    index: int
    key: str
    maps: Tensor


class HeadSimilarity(NamedTuple):
    """Cosine similarity between the heads of a block, averaged over attention maps.

    Attributes:
        mean: Over all pairs of heads.
        maximum: Of each head to the most similar other head, averaged over heads (EfficientViT's figure 4).
    """

    mean: float
    maximum: float


@dataclass(frozen=True)
class ChannelImportance:
    """Importance of the channels of one role in one block.

    Attributes:
        index: Position of the block in the network.
        role: `q`, `k`, `v` or `ffn`.
        values: (channels,), absolute change of the loss to first order, averaged over batches.
    """

    index: int
    role: str
    values: Tensor


@torch.no_grad()
def attention_maps(
    network: nn.Sequential, blocks: Sequence[BlockSpec], images: Tensor
) -> tuple[BlockMaps, ...]:
    """Run images (B, 3, H, W) through a network and return the softmax outputs of each block with `heads`.

    The network runs in its current mode; call `eval()` first. Blocks without a softmax over tokens are left out.

    Raises:
        UsageError: the softmax outputs of a block cannot be assigned to its heads.
    """
    recorder = _SoftmaxRecorder()
    with ExitStack() as stack:
        for index, (spec, module) in enumerate(zip(blocks, network, strict=True)):
            if hasattr(spec, "heads"):
                stack.enter_context(recorder.inside(module, index))
        stack.enter_context(recorder)
        network(images)
    return tuple(
        BlockMaps(index, blocks[index].key, _by_head(outputs, blocks[index]))
        for index, outputs in sorted(recorder.outputs.items())
    )


def head_similarity(maps: Tensor, *, centred: bool = False) -> HeadSimilarity:
    """Return the similarity of heads for maps (B, heads, N, M), each map taken as a vector of N * M values.

    All values of a map are positive, so even unrelated maps are not orthogonal. With `centred` the uniform map
    1 / M is subtracted first, which leaves the correlation of where heads look; a uniform head has similarity 0.

    Raises:
        ValueError: fewer than two heads.
    """
    if maps.ndim != 4 or maps.shape[1] < 2:
        raise ValueError(f"expected (B, two heads or more, N, M), got {tuple(maps.shape)}")
    heads = maps.shape[1]
    vectors = maps.flatten(2).double() - (1 / maps.shape[3] if centred else 0.0)
    vectors = vectors / vectors.norm(dim=2, keepdim=True).clamp_min(1e-12)
    similarity = torch.bmm(vectors, vectors.transpose(1, 2))
    diagonal = torch.eye(heads, dtype=torch.bool)
    others = similarity.masked_fill(diagonal, 0)
    nearest = similarity.masked_fill(diagonal, -torch.inf).amax(2)
    return HeadSimilarity(others.sum((1, 2)).mean().item() / (heads * (heads - 1)), nearest.mean().item())


def taylor_importance(
    network: nn.Sequential, blocks: Sequence[BlockSpec], batches: Iterable[tuple[Tensor, Tensor]]
) -> tuple[ChannelImportance, ...]:
    """Return the importance of the channels of EfficientViT's blocks, by cross-entropy on batches.

    A channel is multiplied by an imagined gate: 1 as it is, 0 once pruned. The slope of the loss at the gate is,
    to first order, the effect of pruning. For a channel that is an affine function of its weights and bias it
    equals the sum of weight x gradient over them; where BN follows a convolution, these are BN's scale and shift.

    Args:
        network: One module per block; put into inference mode, its gradients are dropped.
        blocks: Specifications of the modules.
        batches: Images (B, 3, H, W) and labels (B,).

    Raises:
        ValueError: there are no batches.
    """
    network.eval()
    sums: dict[tuple[int, str], Tensor] = {}
    count = 0
    for images, labels in batches:
        network.zero_grad()
        torch.autograd.backward(F.cross_entropy(network(images), labels))
        for index, (spec, module) in enumerate(zip(blocks, network, strict=True)):
            for role, slopes in _gate_slopes(spec, module).items():
                sums[index, role] = sums.get((index, role), torch.zeros_like(slopes)) + slopes.abs()
        count += 1
    network.zero_grad()
    if count == 0:
        raise ValueError("importance needs at least one batch")
    return tuple(ChannelImportance(index, role, total / count) for (index, role), total in sums.items())


def relative_to_block(importances: Sequence[ChannelImportance]) -> dict[tuple[int, str], float]:
    """Return the mean importance by block and role, divided by the mean of all channels of the block."""
    of_block: dict[int, list[Tensor]] = {}
    for each in importances:
        of_block.setdefault(each.index, []).append(each.values)
    means = {index: torch.cat(values).mean().item() for index, values in of_block.items()}
    return {(each.index, each.role): each.values.mean().item() / means[each.index] for each in importances}


def remaining_fractions(
    importances: Sequence[ChannelImportance], keep: float
) -> dict[tuple[int, str], float]:
    """Return the fraction of channels by block and role that remains when the least important are pruned.

    `keep`, above 0 and up to 1, is the fraction of all channels that remains, rounded to whole channels.
    """
    if not 0 < keep <= 1:
        raise ValueError(f"cannot keep {keep} of all channels; give a fraction above 0 and up to 1")
    values = torch.cat([each.values for each in importances])
    selected = torch.zeros(len(values), dtype=torch.bool)
    selected[values.argsort(descending=True, stable=True)[: max(1, round(keep * len(values)))]] = True
    pieces = torch.split(selected, [len(each.values) for each in importances])
    return {
        (each.index, each.role): piece.double().mean().item()
        for each, piece in zip(importances, pieces, strict=True)
    }


def _layers_by_role(spec: BlockSpec) -> Mapping[str, str]:
    """Return the layers whose channels are compared, each with its role; where BN follows a layer, that BN."""
    if isinstance(spec, CascadedGroupAttention):
        return {f"heads.{head}.{role}.bn": role for head in range(spec.heads) for role in "qkv"}
    return {"feed.expand.bn": "ffn"} if isinstance(spec, FfnBlock) else {}


def _gate_slopes(spec: BlockSpec, module: nn.Module) -> Mapping[str, Tensor]:
    """Return the slope of the loss at the gate of each channel, by role; layers of one role are concatenated."""
    slopes: dict[str, list[Tensor]] = {}
    for name, role in _layers_by_role(spec).items():
        parameters = [p for p in module.get_submodule(name).parameters(recurse=False) if p.grad is not None]
        slopes.setdefault(role, []).append(
            sum((p.detach() * p.grad for p in parameters if p.grad is not None), torch.zeros(()))
        )
    return {role: torch.cat(pieces) for role, pieces in slopes.items()}


def _by_head(softmaxes: Sequence[Tensor], spec: BlockSpec) -> Tensor:
    """Return (B, heads, N, M) from one softmax for all heads (heads vary fastest), or from one softmax per head."""
    heads = int(getattr(spec, "heads"))  # noqa: B009 - a field of some kinds of blocks only
    if len(softmaxes) == heads:
        return torch.stack([each.reshape(-1, *each.shape[-2:]) for each in softmaxes], 1)
    if len(softmaxes) == 1 and softmaxes[0][..., 0, 0].numel() % heads == 0:
        return softmaxes[0].reshape(-1, heads, *softmaxes[0].shape[-2:])
    raise UsageError(
        f"{spec.key}: cannot assign {len(softmaxes)} softmax outputs to {heads} heads; use another block",
        code="unknown_heads",
    )


class _SoftmaxRecorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the outputs of softmax operators by the marked module that is running."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.outputs: dict[int, list[Tensor]] = {}
        self._running: int | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._softmax.default and self._running is not None:
            self.outputs.setdefault(self._running, []).append(result)
        return result

    @contextmanager
    def inside(self, module: nn.Module, index: int) -> Iterator[None]:
        """Assign the softmax operators that `module` runs to the block `index`."""

        def run_in(block: int | None) -> None:
            self._running = block

        handles = (
            module.register_forward_pre_hook(lambda *_: run_in(index)),
            module.register_forward_hook(lambda *_: run_in(None)),
        )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
