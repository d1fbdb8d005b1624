"""Channels of blocks, as most have them: other ones out than in, or the same."""

from __future__ import annotations

import dataclasses

from search.blocks.spec import BlockSpec, param


@dataclasses.dataclass(frozen=True)
class Projecting(BlockSpec):
    """`inputs` channels become `outputs`."""

    inputs: int = param("in")
    outputs: int = param("out")

    @property
    def in_channels(self) -> int:
        return self.inputs

    @property
    def out_channels(self) -> int:
        return self.outputs


@dataclasses.dataclass(frozen=True)
class ChannelKeeping(BlockSpec):
    """`channels` of a map stay as many."""

    channels: int = param("c")

    @property
    def in_channels(self) -> int:
        return self.channels

    @property
    def out_channels(self) -> int:
        return self.channels


@dataclasses.dataclass(frozen=True)
class DimKeeping(BlockSpec):
    """The dimension `dim` of tokens stays as it is."""

    dim: int = param("d")

    @property
    def in_channels(self) -> int:
        return self.dim

    @property
    def out_channels(self) -> int:
        return self.dim


class Scoring(BlockSpec):
    """Ends in scores of `classes`, a parameter of the blocks that do."""

    classes: int

    @property
    def out_channels(self) -> int:
        return self.classes

    @property
    def out_resolution(self) -> int:
        return 1

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (1, self.classes)


@dataclasses.dataclass(frozen=True)
class Classifying(Scoring):
    """`inputs` channels become scores of `classes`."""

    inputs: int = param("in")
    classes: int = param("classes")

    @property
    def in_channels(self) -> int:
        return self.inputs
