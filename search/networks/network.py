"""A network is its blocks, one after the other; a detector also gives what blocks beside its maps predict."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from search.blocks import BlockSpec, EnclosingSpec, Group, SideSpec, check_chain, group_blocks
from search.networks.module import module_around, module_of

HEAD = "head_"
"""What names of modules in a head of detection or segmentation begin with; those of a backbone are numbers."""


class Network(nn.Sequential):
    """Standalone network of a list of blocks for inputs (B, 3, resolution, resolution).

    Its output is a classifier's (B, classes), a detector's (B, default boxes, classes + 1 + 4), or of segmentation
    (B, classes + 1, side, side).
    """

    def __init__(self, blocks: Sequence[BlockSpec]):
        groups = group_blocks(blocks)
        super().__init__(OrderedDict(zip(_names(groups), map(build_group, groups), strict=True)))
        self.resolution = blocks[0].resolution
        self._beside = [isinstance(outer, SideSpec) for outer, *_ in groups]

    def forward(self, x: Tensor) -> Tensor:
        return run_beside(self, self._beside, x)

    def example_input(self, batch: int = 1) -> Tensor:
        """A fixed input of the network's shape."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(batch, 3, self.resolution, self.resolution, generator=generator)


def _names(groups: Sequence[Group]) -> list[str]:
    """As a classifier's backbone is named, whatever stands between its modules here."""
    names: list[str] = []
    backbone = 0
    for outer, *_ in groups:
        names.append(f"{HEAD}{len(names) - backbone}" if outer.of_task else str(backbone))
        backbone += not outer.of_task
    return names


def run_beside(
    parts: Iterable[nn.Module], beside: Iterable[bool], x: Tensor, before: Sequence[Tensor] = ()
) -> Tensor:
    """Run parts in order, of which some stand `beside` and leave the map as it is.

    Returns:
        Outputs (B, places, values) of those end to end, behind those that came `before`; where there are none, the
        last part's output.
    """
    outputs = list(before)
    for part, leaves in zip(parts, beside, strict=True):
        if leaves:
            outputs.append(part(x))
        else:
            x = part(x)
    return torch.cat(outputs, 1) if outputs else x


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
