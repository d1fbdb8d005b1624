"""Attention maps of any network of blocks, and how much the heads of a block resemble each other.

EfficientViT (Liu et al. 2023, section 2.2 and figure 4) measures the redundancy of heads by the largest cosine
similarity of each head's attention map to those of the other heads in its block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from luts.format.errors import UsageError
from search.analysis.parts import parts_of
from search.blocks import BlockSpec


@dataclass(frozen=True)
class BlockMaps:
    """The attention maps of one block.

    Attributes:
        index: The block's place in the network.
        key: The block.
        maps: (B, heads, N, M): softmax over M keys for each of N queries. B counts windows, patches and images.
    """

    index: int
    key: str
    maps: Tensor


@dataclass(frozen=True)
class HeadSimilarity:
    """Cosine similarity between the heads of a block, averaged over maps.

    Attributes:
        mean: Over all pairs of heads.
        maximum: Of each head to the most similar one, averaged over heads (EfficientViT's figure 4).
    """

    mean: float
    maximum: float


@torch.no_grad()
def attention_maps(
    network: nn.Sequential, blocks: Sequence[BlockSpec], images: Tensor
) -> tuple[BlockMaps, ...]:
    """Run `images` (B, 3, H, W) and keep what every softmax inside a block with `heads` gives.

    The network runs as it stands: put it into inference mode first. Blocks whose attention has no softmax over
    tokens (linear attention, say) are left out.

    Raises:
        UsageError: a block's maps can't be told apart by head.
    """
    recorder = _Softmaxes()
    parts = [part for part in parts_of(network, blocks) if hasattr(part.spec, "heads")]
    with ExitStack() as stack:
        for part in parts:
            stack.enter_context(recorder.inside(part.module, part.index))
        stack.enter_context(recorder)
        network(images)
    return tuple(
        BlockMaps(part.index, part.spec.key, _by_head(recorder.softmaxes[part.index], part.spec))
        for part in parts
        if part.index in recorder.softmaxes
    )


def head_similarity(maps: Tensor, *, centred: bool = False) -> HeadSimilarity:
    """Similarity of the heads of `maps` (B, heads, N, M), each map taken as one vector of N * M values.

    Maps of any kind have all values positive, so that even unrelated ones are not orthogonal: with `centred` the
    uniform map 1 / M is subtracted first, and what is left is the correlation of where heads look. A uniform head
    has nothing left, and similarity 0 to all others.

    Raises:
        ValueError: less than two heads.
    """
    if maps.ndim != 4 or maps.shape[1] < 2:
        raise ValueError(f"expected (B, two heads or more, N, M), got {tuple(maps.shape)}")
    heads = maps.shape[1]
    vectors = maps.flatten(2).double()
    if centred:
        vectors = vectors - 1 / maps.shape[3]
    vectors = vectors / vectors.norm(dim=2, keepdim=True).clamp_min(1e-12)
    similarity = torch.bmm(vectors, vectors.transpose(1, 2))
    itself = torch.eye(heads, dtype=torch.bool)
    others = similarity.masked_fill(itself, 0)
    nearest = similarity.masked_fill(itself, -torch.inf).amax(2)
    return HeadSimilarity(others.sum((1, 2)).mean().item() / (heads * (heads - 1)), nearest.mean().item())


def _by_head(softmaxes: Sequence[Tensor], spec: BlockSpec) -> Tensor:
    """(B, heads, N, M) of one softmax for all heads, heads varying faster than the batch, or of one for each."""
    heads = int(getattr(spec, "heads"))  # noqa: B009 - a field of some kinds of blocks only
    if len(softmaxes) == heads:
        return torch.stack([each.reshape(-1, *each.shape[-2:]) for each in softmaxes], 1)
    if len(softmaxes) == 1 and softmaxes[0][..., 0, 0].numel() % heads == 0:
        return softmaxes[0].reshape(-1, heads, *softmaxes[0].shape[-2:])
    raise UsageError(
        f"{spec.key}: {len(softmaxes)} softmaxes for {heads} heads; maps of its heads are not known"
    )


class _Softmaxes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps what softmaxes give, by the innermost marked module that runs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.softmaxes: dict[int, list[Tensor]] = {}
        self._running: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._softmax.default and self._running:
            self.softmaxes.setdefault(self._running[-1], []).append(result)
        return result

    @contextmanager
    def inside(self, module: nn.Module, index: int) -> Iterator[None]:
        """Count what `module` runs as of the block `index`."""
        handles = (
            module.register_forward_pre_hook(lambda *_: self._running.append(index)),
            module.register_forward_hook(lambda *_: self._leave()),
        )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _leave(self) -> None:
        self._running.pop()
