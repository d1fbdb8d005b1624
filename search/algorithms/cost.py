"""Predicted costs: latency models of LUTs, compiled into arrays that price millions of architectures a second."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from luts.format.errors import UsageError, shorten
from luts.format.latency import LatencyModel
from luts.format.lut import Lut
from luts.format.schema import MIB, Floats, Integers
from search.algorithms.record import PricedArch
from search.blocks import BlockSpec, boundary_bytes, peak_activation_bytes
from search.blocks.sequence import IMAGE_CHANNELS
from search.spaces import Arch, Space, get_space
from search.spaces.stages import (
    HEADS,
    TaskName,
    expand_head,
    expand_side,
    expand_stage,
    map_sides,
    tapped_stages,
)


@dataclass(frozen=True)
class LutPrice:
    """Latency model of one device; `fingerprint` is its LUT's digest, `name` the LUT's name in messages."""

    model: LatencyModel
    fingerprint: str
    name: str = ""

    @classmethod
    def of(cls, source: LutPrice | Lut | LatencyModel) -> LutPrice:
        """Return the price of a LUT or latency model, with the digest of its numbers; a price is returned as is."""
        if isinstance(source, LutPrice):
            return source
        model = source.latency_model if isinstance(source, Lut) else source
        return cls(model, hashlib.sha256(repr(model).encode()).hexdigest())


PriceSource = LutPrice | Lut | LatencyModel
Prices = PriceSource | Sequence[PriceSource]
"""One device, or several whose latency limits must all hold; results show the first one's latency."""


def fingerprint(prices: Sequence[LutPrice]) -> str:
    """Return a text that changes whenever a price may change."""
    return "+".join(price.fingerprint for price in prices)


Mask = NDArray[np.bool_]

Codes = NDArray[np.int16]
"""(N, 1 + stages): index of the (resolution, head) pair, then of each stage its option; the number of options means
"the network ended before". Column order (`order="F"`) is priced fastest."""


@dataclass(frozen=True)
class StageTable:
    """Costs of one stage.

    The last option of a stage means that the network ended before it. A state is what a stage needs to know of
    the stages before it: the index of their last width or, as the last state, that the network ended.

    Attributes:
        costs: (channels, combos, states, options); NaN where a width would shrink or a network may not end.
        memory_bytes: (combos, states, options): peak activation memory of the option's blocks.
        following: (states, options): the state after the stage; 0 where the option is not valid.
        valid: (states, options).
    """

    costs: Floats
    memory_bytes: Floats
    following: Integers
    valid: Mask


@dataclass(frozen=True)
class _StageEnd:
    """Where a network is cut: width after the stage, side of the input image in pixels, index of the stage."""

    width: int
    resolution: int
    index: int


@dataclass(frozen=True)
class _Rates:
    """Latency of blocks and transferred bytes by one LUT: each value as prediction and as upper bound, in ms."""

    base_ms: Floats
    ms_per_byte: Floats
    block_ms: Mapping[str, tuple[float, float]]

    @classmethod
    def of(cls, space: Space, model: LatencyModel, confidence: float) -> _Rates:
        """Read a latency model; raise UsageError ("lut_lacks_blocks") that names missing blocks of the space."""
        missing = [block.key for block in space.block_specs() if block.key not in model.costs]
        if missing:
            raise UsageError(
                f"the LUT has no entry for {shorten(missing)} of {space.name}; "
                "profile the space, or search a part of it",
                code="lut_lacks_blocks",
            )
        margin = model.margin(confidence)
        factors = np.array([1.0, 1.0 + margin.relative])
        block_ms = {
            key: (cost.ms, cost.ms * factors[1] + margin.arms_ms.get(key, 0.0))
            for key, cost in model.costs.items()
        }
        return cls(model.base_ms * factors, model.transfer_ms_per_mib / MIB * factors, block_ms)


@dataclass(frozen=True)
class Channels:
    """Indices of the costs that add up over stages, for a number of LUTs.

    LUT l has its latency at 2 l and the latency's upper bound at 2 l + 1. `counted` is the channel of parameters
    that may have a minimum: the network's own or, with `as_classifier`, those of the classifier with the same
    backbone. `negated` holds its negative, so that a minimum is an upper limit too.
    """

    luts: int
    as_classifier: bool = False

    @property
    def params(self) -> int:
        """Parameters of the network."""
        return 2 * self.luts

    @property
    def macs(self) -> int:
        """Conv+linear MACs of the network."""
        return 2 * self.luts + 1

    @property
    def depth(self) -> int:
        """Blocks that combine positions, such as attention and convolutions above 1x1."""
        return 2 * self.luts + 2

    @property
    def counted(self) -> int:
        """Parameters that may have a minimum."""
        return 2 * self.luts + 3 if self.as_classifier else self.params

    @property
    def negated(self) -> int:
        """Negative of `counted`; the last channel."""
        return 2 * self.luts + 3 + self.as_classifier


