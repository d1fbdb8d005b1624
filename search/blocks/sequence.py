"""What an ordered list of blocks says of the network it makes."""

from __future__ import annotations

from collections.abc import Sequence

from luts.format.errors import UsageError
from search.blocks.spec import BlockSpec, EnclosingSpec, Macs, SideSpec

BYTES_PER_ELEMENT = 4
"""Activations are counted as fp32: a unit, not a claim about the variant that runs."""

Group = tuple[BlockSpec, ...]
"""Blocks that make one module of a network: one block, followed by those that it encloses."""


def group_blocks(blocks: Sequence[BlockSpec]) -> list[Group]:
    """Cut a list of blocks into the groups that become one module each."""
    groups: list[list[BlockSpec]] = []
    for block in blocks:
        if block.enclosed_by:
            groups[-1].append(block)
        else:
            groups.append([block])
    return [tuple(group) for group in groups]


def check_chain(blocks: Sequence[BlockSpec], image_channels: int = 3) -> None:
    """Check that the blocks follow each other: widths, sides, map or tokens, enclosed blocks inside a matching one.

    Raises:
        UsageError: names the first two blocks that do not fit.
    """
    if not blocks:
        raise UsageError("a network needs at least one block")
    channels, resolution = image_channels, blocks[0].resolution
    shape: tuple[int, ...] = (1, channels, resolution, resolution)
    outer: BlockSpec | None = None
    for index, block in enumerate(blocks):
        before = blocks[index - 1].key if index else "the image"
        if block.enclosed_by:
            if not isinstance(outer, EnclosingSpec) or not outer.encloses(block):
                raise UsageError(
                    f"{block.key} does not stand in a {block.enclosed_by} that fits it (after {before})"
                )
            continue
        if (block.in_channels, block.resolution) != (channels, resolution):
            raise UsageError(
                f"{block.key} takes {block.in_channels} channels at {block.resolution} px, "
                f"but {before} gives {channels} at {resolution} px"
            )
        if block.input_shape != shape:
            raise UsageError(f"{block.key} takes {block.input_shape}, but {before} gives {shape}")
        if isinstance(block, SideSpec):
            continue
        outer, channels, resolution = block, block.out_channels, block.out_resolution
        shape = block.output_shape


def count(blocks: Sequence[BlockSpec]) -> tuple[int, Macs]:
    """Parameters and MACs of the network, from its blocks alone."""
    total = Macs(0, 0)
    for block in blocks:
        total += block.macs()
    return sum(block.params() for block in blocks), total


def peak_activation_bytes(blocks: Sequence[BlockSpec], outputs: int = 0) -> int:
    """Most bytes of activations that are live at once: the largest `live_elements` of the blocks, those of an
    enclosed one beside what is held around it, all beside the outputs that blocks before gave at their side.
    A runtime that plans its memory perfectly needs no more.

    Args:
        blocks: In order of execution.
        outputs: Elements of outputs at the side of still earlier blocks.
    """
    peak = held = 0
    for block in blocks:
        if not block.enclosed_by:
            held = block.held_elements() if isinstance(block, EnclosingSpec) else 0
        live = block.passing_elements() if isinstance(block, SideSpec) else block.live_elements()
        peak = max(peak, outputs + live + (held if block.enclosed_by else 0))
        outputs += block.out_elements if isinstance(block, SideSpec) else 0
    return peak * BYTES_PER_ELEMENT


def boundary_bytes(blocks: Sequence[BlockSpec]) -> int:
    """Bytes handed from each block to the next: the data movement d_j of AutoViT's latency model."""
    return sum(block.out_elements for block in blocks[:-1]) * BYTES_PER_ELEMENT
