"""Figures of an ordered list of blocks: whether they fit, parameters, MACs, memory, data movement."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from luts.format.errors import UsageError
from search.blocks.spec import BlockSpec, EnclosingSpec, Macs, SideSpec

IMAGE_CHANNELS = 3

BYTES_PER_ELEMENT = 4
"""Activations count as fp32: a unit, not a statement about the variant that runs."""

Group = tuple[BlockSpec, ...]
"""Blocks that make one module of a network: one block, followed by those that it encloses."""


def group_blocks(blocks: Sequence[BlockSpec]) -> list[Group]:
    """Cut a list of blocks into the groups that become one module each."""
    groups: list[list[BlockSpec]] = []
    for block in blocks:
        if block.enclosed_by or (groups and _encloses(groups[-1][0], block)):
            groups[-1].append(block)
        else:
            groups.append([block])
    return [tuple(group) for group in groups]


def _encloses(outer: BlockSpec | None, block: BlockSpec) -> bool:
    return isinstance(outer, EnclosingSpec) and outer.encloses(block)


def check_chain(blocks: Sequence[BlockSpec], *, from_map: bool = False) -> None:
    """Check that blocks follow each other: channels, sides, map or tokens, enclosed blocks in a matching one.

    The first one takes an image, or any map with `from_map`.

    Raises:
        UsageError: names the first two blocks that do not fit.
    """
    if not blocks:
        raise UsageError("a network needs at least one block", code="empty_network")
    resolution = blocks[0].resolution
    shape = blocks[0].input_shape if from_map else (1, IMAGE_CHANNELS, resolution, resolution)
    outer: BlockSpec | None = None
    for index, block in enumerate(blocks):
        before = blocks[index - 1].key if index else "the image"
        if _encloses(outer, block):
            continue
        if block.enclosed_by:
            raise UsageError(
                f"{block.key} (after {before}) must be inside a {block.enclosed_by} of the same size",
                code="blocks_do_not_fit",
            )
        if (block.input_shape, block.resolution) != (shape, resolution):
            raise UsageError(
                f"{block.key} takes shape {block.input_shape} at {block.resolution} px, "
                f"but {before} outputs {shape} at {resolution} px",
                code="blocks_do_not_fit",
            )
        if not isinstance(block, SideSpec):
            outer, shape, resolution = block, block.output_shape, block.out_resolution


def count(blocks: Sequence[BlockSpec]) -> tuple[int, Macs]:
    """Return parameters and MACs of the network of these blocks."""
    total = Macs(0, 0)
    for block in blocks:
        total += block.macs()
    return sum(block.params() for block in blocks), total


def peak_activation_bytes(blocks: Sequence[BlockSpec], outputs: int = 0) -> int:
    """Return the most bytes of activations that are in memory at once; a perfect memory plan needs no more.

    It is the largest `live_elements` of the blocks. Around an enclosed block, the elements that its shell holds
    count too; after a side block, so does its output.

    Args:
        blocks: In order of execution.
        outputs: Elements of the outputs of side blocks before the first block.
    """
    peak = held = 0
    outer: BlockSpec | None = None
    for block in blocks:
        inside = bool(block.enclosed_by) or _encloses(outer, block)
        if not inside:
            outer = block
            held = block.surrounding_elements() if isinstance(block, EnclosingSpec) else 0
        side = isinstance(block, SideSpec)
        live = block.ops().live_elements(keep_input=True) if side else block.costs.live_elements
        peak = max(peak, outputs + live + (held if inside else 0))
        outputs += block.out_elements if side else 0
    return peak * BYTES_PER_ELEMENT


def boundary_bytes(blocks: Sequence[BlockSpec]) -> int:
    """Return the bytes handed from each block to the next: the data movement d_j of AutoViT's latency model."""
    return sum(block.out_elements for block in blocks[:-1]) * BYTES_PER_ELEMENT


class BlockSequence(ABC):
    """A network that is known by its blocks: an architecture of a space or a published network."""

    @abstractmethod
    def blocks(self) -> tuple[BlockSpec, ...]:
        """Return the blocks in order of execution."""

    def keys(self) -> tuple[str, ...]:
        """Return the block keys in order of execution."""
        return tuple(block.key for block in self.blocks())

    def params(self) -> int:
        """Return the number of trained parameters."""
        return sum(block.params() for block in self.blocks())

    def macs(self) -> Macs:
        """Return the multiply-accumulates at batch 1."""
        return count(self.blocks())[1]

    def boundary_bytes(self) -> int:
        """Return the bytes moved between blocks."""
        return boundary_bytes(self.blocks())