class _TableBuilder:
    """Builds the stage tables of a space; `classes` as in `CompiledSpace`."""

    def __init__(self, space: Space, rates: Sequence[_Rates], classes: int | None):
        self.space, self.rates, self.classes = space, rates, classes
        self.stages = max(space.stage_counts)
        self.channels = Channels(len(rates), classes is not None)
        self.widths = [(0,)] + [
            tuple(sorted({stage.width(values) for values in stage.options}))
            for stage in space.stages[: self.stages]
        ]

    def table(self, index: int) -> StageTable:
        """Return the table of the stage at `index`."""
        space, stage, before = self.space, self.space.stages[index], self.widths[index]
        states, options = len(before) + (index > 0), len(stage.options) + 1
        combos = len(space.resolutions) * len(space.heads)
        costs = np.full((self.channels.negated + 1, combos, states, options), np.nan)
        table = StageTable(
            costs,
            np.zeros((combos, states, options)),
            np.zeros((states, options), np.int64),
            np.zeros((states, options), np.bool_),
        )
        ended = len(self.widths[index + 1])
        for at, resolution in enumerate(space.resolutions):
            own = slice(at * len(space.heads), (at + 1) * len(space.heads))
            for state, width in enumerate(before):
                self._add_options(table, own, state, _StageEnd(width, resolution, index))
                if index in space.stage_counts:
                    costs[:, own, state, -1] = 0.0
                    table.following[state, -1] = ended
                    end = _StageEnd(width, resolution, index - 1)
                    self._add_heads(table, own, (state, options - 1), end)
        if index > 0:
            costs[:, :, -1, -1] = 0.0
            table.following[-1, -1] = ended
        return replace(table, valid=~np.isnan(costs[0, 0]))

    def _add_options(self, table: StageTable, own: slice, state: int, before: _StageEnd) -> None:
        """Set the costs of all options of a stage after a network of `before.width` channels."""
        index, resolution = before.index, before.resolution
        stage, side = self.space.stages[index], self._side(resolution, index)
        for option, values in enumerate(stage.options):
            width = stage.width(values)
            if width < before.width:
                continue
            blocks = expand_stage(stage, values, before.width or IMAGE_CHANNELS, side)
            end = _StageEnd(width, resolution, index)
            self._add_stage(table, own, (state, option), blocks, end)
            table.following[state, option] = self.widths[index + 1].index(width)
            if index == self.stages - 1:
                self._add_heads(table, own, (state, option), end)

    def _add_stage(
        self,
        table: StageTable,
        own: slice,
        at: tuple[int, int],
        blocks: tuple[BlockSpec, ...],
        end: _StageEnd,
    ) -> None:
        """Set the costs of a stage's blocks, and of what a task's head takes at its end."""
        plain = self._stage_cost(blocks, blocks, first=end.index == 0)
        for combo, head in zip(range(own.start, own.stop), self.space.heads, strict=True):
            cost, peak = plain
            if HEADS.get(head).side is not None:
                with_side = (*blocks, *self._side_blocks(head, end))
                earlier = self._side_outputs(head, end.resolution, end.index)
                cost, peak = self._stage_cost(with_side, blocks, end.index == 0, earlier)
            table.costs[(slice(None), combo, *at)] = cost
            table.memory_bytes[(combo, *at)] = peak

    def _add_heads(self, table: StageTable, own: slice, at: tuple[int, int], end: _StageEnd) -> None:
        """Add the heads after a network's last stage."""
        stages = self.space.stages[: end.index + 1]
        for combo, head in zip(range(own.start, own.stop), self.space.heads, strict=True):
            sides = map_sides(stages, head, end.resolution)
            blocks = expand_head(head, end.width, sides, self.space.default_classes)
            classifier = blocks
            if self.classes is not None:
                plain = self._classifier_head
                sides = map_sides(stages, plain, end.resolution)
                classifier = expand_head(plain, end.width, sides, self.classes)
            cost = self._cost(blocks, classifier, boundary_bytes(blocks))
            table.costs[(slice(None), combo, *at)] += cost
            peak = peak_activation_bytes(blocks, self._side_outputs(head, end.resolution, end.index))
            table.memory_bytes[(combo, *at)] = max(table.memory_bytes[(combo, *at)], peak)

    @cached_property
    def _classifier_head(self) -> str:
        """Name of the classifier head of the space that this space's backbones come from."""
        name = TaskName.parse(self.space.name)
        return get_space(name.base).heads[0] if name else self.space.heads[0]

    def _stage_cost(
        self,
        blocks: Sequence[BlockSpec],
        backbone: Sequence[BlockSpec],
        first: bool,
        earlier_outputs: int = 0,
    ) -> tuple[Floats, int]:
        """Return a stage's cost by channel, its output transfer included, and its peak activation bytes.

        A stage without blocks, which is never the first, costs nothing. `earlier_outputs` are elements of the
        head's side outputs that are already in memory.
        """
        if not blocks:
            return np.zeros(self.channels.negated + 1), 0
        cost = self._cost(blocks, backbone, boundary_bytes([*blocks, blocks[0]]))
        for number, rates in enumerate(self.rates):
            cost[2 * number : 2 * number + 2] += rates.base_ms if first else 0.0
        return cost, peak_activation_bytes(blocks, earlier_outputs)

    def _cost(self, blocks: Sequence[BlockSpec], classifier: Sequence[BlockSpec], sent_bytes: int) -> Floats:
        """Return the cost by channel of blocks that send so many bytes; `classifier` has blocks in their place."""
        latencies = [
            np.array([rates.block_ms[block.key] for block in blocks]).sum(axis=0)
            + rates.ms_per_byte * sent_bytes
            for rates in self.rates
        ]
        params, macs = sum(b.params() for b in blocks), sum(b.macs().conv_linear for b in blocks)
        counts = [params, macs, sum(b.costs.mixes_positions for b in blocks)]
        if self.channels.as_classifier:
            counts.append(sum(b.params() for b in classifier))
        return np.concatenate([*latencies, counts, [-counts[self.channels.counted - self.channels.params]]])

    def _side(self, resolution: int, index: int) -> int:
        """Return the side in pixels of the input of the stage at `index`."""
        for stage in self.space.stages[:index]:
            resolution = stage.out_resolution(resolution)
        return resolution

    def _side_blocks(self, head: str, end: _StageEnd) -> tuple[BlockSpec, ...]:
        """Return the head's blocks at the end of a stage that is not the last."""
        if end.index not in tapped_stages(self.space.stages[: self.stages], head):
            return ()
        side = self._side(end.resolution, end.index + 1)
        return (expand_side(head, end.width, side, self.space.default_classes),)

    def _side_outputs(self, head: str, resolution: int, before: int) -> int:
        """Return the elements of side outputs of the first `before` stages, which do not depend on widths."""
        ends = (_StageEnd(1, resolution, index) for index in range(before))
        return sum(block.out_elements for end in ends for block in self._side_blocks(head, end))


