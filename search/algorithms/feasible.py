"""Architectures within limits: exact extremes, counts by dynamic programming, enumeration and uniform samples."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from luts.format.errors import UsageError
from luts.format.schema import Floats, Integers
from search.algorithms.cost import Codes, CompiledSpace, Mask
from search.algorithms.record import Constraints


@dataclass(frozen=True)
class ChannelLimits:
    """Upper limits of channels, the first LUT's latency first, and of peak activation memory."""

    channels: tuple[int, ...]
    largest: tuple[float, ...]
    memory_bytes: float = np.inf

    @classmethod
    def of(cls, compiled: CompiledSpace, constraints: Constraints) -> ChannelLimits:
        """Return constraints as limits; raise UsageError ("latency_count") unless each LUT has a latency."""
        latencies, channels = constraints.latencies, compiled.channels
        if len(latencies) != channels.luts:
            raise UsageError(
                f"{channels.luts} LUTs, but {len(latencies)} latency limits; give one for each LUT",
                code="latency_count",
            )
        bounds: dict[int, float] = {
            2 * lut + int(constraints.cautious): latency for lut, latency in enumerate(latencies)
        }
        least = constraints.least_params
        if constraints.params is not None:
            bounds[channels.params] = constraints.params
        if constraints.macs is not None:
            bounds[channels.macs] = constraints.macs
        if constraints.as_classifier is not None:
            least = constraints.as_classifier.least_params
            bounds[channels.counted] = constraints.as_classifier.params
        if least is not None:
            bounds[channels.negated] = -least
        memory = np.inf if constraints.memory_bytes is None else constraints.memory_bytes
        return cls(tuple(bounds), tuple(bounds.values()), memory)

    def allow(self, compiled: CompiledSpace, codes: Codes) -> Mask:
        """Return which rows are architectures of the space within the limits."""
        totals, memory = compiled.totals(codes)
        within: Mask = ~np.isnan(totals[0]) & (memory <= self.memory_bytes)
        for channel, largest in zip(self.channels, self.largest, strict=True):
            negated = channel == compiled.channels.negated
            within &= (-totals[compiled.channels.counted] if negated else totals[channel]) <= largest
        return within

    def options(self, compiled: CompiledSpace, at: int) -> Mask:
        """Return which (combos, states, options) of the stage at `at` are valid within the memory limit."""
        table = compiled.tables[at]
        within: Mask = table.valid & (table.memory_bytes <= self.memory_bytes)
        return within

    def without_latency(self) -> ChannelLimits:
        """Return the same limits without one on the first LUT's latency."""
        return replace(self, largest=(np.inf, *self.largest[1:]))


UNLIMITED = ChannelLimits((), ())


def completions(
    compiled: CompiledSpace, channel: int, limits: ChannelLimits, largest: bool = False
) -> list[Floats]:
    """Return the least (most) that the remaining stages add to a channel.

    One array (combos, states) for each number of stages done; inf (-inf) where no network can be completed within
    the memory limit. Other limits are not considered.
    """
    impossible = -np.inf if largest else np.inf
    rest = [np.zeros((len(compiled.combos), int(compiled.tables[-1].following.max()) + 1))]
    for at in reversed(range(len(compiled.tables))):
        table = compiled.tables[at]
        totals = table.costs[channel] + rest[0][:, table.following]
        totals = np.where(limits.options(compiled, at), totals, impossible)
        rest.insert(0, totals.max(axis=2) if largest else totals.min(axis=2))
    return rest


def extreme(compiled: CompiledSpace, channel: int, limits: ChannelLimits, largest: bool) -> Codes:
    """Return the architecture with the least (most) of a channel within the memory limit: one row, or none."""
    rest = completions(compiled, channel, limits, largest)
    pick = np.argmax if largest else np.argmin
    combo = int(pick(rest[0][:, 0]))
    if not np.isfinite(rest[0][combo, 0]):
        return no_codes(compiled)
    chosen, state = [combo], 0
    for at, table in enumerate(compiled.tables):
        totals = table.costs[channel, combo, state] + rest[at + 1][combo, table.following[state]]
        allowed = limits.options(compiled, at)[combo, state]
        option = int(pick(np.where(allowed, totals, -np.inf if largest else np.inf)))
        chosen.append(option)
        state = int(table.following[state, option])
    return np.array([chosen], np.int16, order="F")


