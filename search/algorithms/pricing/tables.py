"""A space and its LUTs as arrays: what each option of each stage costs, given the width before it.

Latency is additive over blocks and the bytes between them, and a stage depends on the one before through its
width alone. So a table indexed by (resolution and head, width before, option) holds all that an architecture's
price is made of. The bound of a chance constraint is additive as well (`LatencyModel.margin`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from luts.format.errors import UsageError
from luts.format.latency import LatencyModel
from luts.format.messages import few
from luts.format.numbers import MIB, Floats, Integers
from search.blocks import BlockSpec, boundary_bytes, peak_activation_bytes
from search.spaces import Space
from search.spaces.family import expand_head, expand_side, expand_stage, task_head
from search.spaces.layout import IMAGE_CHANNELS
from search.spaces.maps import map_sides, tapped_stages


@dataclass(frozen=True)
class StageTable:
    """Costs of one stage.

    The last option of a stage stands for its absence: the network ended before it. A state is what a stage
    needs to know of those before: the index of their last width, or, as the last one, that the network ended.

    Attributes:
        costs: (channels, combos, states, options); NaN where a width would shrink or a network may not end.
        memory_bytes: (combos, states, options): peak of activations of the option's blocks.
        following: (states, options): the state after it; 0 where there is none.
        valid: (states, options).
    """

    costs: Floats
    memory_bytes: Floats
    following: Integers
    valid: NDArray[np.bool_]


_End = tuple[int, int, int]
"""Where a stage ends: its width, the image's side in pixels, the stage's index."""


@dataclass(frozen=True)
class _Rates:
    """What one LUT asks for a block and for a byte; twice, for the prediction and for its bound."""

    base_ms: Floats
    ms_per_byte: Floats
    block_ms: Mapping[str, tuple[float, float]]


def build_tables(space: Space, models: Sequence[LatencyModel], confidence: float) -> tuple[StageTable, ...]:
    """One table a stage. Channels: of each LUT the predicted ms and its bound, then parameters, then
    conv+linear MACs, last the parameters' negative. Combos are resolutions x heads.

    Raises:
        UsageError: a LUT lacks blocks of the space; names them.
    """
    builder = _Builder(space, [_rates(space, model, confidence) for model in models])
    return tuple(builder.table(index) for index in range(builder.stages))


def _rates(space: Space, model: LatencyModel, confidence: float) -> _Rates:
    missing = [block.key for block in space.block_specs() if block.key not in model.costs]
    if missing:
        raise UsageError(
            f"LUT has no entry for {few(missing)} of {space.name}; profile the space, or search a part of it"
        )
    margin = model.margin(confidence)
    factors = np.array([1.0, 1.0 + margin.relative])
    block_ms = {
        key: (cost.ms, cost.ms * factors[1] + margin.arms_ms.get(key, 0.0))
        for key, cost in model.costs.items()
    }
    return _Rates(model.base_ms * factors, model.transfer_ms_per_mib / MIB * factors, block_ms)


class _Builder:
    def __init__(self, space: Space, rates: Sequence[_Rates]):
        self.space, self.rates = space, rates
        self.stages = max(space.stage_counts)
        self.channels = 2 * len(rates) + 3
        self.widths = [(0,)] + [
            tuple(sorted({stage.width(values) for values in stage.options}))
            for stage in space.stages[: self.stages]
        ]

    def table(self, index: int) -> StageTable:
        """Table of the stage at `index`."""
        space, stage, before = self.space, self.space.stages[index], self.widths[index]
        states, options = len(before) + (index > 0), len(stage.options) + 1
        combos = len(space.resolutions) * len(space.heads)
        costs = np.full((self.channels, combos, states, options), np.nan)
        memory = np.zeros((combos, states, options))
        following = np.zeros((states, options), np.int64)
        for at, resolution in enumerate(space.resolutions):
            own = slice(at * len(space.heads), (at + 1) * len(space.heads))
            side = self._side(resolution, index)
            for state, width in enumerate(before):
                for option, values in enumerate(stage.options):
                    if stage.width(values) < width:
                        continue
                    blocks = expand_stage(stage, values, width or IMAGE_CHANNELS, side)
                    out = stage.width(values)
                    self._add_stage(costs, memory, own, (state, option), blocks, (out, resolution, index))
                    following[state, option] = self.widths[index + 1].index(out)
                    if index == self.stages - 1:
                        self._add_heads(costs, memory, own, (state, option), (out, resolution, index))
                if index in space.stage_counts:
                    costs[:, own, state, -1] = 0.0
                    following[state, -1] = len(self.widths[index + 1])
                    ended = (width, resolution, index - 1)
                    self._add_heads(costs, memory, own, (state, options - 1), ended)
        if index > 0:
            costs[:, :, -1, -1] = 0.0
            following[-1, -1] = len(self.widths[index + 1])
        return StageTable(costs, memory, following, ~np.isnan(costs[0, 0]))

    def _side(self, resolution: int, index: int) -> int:
        for stage in self.space.stages[:index]:
            resolution = stage.out_resolution(resolution)
        return resolution

    def _stage_cost(self, blocks: Sequence[BlockSpec], first: bool, outputs: int = 0) -> tuple[Floats, int]:
        """Costs by channel and peak bytes of a stage, what it hands on included; nothing where the stage is
        the identity, which is never the first. `outputs` are elements of outputs that earlier ones gave."""
        if not blocks:
            return np.zeros(self.channels), 0
        cost = self._cost(blocks, boundary_bytes([*blocks, blocks[0]]))
        for number, rates in enumerate(self.rates):
            cost[2 * number : 2 * number + 2] += rates.base_ms if first else 0.0
        return cost, peak_activation_bytes(blocks, outputs)

    def _cost(self, blocks: Sequence[BlockSpec], sent_bytes: int) -> Floats:
        """Costs by channel of blocks and of so many bytes handed on."""
        latencies = np.concatenate(
            [
                np.array([rates.block_ms[block.key] for block in blocks]).sum(axis=0)
                + rates.ms_per_byte * sent_bytes
                for rates in self.rates
            ]
        )
        params, macs = sum(b.params() for b in blocks), sum(b.macs().conv_linear for b in blocks)
        return np.concatenate([latencies, [params, macs, -params]])

    def _add_stage(
        self,
        costs: Floats,
        memory: Floats,
        own: slice,
        at: tuple[int, int],
        blocks: tuple[BlockSpec, ...],
        end: _End,
    ) -> None:
        """Set the costs of a stage, with what heads of other tasks have at its end."""
        _, resolution, index = end
        plain = self._stage_cost(blocks, first=index == 0)
        for combo, head in zip(range(own.start, own.stop), self.space.heads, strict=True):
            cost, peak = plain
            if task_head(head) is not None:
                beside = self._beside(head, end)
                before = self._outputs(head, resolution, index)
                cost, peak = self._stage_cost((*blocks, *beside), index == 0, before)
            costs[(slice(None), combo, *at)] = cost
            memory[(combo, *at)] = peak

    def _add_heads(self, costs: Floats, memory: Floats, own: slice, at: tuple[int, int], end: _End) -> None:
        """Add the heads after a network's last stage."""
        width, resolution, index = end
        for combo, head in zip(range(own.start, own.stop), self.space.heads, strict=True):
            sides = map_sides(self.space.stages[: index + 1], head, resolution)
            blocks = expand_head(head, width, sides, self.space.default_classes)
            costs[(slice(None), combo, *at)] += self._cost(blocks, boundary_bytes(blocks))
            peak = peak_activation_bytes(blocks, self._outputs(head, resolution, index))
            memory[(combo, *at)] = max(memory[(combo, *at)], peak)

    def _beside(self, head: str, end: _End) -> tuple[BlockSpec, ...]:
        """What a head has at the end of a stage that is not the last."""
        width, resolution, index = end
        if index not in tapped_stages(self.space.stages[: self.stages], head):
            return ()
        return (expand_side(head, width, self._side(resolution, index + 1), self.space.default_classes),)

    def _outputs(self, head: str, resolution: int, before: int) -> int:
        """Elements of outputs beside the first `before` stages; widths do not change them."""
        given = [block for index in range(before) for block in self._beside(head, (1, resolution, index))]
        return sum(block.out_elements for block in given)
