"""Published networks that are no members of a search space: by name, as the list of their blocks.

Each is one that table 2 of the AutoViT paper compares with, at the 224 px of its own paper.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from search.blocks import BlockSpec, Macs, count
from search.blocks.shufflenet import ShuffleHead, ShuffleStem, ShuffleUnit

RESOLUTION = 224
CLASSES = 1000


@dataclass(frozen=True)
class Published:
    """One network of a paper.

    Attributes:
        name: By which commands know it.
        source: Paper and table that say what it is made of.
        chain: Its blocks in order of execution.
    """

    name: str
    source: str
    chain: tuple[BlockSpec, ...]

    @property
    def resolution(self) -> int:
        """Side of the input image in pixels."""
        return self.chain[0].resolution

    def blocks(self) -> tuple[BlockSpec, ...]:
        """The blocks of the network in order of execution."""
        return self.chain

    def keys(self) -> tuple[str, ...]:
        """The block keys in order of execution."""
        return tuple(block.key for block in self.chain)

    def params(self) -> int:
        """Trainable parameters."""
        return count(self.chain)[0]

    def macs(self) -> Macs:
        """Multiply-accumulates at batch 1."""
        return count(self.chain)[1]


def _shufflenetv2(widths: tuple[int, int, int, int, int]) -> Iterator[BlockSpec]:
    """Table 5 of Ma et al. 2018: 4, 8 and 4 units; widths of stem, three stages and Conv5."""
    *widths_before, last = widths
    stem = ShuffleStem(RESOLUTION, 3, widths_before[0])
    yield stem
    width, resolution = widths_before[0], stem.out_resolution
    for out, units in zip(widths_before[1:], (4, 8, 4), strict=True):
        for index in range(units):
            unit = ShuffleUnit(resolution, width, out, 1 if index else 2)
            yield unit
            width, resolution = out, unit.out_resolution
    yield ShuffleHead(resolution, width, CLASSES, last)


_PUBLISHED = (
    Published(
        "shufflenetv2-1.0",
        "Ma et al. 2018, ShuffleNet V2, table 5, 1x",
        tuple(_shufflenetv2((24, 116, 232, 464, 1024))),
    ),
)


def list_published() -> dict[str, Published]:
    """All published networks by name."""
    return {network.name: network for network in _PUBLISHED}