def no_codes(compiled: CompiledSpace) -> Codes:
    """Return an array of no architectures."""
    return np.empty((0, 1 + len(compiled.tables)), np.int16, order="F")


def least_memory_bytes(compiled: CompiledSpace) -> float:
    """Return the smallest peak activation memory of any architecture."""
    peaks = np.zeros((len(compiled.combos), int(compiled.tables[-1].following.max()) + 1))
    for table in reversed(compiled.tables):
        through = np.maximum(table.memory_bytes, peaks[:, table.following])
        peaks = np.where(table.valid, through, np.inf).min(axis=2)
    return float(peaks[:, 0].min())


CELLS = 4096
"""Cells of the count for each state: all bins of one limited sum, or 64 of each of two, 16 of each of three."""

TINY = 1e-9
"""Rounding error of sums, in bins; no architecture within the limits may be excluded by it."""

MAX_PROPOSED = 100
"""Draws for each requested architecture, after which fewer are returned."""

ROWS = 1 << 15
"""Architectures processed at a time: keeps the counts of all their options within 32 MB or so."""


MAX_EXTENDED = 100_000
"""Partial networks that a search for the largest ones extends, some seconds' worth."""

_Add = Callable[[Floats, Floats, int, tuple[int, int, int]], Floats]
"""Called with the values so far, those of completions after an option, the stage, and (combo, state, option)."""


@dataclass(frozen=True)
class Sample:
    """Architectures within the limits, and the number of draws it took (drawn by binned sums, then checked)."""

    codes: Codes
    proposed: int


