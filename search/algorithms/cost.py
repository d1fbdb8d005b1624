"""Predicted costs: the latency model of LUTs, compiled into arrays for millions of architectures a second."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from luts.format.errors import UsageError, few
from luts.format.latency import LatencyModel
from luts.format.lut import Lut
from luts.format.schema import MIB, Floats, Integers
from search.algorithms.record import Budget
from search.blocks import BlockSpec, boundary_bytes, peak_activation_bytes
from search.spaces import Arch, Space
from search.spaces.stages import (
    IMAGE_CHANNELS,
    TASK_HEADS,
    expand_head,
    expand_side,
    expand_stage,
    map_sides,
    tapped_stages,
)


@dataclass(frozen=True)
class LutPrice:
    """One phone's latency model; `fingerprint` is its LUT's digest, `name` what messages call the LUT."""

    model: LatencyModel
    fingerprint: str
    name: str = ""

    @classmethod
    def of(cls, source: LutPrice | Lut | LatencyModel) -> LutPrice:
        """A price as it is; of a LUT or a latency model in memory, with the digest of its numbers."""
        if isinstance(source, LutPrice):
            return source
        model = source.latency_model if isinstance(source, Lut) else source
        return cls(model, hashlib.sha256(repr(model).encode()).hexdigest())


PriceSource = LutPrice | Lut | LatencyModel
Prices = PriceSource | Sequence[PriceSource]
"""One phone, or several whose budgets must all hold; the first is the one that results are shown for."""


def as_prices(prices: Prices) -> tuple[LutPrice, ...]:
    """One or several as a tuple."""
    sources = prices if isinstance(prices, Sequence) else (prices,)
    return tuple(LutPrice.of(source) for source in sources)


def fingerprint(prices: Sequence[LutPrice]) -> str:
    """Changes whenever a price may."""
    return "+".join(price.fingerprint for price in prices)


@dataclass(frozen=True)
class Latency:
    """Prediction by one LUT; a measurement stays below `high_ms` with the budget's confidence."""

    ms: float
    high_ms: float


@dataclass(frozen=True)
class Priced:
    """Latencies by the first LUT, `further` those by the others."""

    latency_ms: float
    latency_high_ms: float
    params: int
    macs: int
    memory_bytes: int
    further: tuple[Latency, ...] = ()


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
            if head in TASK_HEADS:
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


Codes = NDArray[np.int16]
"""(N, 1 + stages): index of resolution and head together, then of each stage its option, the number of options
standing for "the network ended before". In column order (`order="F"`) it is priced fastest."""

CHUNK = 8192
"""Rows priced at a time: the buffers stay in the cache of a core."""


@dataclass(frozen=True)
class Batch:
    """Prices of N architectures; `latency_ms` and `latency_high_ms` are (LUTs, N), the others (N,)."""

    latency_ms: Floats
    latency_high_ms: Floats
    params: Integers
    macs: Integers
    memory_bytes: Integers

    def __len__(self) -> int:
        return len(self.params)

    def __getitem__(self, index: int) -> Priced:
        latencies = [
            Latency(float(ms), float(high))
            for ms, high in zip(self.latency_ms[:, index], self.latency_high_ms[:, index], strict=True)
        ]
        return Priced(
            latency_ms=latencies[0].ms,
            latency_high_ms=latencies[0].high_ms,
            params=int(self.params[index]),
            macs=int(self.macs[index]),
            memory_bytes=int(self.memory_bytes[index]),
            further=tuple(latencies[1:]),
        )


