"""EfficientViT with one of its choices undone (Liu et al. 2023, table 6): what `undone` of a stage means."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from luts.format.errors import UsageError
from search.blocks import BlockSpec
from search.blocks.efficientvit import BnFcHead, FfnBlock, OverlapStem, PatchMerging
from search.blocks.efficientvit_ablations import (
    FeedForward,
    GroupAttention,
    HardSwishAttention,
    HardSwishFfn,
    HardSwishMerging,
    HardSwishStem,
    LayerNormAttention,
    LayerNormFcHead,
    LayerNormFfn,
    LayerNormMerging,
    LayerNormStem,
    PlainQueryAttention,
)
from search.blocks.efficientvit_attention import CascadedGroupAttention

_CHANGES: Mapping[str, Mapping[type[BlockSpec], type[BlockSpec]]] = {
    "": {},
    "no-cascade": {CascadedGroupAttention: GroupAttention},
    "layernorm": {
        OverlapStem: LayerNormStem,
        FfnBlock: LayerNormFfn,
        PatchMerging: LayerNormMerging,
        CascadedGroupAttention: LayerNormAttention,
        BnFcHead: LayerNormFcHead,
    },
    "hardswish": {
        OverlapStem: HardSwishStem,
        FfnBlock: HardSwishFfn,
        PatchMerging: HardSwishMerging,
        CascadedGroupAttention: HardSwishAttention,
    },
    "no-query-conv": {CascadedGroupAttention: PlainQueryAttention},
    "no-interaction": {FfnBlock: FeedForward},
}
UNDONE = tuple(_CHANGES)
"""What may be undone; a stage's value `undone` is the number of a name here, 0 for nothing."""


def undo(blocks: Iterable[BlockSpec], change: str) -> tuple[BlockSpec, ...]:
    """The blocks with one choice undone; blocks that do not have it stay.

    Raises:
        UsageError: there is no such choice.
    """
    if change not in _CHANGES:
        raise UsageError(f"EfficientViT has no choice {change!r} to undo; it has {', '.join(UNDONE[1:])}")
    return tuple(_as(_CHANGES[change].get(type(block)), block) for block in blocks)


def _as(kind: type[BlockSpec] | None, block: BlockSpec) -> BlockSpec:
    """The block of another kind that has its numbers, as far as that kind takes them."""
    if kind is None:
        return block
    names = [field.name for field in dataclasses.fields(kind) if field.init]
    return kind(**{name: getattr(block, name) for name in names})