CHUNK = 8192
"""Rows priced at a time: the buffers stay in the cache of a core."""


@dataclass(frozen=True)
class CostArrays:
    """Costs of N architectures; `latency_ms` and `latency_high_ms` are (LUTs, N), the others (N,)."""

    latency_ms: Floats
    latency_high_ms: Floats
    params: Integers
    macs: Integers
    depth: Integers
    memory_bytes: Integers


class CompiledSpace:
    """A space with its costs as arrays: sums over stages by channel, and peak memory as a maximum over stages.

    Attributes:
        channels: Indices of the sums.
        lut_names: Names of the LUTs in messages.
        fingerprint: Changes whenever a price may change.
        combos: The (resolution, head) pairs.
    """

    def __init__(self, space: Space, prices: Prices, confidence: float = 0.95, classes: int | None = None):
        """Compile the tables.

        Args:
            space: The space, or a part of a registered one.
            prices: One LUT or several.
            confidence: Of the latencies' upper bounds.
            classes: Also count the parameters of the classifier of this many classes with the same backbone, by
                which a supernet's scope is stated where networks have the head of another task.

        Raises:
            UsageError: a LUT lacks blocks of the space; the message names them.
        """
        self.space = space
        sources = prices if isinstance(prices, Sequence) else (prices,)
        lut_prices = tuple(LutPrice.of(source) for source in sources)
        self.fingerprint = fingerprint(lut_prices)
        self.channels = Channels(len(lut_prices), classes is not None)
        self.lut_names = tuple(price.name or f"LUT {n}" for n, price in enumerate(lut_prices, start=1))
        self.combos = [(resolution, head) for resolution in space.resolutions for head in space.heads]
        rates = [_Rates.of(space, price.model, confidence) for price in lut_prices]
        builder = _TableBuilder(space, rates, classes)
        self.tables: tuple[StageTable, ...] = tuple(map(builder.table, range(builder.stages)))
        self.stages = space.stages[: len(self.tables)]

    @cached_property
    def _option_index(self) -> list[dict[tuple[int | float, ...], int]]:
        return [{values: index for index, values in enumerate(stage.options)} for stage in self.stages]

    def encode(self, archs: Sequence[Arch]) -> Codes:
        """Return architectures as rows; raise UsageError ("arch_not_in_space") for one outside the space."""
        codes = np.empty((len(archs), 1 + len(self.stages)), np.int16, order="F")
        for row, arch in enumerate(archs):
            try:
                if (arch.space, arch.classes) != (self.space.name, self.space.default_classes):
                    raise KeyError
                codes[row, 0] = self.combos.index((arch.resolution, arch.head))
                for column, options in enumerate(self._option_index):
                    used = column < len(arch.stages)
                    codes[row, 1 + column] = options[arch.stages[column]] if used else len(options)
            except (KeyError, ValueError) as error:
                raise UsageError(
                    f"{arch} is not in the part of {self.space.name} that is searched",
                    code="arch_not_in_space",
                ) from error
        return codes

    def decode(self, codes: Codes) -> list[Arch]:
        """Return rows as architectures; the inverse of `encode`."""
        archs = []
        for combo, *chosen in codes.tolist():
            resolution, head = self.combos[combo]
            rows = tuple(
                stage.options[option]
                for stage, option in zip(self.stages, chosen, strict=True)
                if option < len(stage.options)
            )
            archs.append(Arch(self.space, resolution, head, self.space.default_classes, rows))
        return archs

    def price(self, codes: Codes) -> CostArrays:
        """Return all costs of rows; latencies are NaN where a row is not an architecture of the space."""
        totals, memory = self.totals(codes)
        latencies, counts = np.split(totals, [self.channels.params])
        with np.errstate(invalid="ignore"):
            counts = np.rint(counts).astype(np.int64)
        params, macs, depth = counts[:3]
        return CostArrays(latencies[0::2], latencies[1::2], params, macs, depth, memory.astype(np.int64))

    def priced(self, codes: Codes) -> tuple[PricedArch, ...]:
        """Return rows as architectures with their costs."""
        costs, archs = self.price(codes), self.decode(codes)
        ms, high_ms = costs.latency_ms.T.tolist(), costs.latency_high_ms.T.tolist()
        return tuple(
            PricedArch(
                latency_ms=ms[row][0],
                latency_high_ms=high_ms[row][0],
                further_latency_ms=tuple(ms[row][1:]),
                further_latency_high_ms=tuple(high_ms[row][1:]),
                params=int(costs.params[row]),
                macs=int(costs.macs[row]),
                depth=int(costs.depth[row]),
                memory_bytes=int(costs.memory_bytes[row]),
                arch=arch.to_json(),
            )
            for row, arch in enumerate(archs)
        )

    def totals(self, codes: Codes) -> tuple[Floats, Floats]:
        """Return all channels but the negated one, (channels, N), and peak activation bytes, (N,)."""
        totals = np.zeros((self.channels.negated, len(codes)))
        memory = np.zeros(len(codes))
        for rows, table, index in self._walk(codes):
            for channel, costs in enumerate(table.costs[: self.channels.negated]):
                totals[channel, rows] += costs.reshape(-1).take(index)
            np.maximum(memory[rows], table.memory_bytes.reshape(-1).take(index), out=memory[rows])
        return totals, memory

    def channel(self, codes: Codes, channel: int = 0) -> Floats:
        """Return one channel, (N,); by default the first LUT's latency in ms."""
        total = np.zeros(len(codes))
        for rows, table, index in self._walk(codes):
            total[rows] += table.costs[channel].reshape(-1).take(index)
        return total

    def _walk(self, codes: Codes) -> Iterator[tuple[slice, StageTable, NDArray[np.intp]]]:
        """Yield (rows, table, index into its flattened (combos, states, options)) by chunk and stage."""
        self._check(codes)
        options = [*(table.valid.shape[1] for table in self.tables[1:]), 0]
        steps = [table.following * following for table, following in zip(self.tables, options, strict=True)]
        for start in range(0, len(codes), CHUNK):
            rows = slice(start, start + CHUNK)
            combo = codes[rows, 0].astype(np.intp)
            before = np.zeros(len(combo), np.intp)
            for column, table in enumerate(self.tables, start=1):
                before += codes[rows, column]
                index = combo * table.valid.size
                index += before
                yield rows, table, index
                before = steps[column - 1].reshape(-1).take(before)

    def _check(self, codes: Codes) -> None:
        sizes = [len(self.combos), *(table.valid.shape[1] for table in self.tables)]
        if codes.ndim != 2 or codes.shape[1] != len(sizes):
            raise UsageError(
                f"codes have shape {codes.shape}; expected (N, {len(sizes)})", code="invalid_codes"
            )
        if len(codes) and any(
            codes[:, column].min() < 0 or codes[:, column].max() >= size for column, size in enumerate(sizes)
        ):
            largest = [size - 1 for size in sizes]
            raise UsageError(f"codes are out of range; the largest are {largest}", code="invalid_codes")