class CompiledSpace:
    """A space with its prices as arrays.

    Channels are what adds up over stages: of LUT l the latency (2 l) and its bound (2 l + 1), then parameters,
    then conv+linear MACs, last the parameters' negative, by which there may be too few of them; peak memory is the
    largest over stages.

    Attributes:
        lut_names: What messages call the LUTs.
    """

    def __init__(self, space: Space, prices: Prices, confidence: float = 0.95):
        """Compile; `confidence` is that of the latency's upper bound.

        Raises:
            UsageError: a LUT lacks blocks of the space; names them.
        """
        self.space = space
        lut_prices = as_prices(prices)
        self.fingerprint = fingerprint(lut_prices)
        self.luts = len(lut_prices)
        self.lut_names = tuple(price.name or f"LUT {n}" for n, price in enumerate(lut_prices, start=1))
        self.combos = [(resolution, head) for resolution in space.resolutions for head in space.heads]
        self.tables: tuple[StageTable, ...] = build_tables(
            space, [price.model for price in lut_prices], confidence
        )
        self.stages = space.stages[: len(self.tables)]

    @property
    def params_channel(self) -> int:
        return 2 * self.luts

    @property
    def macs_channel(self) -> int:
        return 2 * self.luts + 1

    @property
    def fewness_channel(self) -> int:
        return 2 * self.luts + 2

    @cached_property
    def _option_index(self) -> list[dict[tuple[int | float, ...], int]]:
        return [{values: index for index, values in enumerate(stage.options)} for stage in self.stages]

    def encode(self, archs: Sequence[Arch]) -> Codes:
        """Architectures as rows. Raises UsageError for one that is not of this space."""
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
                    f"{arch} is not of the part of {self.space.name} that is searched"
                ) from error
        return codes

    def decode(self, codes: Codes) -> list[Arch]:
        """Rows as architectures; the inverse of `encode`."""
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

    def price(self, codes: Codes) -> Batch:
        """All costs of rows; NaN latencies and nonsense counts where a row is not an architecture of the space."""
        totals, memory = self.totals(codes)
        with np.errstate(invalid="ignore"):
            counts = np.rint(totals[self.params_channel :]).astype(np.int64)
        latencies = totals[: self.params_channel]
        return Batch(latencies[0::2], latencies[1::2], counts[0], counts[1], memory.astype(np.int64))

    def totals(self, codes: Codes) -> tuple[Floats, Floats]:
        """All channels but the last (channels, N), which `total` makes of them, and peak bytes (N,)."""
        totals = np.zeros((self.fewness_channel, len(codes)))
        memory = np.zeros(len(codes))
        for rows, table, index in self._walk(codes):
            for channel, costs in enumerate(table.costs[: self.fewness_channel]):
                totals[channel, rows] += costs.reshape(-1).take(index)
            np.maximum(memory[rows], table.memory_bytes.reshape(-1).take(index), out=memory[rows])
        return totals, memory

    def total(self, totals: Floats, channel: int) -> Floats:
        """Any channel of what `totals` gives (N,)."""
        total: Floats = -totals[self.params_channel] if channel == self.fewness_channel else totals[channel]
        return total

    def channel(self, codes: Codes, channel: int = 0) -> Floats:
        """One channel (N,), by default the first LUT's latency in ms."""
        total = np.zeros(len(codes))
        for rows, table, index in self._walk(codes):
            total[rows] += table.costs[channel].reshape(-1).take(index)
        return total

    def _walk(self, codes: Codes) -> Iterator[tuple[slice, StageTable, NDArray[np.intp]]]:
        """(rows, table, index into its flattened (combos, states, options)), chunk by chunk, stage by stage."""
        self._check(codes)
        steps = [table.following * _next_options(self.tables, at) for at, table in enumerate(self.tables)]
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
            raise UsageError(f"codes of shape {codes.shape}; expected (N, {len(sizes)})")
        if len(codes) and any(
            codes[:, column].min() < 0 or codes[:, column].max() >= size for column, size in enumerate(sizes)
        ):
            raise UsageError(f"codes out of range; columns go up to {[size - 1 for size in sizes]}")


def _next_options(tables: Sequence[StageTable], at: int) -> int:
    return tables[at + 1].valid.shape[1] if at + 1 < len(tables) else 0


Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Limits:
    """Largest sums of channels, the first LUT's latency first, and the largest peak memory."""

    channels: tuple[int, ...]
    largest: tuple[float, ...]
    memory_bytes: float = np.inf

    def allow(self, compiled: CompiledSpace, codes: Codes) -> Mask:
        """Which rows are architectures of the space and within."""
        totals, memory = compiled.totals(codes)
        within: Mask = ~np.isnan(totals[0]) & (memory <= self.memory_bytes)
        for channel, largest in zip(self.channels, self.largest, strict=True):
            within &= compiled.total(totals, channel) <= largest
        return within

    def options(self, compiled: CompiledSpace, at: int) -> Mask:
        """(combos, states, options) of the stage at `at` that a network within the memory limit may hold."""
        table = compiled.tables[at]
        within: Mask = table.valid & (table.memory_bytes <= self.memory_bytes)
        return within

    def without_latency(self) -> Limits:
        """The same without any bound on the first LUT's latency."""
        return replace(self, largest=(np.inf, *self.largest[1:]))


UNLIMITED = Limits((), ())


def compile_limits(compiled: CompiledSpace, budget: Budget) -> Limits:
    """The limits of a budget. Raises UsageError where it does not name one latency for each LUT."""
    latencies = (budget.latency_ms, *budget.further_latency_ms)
    if len(latencies) != compiled.luts:
        raise UsageError(f"{compiled.luts} LUTs, but {len(latencies)} latency budgets; give one for each LUT")
    bounds = {2 * lut + int(budget.cautious): latency for lut, latency in enumerate(latencies)}
    if budget.params is not None:
        bounds[compiled.params_channel] = budget.params
    if budget.macs is not None:
        bounds[compiled.macs_channel] = budget.macs
    if budget.least_params is not None:
        bounds[compiled.fewness_channel] = -budget.least_params
    memory = np.inf if budget.memory_bytes is None else budget.memory_bytes
    return Limits(tuple(bounds), tuple(bounds.values()), memory)