class FeasibleSet:
    """Architectures of a compiled space within limits.

    The ways to complete a partial network within the limits are counted with limited sums rounded down to bins;
    what is drawn or enumerated by these counts is then checked.
    """

    def __init__(self, compiled: CompiledSpace, limits: ChannelLimits):
        """Count the completions of every state."""
        self.compiled, self.limits = compiled, limits
        counted = compiled.channels.counted
        bounds = {c: v for c, v in zip(limits.channels, limits.largest, strict=True) if np.isfinite(v)}
        least = -bounds.pop(compiled.channels.negated, np.inf)
        if np.isfinite(least):
            most = completions(compiled, counted, limits, largest=True)[0].max()
            bounds.setdefault(counted, float(most))
        bounded = list(bounds.items())
        bins = max(1, round(CELLS ** (1 / len(bounded))) if bounded else 1)
        self._spent = [self._binned(channel, bound, bins) for channel, bound in bounded]
        self._shape = (bins + 1,) * len(bounded)
        self._may_end = self._ends(bounds, bins, least)
        self._counts = self._complete(self._may_end, 0.0, lambda own, after, _at, _option: own + after)
        for channel, bound in bounded:
            cheapest = completions(compiled, channel, limits)[0][:, 0]
            self._counts[0][~(cheapest <= bound * (1 + TINY))] = 0.0
        self._starts: Floats = self._counts[0][(slice(None), 0, *(size - 1 for size in self._shape))]

    @property
    def most(self) -> int:
        """An upper bound of the number of architectures within the limits: those whose binned sums are."""
        return int(self._starts.sum())

    def sample(self, count: int, rng: np.random.Generator) -> Sample:
        """Draw `count` architectures, independent and uniform among those within the limits.

        Fewer, perhaps none, are returned where `MAX_PROPOSED` draws for each did not find that many.
        """
        accepted: list[Codes] = [np.empty((0, 1 + len(self.compiled.tables)), np.int16)]
        within = proposed = 0
        while self.most and within < count and proposed < MAX_PROPOSED * count:
            drawn = self._draw(min(count - within, ROWS), None, rng)
            accepted.append(drawn[self.limits.allow(self.compiled, drawn)])
            proposed += len(drawn)
            within += len(accepted[-1])
        return Sample(np.asfortranarray(np.concatenate(accepted)), proposed)

    def enumerate(self) -> Codes:
        """Return every architecture within the limits; check `most` first."""
        codes = np.flatnonzero(self._starts).astype(np.int16)[:, None]
        states = np.zeros(len(codes), np.int64)
        left = np.repeat(np.array(self._shape, np.int64)[:, None] - 1, len(codes), axis=1)
        for at, table in enumerate(self.compiled.tables):
            parts = []
            for some in (slice(start, start + ROWS) for start in range(0, len(codes), ROWS)):
                combos = codes[some, 0].astype(np.int64)
                ways, remaining = self._ways(at, combos, states[some], list(left[:, some]))
                rows, options = np.nonzero(ways)
                longer = np.column_stack([codes[some][rows], options.astype(np.int16)])
                bins = np.array([have[rows, options] for have in remaining]).reshape(-1, len(rows))
                parts.append((longer, table.following[states[some][rows], options], bins))
            if not parts:
                return no_codes(self.compiled)
            codes = np.concatenate([part[0] for part in parts])
            states = np.concatenate([part[1] for part in parts])
            left = np.concatenate([part[2] for part in parts], axis=1)
        codes = np.asfortranarray(codes)
        return codes[self.limits.allow(self.compiled, codes)]

    def largest(self, count: int, added: Sequence[Floats]) -> Codes:
        """Return the architectures within the limits with the most of a sum, the largest first.

        A* search: partial networks are extended in the order of the most that they may still reach within the
        binned limits, so the first complete ones are the largest. Fewer than `count` are returned if there are no
        more, or after `MAX_EXTENDED` extensions, which several tight limits may need.

        Args:
            count: Number of architectures.
            added: What the options of each stage add to the sum, (combos, states, options).
        """
        ends = np.where(self._may_end > 0, 0.0, -np.inf)
        most = self._complete(
            ends, -np.inf, lambda own, after, at, option: np.maximum(own, after + added[at][option])
        )
        tables, full = self.compiled.tables, tuple(size - 1 for size in self._shape)
        allowed = [self.limits.options(self.compiled, at) for at in range(len(tables))]
        heap: list[tuple[float, tuple[int, ...], float, int, tuple[int, ...]]] = [
            (-float(most[0][(combo, 0, *full)]), (int(combo),), 0.0, 0, full)
            for combo in np.flatnonzero(self._starts)
        ]
        heapq.heapify(heap)
        found: list[tuple[int, ...]] = []
        for _ in range(MAX_EXTENDED):
            if not heap or len(found) == count:
                break
            _, codes, total, state, left = heapq.heappop(heap)
            at, combo = len(codes) - 1, codes[0]
            if at == len(tables):
                if self.limits.allow(self.compiled, np.array([codes], np.int16))[0]:
                    found.append(codes)
                continue
            after = tables[at].following[state]
            remaining = [
                have - spent[at][combo, state] for have, spent in zip(left, self._spent, strict=True)
            ]
            within = allowed[at][combo, state].copy()
            for have in remaining:
                within &= have >= 0
            sums = total + added[at][combo, state]
            reach = sums + most[at + 1][(combo, after, *(np.maximum(have, 0) for have in remaining))]
            for option in np.flatnonzero(within & np.isfinite(reach)):
                bins = tuple(int(have[option]) for have in remaining)
                longer = (*codes, int(option))
                heapq.heappush(
                    heap, (-float(reach[option]), longer, float(sums[option]), int(after[option]), bins)
                )
        return np.array(found, np.int16, order="F").reshape(-1, 1 + len(tables))

    def repair(self, codes: Codes, rng: np.random.Generator) -> tuple[Codes, Mask]:
        """Return similar rows that are valid, and which of them are within the limits.

        From the first stage on, a row keeps each of its choices that can still be completed within the binned
        limits; the other choices are drawn. A row within the limits is returned unchanged.
        """
        drawn = self._draw(len(codes), codes, rng)
        return drawn, self.limits.allow(self.compiled, drawn)

    def _draw(self, count: int, wanted: Codes | None, rng: np.random.Generator) -> Codes:
        """Return rows whose binned sums are within the limits, uniform among them; `wanted` choices first."""
        codes = np.empty((count, 1 + len(self.compiled.tables)), np.int16, order="F")
        rows = np.arange(count)
        starts = np.broadcast_to(self._starts, (count, len(self.compiled.combos)))
        combos = _choose(starts, None if wanted is None else wanted[:, 0], rng)
        codes[:, 0] = combos
        states = np.zeros(count, np.int64)
        left = [np.full(count, size - 1) for size in self._shape]
        for at, table in enumerate(self.compiled.tables):
            ways, remaining = self._ways(at, combos, states, left)
            options = _choose(ways, None if wanted is None else wanted[:, 1 + at], rng)
            codes[:, 1 + at] = options
            left = [have[rows, options] for have in remaining]
            states = table.following[states, options]
        return codes

    def _ways(
        self, at: int, combos: Integers, states: Integers, left: Sequence[Integers]
    ) -> tuple[Floats, list[Integers]]:
        """Return, for each row and option of a stage, the number of completions and the bins left after it."""
        after = self.compiled.tables[at].following[states]
        remaining = [
            have[:, None] - spent[at][combos, states] for have, spent in zip(left, self._spent, strict=True)
        ]
        allowed = self.limits.options(self.compiled, at)[combos, states]
        for have in remaining:
            allowed &= have >= 0
        cells = (combos[:, None], after, *(np.maximum(have, 0) for have in remaining))
        return np.where(allowed, self._counts[at + 1][cells], 0.0), remaining

    def _binned(self, channel: int, bound: float, bins: int) -> list[Integers]:
        """Return per stage, (combos, states, options), the bins of a sum's slack that an option uses."""
        rest = completions(self.compiled, channel, self.limits)
        slack = np.maximum(bound - rest[0][:, 0], 0.0)
        slack = np.where(np.isfinite(slack), slack, 0.0)[:, None, None]
        spent = []
        for at, table in enumerate(self.compiled.tables):
            with np.errstate(invalid="ignore", divide="ignore"):
                added = table.costs[channel] + rest[at + 1][:, table.following] - rest[at][:, :, None]
                added = np.where(np.isfinite(added), np.maximum(added, 0.0), np.inf)
                used = np.where(added <= TINY * bound, 0.0, added / slack * bins - TINY)
            spent.append(np.floor(np.clip(used, 0, bins + 1)).astype(np.int64))
        return spent

    def _ends(self, bounds: Mapping[int, float], bins: int, least: float) -> Floats:
        """Return (combos, states, bins left...): 1 where a network may end, 0 where it has too few parameters."""
        tables, channel = self.compiled.tables, self.compiled.channels.counted
        ends = np.ones((len(self.compiled.combos), int(tables[-1].following.max()) + 1, *self._shape))
        if not np.isfinite(least):
            return ends
        fewest = completions(self.compiled, channel, self.limits)[0][:, 0]
        slack = np.maximum(bounds[channel] - fewest, 1.0)
        # each stage rounds down, so a network may have used up to one more bin for every stage
        used = np.floor((least - fewest) / slack * bins) - len(tables) - 1
        axis = list(bounds).index(channel)
        along = [-1 if position == axis else 1 for position in range(len(bounds))]
        left = np.arange(bins + 1).reshape(1, 1, *along)
        allowed = left <= (bins - used).reshape(-1, 1, *[1] * len(bounds))
        return np.where(allowed, ends, 0.0)

    def _complete(self, ends: Floats, none: float, add: _Add) -> list[Floats]:
        """Return, for each number of stages done, (combos, states, bins left...): what completions amount to.

        `none` is the value without a completion; `add` includes those that begin with an option of a stage.
        """
        tables = self.compiled.tables
        values = [ends]
        for at in reversed(range(len(tables))):
            table, after = tables[at], values[0]
            own = np.full((*table.memory_bytes.shape[:2], *self._shape), none)
            for combo, state, option in np.argwhere(self.limits.options(self.compiled, at)):
                used = [spent[at][combo, state, option] for spent in self._spent]
                if all(u < size for u, size in zip(used, self._shape, strict=True)):
                    to = (combo, state, *(slice(u, None) for u in used))
                    left = tuple(slice(0, size - u) for u, size in zip(used, self._shape, strict=True))
                    rest = after[(combo, table.following[state, option], *left)]
                    own[to] = add(own[to], rest, at, (combo, state, option))
            values.insert(0, own)
        return values


def _choose(ways: Floats, wanted: NDArray[np.int16] | None, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return a column for each row, drawn in proportion to its ways, or the wanted one where it has any."""
    cumulative = ways.cumsum(axis=1)
    point = rng.random(len(ways))[:, None] * cumulative[:, -1:]
    drawn: Integers = np.minimum((cumulative <= point).sum(axis=1), ways.shape[1] - 1)
    if wanted is None:
        return drawn
    return np.where(ways[np.arange(len(ways)), wanted] > 0, wanted, drawn)
