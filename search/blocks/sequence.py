"""What an ordered list of blocks says of the network it makes."""

from __future__ import annotations

from collections.abc import Sequence

from luts.errors import UsageError
from search.blocks.mobilevit import MobileViTLayer, MobileViTShell
from search.blocks.spec import BlockSpec, Macs

BYTES_PER_ELEMENT = 4
"""Activations are counted as fp32: a unit, not a claim about the variant that runs."""


def check_chain(blocks: Sequence[BlockSpec], image_channels: int = 3) -> None:
    """Check that the blocks follow each other: widths, resolutions, layers inside a matching shell.

    Raises:
        UsageError: names the first two blocks that do not fit.
    """
    if not blocks:
        raise UsageError("a network needs at least one block")
    channels, resolution = image_channels, blocks[0].resolution
    shell: MobileViTShell | None = None
    for index, block in enumerate(blocks):
        before = blocks[index - 1].key if index else "the image"
        if isinstance(block, MobileViTLayer):
            if shell is None or (shell.dim, shell.patch, shell.resolution) != (
                block.dim,
                block.patch,
                block.resolution,
            ):
                raise UsageError(
                    f"{block.key} stands in no MobileViT shell of its dimension (after {before})"
                )
            continue
        if (block.in_channels, block.resolution) != (channels, resolution):
            raise UsageError(
                f"{block.key} takes {block.in_channels} channels at {block.resolution} px, "
                f"but {before} gives {channels} at {resolution} px"
            )
        shell = block if isinstance(block, MobileViTShell) else None
        channels, resolution = block.out_channels, block.out_resolution


def count(blocks: Sequence[BlockSpec]) -> tuple[int, Macs]:
    """Parameters and MACs of the network, from its blocks alone."""
    total = Macs(0, 0)
    for block in blocks:
        total += block.macs()
    return sum(block.params() for block in blocks), total


def peak_activation_bytes(blocks: Sequence[BlockSpec]) -> int:
    """Most bytes of activations that are live at once: the largest `live_elements` of the blocks, those of a
    transformer layer beside what its shell holds. A runtime that plans its memory perfectly needs no more."""
    peak = held = 0
    for block in blocks:
        if isinstance(block, MobileViTShell):
            held = block.held_elements()
        beside = held if isinstance(block, MobileViTLayer) else 0
        peak = max(peak, block.live_elements() + beside)
    return peak * BYTES_PER_ELEMENT


def boundary_bytes(blocks: Sequence[BlockSpec]) -> int:
    """Bytes handed from each block to the next: the data movement d_j of AutoViT's latency model."""
    elements = 0
    for block in blocks[:-1]:
        if isinstance(block, MobileViTLayer):
            elements += block.dim * block.pixels * block.patches
        else:
            elements += block.out_elements
    return elements * BYTES_PER_ELEMENT
