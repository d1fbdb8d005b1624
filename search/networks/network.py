"""A network is its blocks, one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from search.blocks import BlockSpec, EnclosingSpec, Group, check_chain, group_blocks
from search.networks.module import module_around, module_of


class Network(nn.Sequential):
    """Standalone network of a list of blocks; input (B, 3, resolution, resolution), output (B, classes)."""

    def __init__(self, blocks: Sequence[BlockSpec]):
        super().__init__(*map(build_group, group_blocks(blocks)))
        self.resolution = blocks[0].resolution

    def example_input(self, batch: int = 1) -> Tensor:
        """A fixed input of the network's shape."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(batch, 3, self.resolution, self.resolution, generator=generator)


def build_network(blocks: Sequence[BlockSpec]) -> Network:
    """Build the network of a chain of blocks; `UsageError` where two of them do not fit."""
    check_chain(blocks)
    return Network(blocks)


def build_group(group: Group) -> nn.Module:
    """The module of a block and of those that it encloses."""
    outer, *enclosed = group
    return module_around(outer, enclosed) if isinstance(outer, EnclosingSpec) else module_of(outer)


def build_block(spec: BlockSpec) -> tuple[nn.Module, Tensor]:
    """One block on its own, and an input for it; a transformer layer takes tokens (P, N, d)."""
    generator = torch.Generator().manual_seed(0)
    return module_of(spec), torch.randn(spec.input_shape, generator=generator)
