"""Which module of a network belongs to which block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from search.blocks import BlockSpec, group_blocks


@dataclass(frozen=True)
class Part:
    """A block of a network with its module; `index` is its place in the list of blocks."""

    index: int
    spec: BlockSpec
    module: nn.Module


def parts_of(network: nn.Sequential, blocks: Sequence[BlockSpec]) -> tuple[Part, ...]:
    """The blocks of a network in order, enclosed ones after the block that encloses them.

    A single block is its own network, even one that stands inside others elsewhere.

    Raises:
        ValueError: `network` has another number of modules than `blocks` make.
    """
    if len(blocks) == len(network) == 1:
        return (Part(0, blocks[0], network[0]),)
    parts: list[Part] = []
    for module, (outer, *enclosed) in zip(network, group_blocks(blocks), strict=True):
        parts.append(Part(len(parts), outer, module))
        for position, spec in enumerate(enclosed):
            inner = module.get_submodule(f"layers.{position}")
            parts.append(Part(len(parts), spec, inner))
    return tuple(parts)
