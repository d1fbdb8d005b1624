"""Architectures within a budget: exact bounds, counts and uniform draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from luts.format.errors import BlocktimeError
from luts.format.schema import Floats, Integers
from search.algorithms.cost import (
    UNLIMITED,
    Batch,
    Codes,
    CompiledSpace,
    Limits,
    Mask,
    Priced,
    Prices,
    compile_limits,
)
from search.algorithms.record import Budget, skyline
from search.spaces import Arch, Space


class InfeasibleError(BlocktimeError):
    """No architecture of the space meets the constraints."""


def completions(compiled: CompiledSpace, channel: int, limits: Limits, largest: bool = False) -> list[Floats]:
    """For each number of stages done, (combos, states): the least (most) that the rest adds to a channel.

    inf (-inf) where no network can be completed within the memory limit; other limits are not looked at.
    """
    impossible = -np.inf if largest else np.inf
    rest = [np.zeros((len(compiled.combos), int(compiled.tables[-1].following.max()) + 1))]
    for at in reversed(range(len(compiled.tables))):
        table = compiled.tables[at]
        totals = table.costs[channel] + rest[0][:, table.following]
        totals = np.where(limits.options(compiled, at), totals, impossible)
        rest.insert(0, totals.max(axis=2) if largest else totals.min(axis=2))
    return rest


def extreme(compiled: CompiledSpace, channel: int, limits: Limits, largest: bool) -> Codes:
    """The architecture with the least (most) of a channel within the memory limit: one row, or none."""
    rest = completions(compiled, channel, limits, largest)
    pick = np.argmax if largest else np.argmin
    combo = int(pick(rest[0][:, 0]))
    if not np.isfinite(rest[0][combo, 0]):
        return np.empty((0, 1 + len(compiled.tables)), np.int16, order="F")
    chosen, state = [combo], 0
    for at, table in enumerate(compiled.tables):
        totals = table.costs[channel, combo, state] + rest[at + 1][combo, table.following[state]]
        allowed = limits.options(compiled, at)[combo, state]
        option = int(pick(np.where(allowed, totals, -np.inf if largest else np.inf)))
        chosen.append(option)
        state = int(table.following[state, option])
    return np.array([chosen], np.int16, order="F")


def least_memory_bytes(compiled: CompiledSpace) -> float:
    """The smallest peak of activations of any architecture."""
    peaks = np.zeros((len(compiled.combos), int(compiled.tables[-1].following.max()) + 1))
    for table in reversed(compiled.tables):
        through = np.maximum(table.memory_bytes, peaks[:, table.following])
        peaks = np.where(table.valid, through, np.inf).min(axis=2)
    return float(peaks[:, 0].min())


def beyond_reach(compiled: CompiledSpace, limits: Limits) -> InfeasibleError:
    """Why no architecture meets the limits besides latency: the first that is out of reach on its own."""
    bounds = [(c, v) for c, v in zip(limits.channels, limits.largest, strict=True) if np.isfinite(v)]
    for channel, bound in bounds:
        least = float(completions(compiled, channel, UNLIMITED)[0][:, 0].min())
        if least > bound:
            floor = channel == compiled.fewness_channel
            edge, remedy = ("largest", "allow fewer") if floor else ("smallest", "allow more")
            return InfeasibleError(
                f"no architecture of {compiled.space.name} has {_bound(compiled, channel, bound)}; "
                f"the {edge} has {_shown(compiled, channel, least)}; {remedy}"
            )
    least_bytes = least_memory_bytes(compiled)
    if least_bytes > limits.memory_bytes:
        return InfeasibleError(
            f"no architecture of {compiled.space.name} has at most {limits.memory_bytes:.0f} bytes of "
            f"activations; the smallest has {least_bytes:.0f} bytes of activations; allow more"
        )
    asked = [_bound(compiled, channel, bound) for channel, bound in bounds]
    if np.isfinite(limits.memory_bytes):
        asked.append(f"at most {limits.memory_bytes:.0f} bytes of activations")
    return InfeasibleError(
        f"no architecture of {compiled.space.name} has {' and '.join(asked)} at any latency"
        f"{_by(compiled, 0)}; allow more"
    )


def _bound(compiled: CompiledSpace, channel: int, bound: float) -> str:
    side = "at least" if channel == compiled.fewness_channel else "at most"
    return f"{side} {_shown(compiled, channel, bound)}"


def _shown(compiled: CompiledSpace, channel: int, value: float) -> str:
    if channel in (compiled.params_channel, compiled.fewness_channel):
        return f"{abs(value):.0f} parameters"
    if channel == compiled.macs_channel:
        return f"{value:.0f} conv+linear MACs"
    return f"{value:.4g} ms by {compiled.lut_names[channel // 2]}"


def _by(compiled: CompiledSpace, lut: int) -> str:
    """By which LUT, where there are several."""
    return f" by {compiled.lut_names[lut]}" if compiled.luts > 1 else ""


def too_slow(compiled: CompiledSpace, budget: Budget, fastest: Priced) -> InfeasibleError:
    """The first LUT's latency is out of reach, given the rest; says the smallest that is not."""
    latencies = (budget.latency_ms, *budget.further_latency_ms)
    asked = [f"{ms:g} ms{_by(compiled, lut)}" for lut, ms in enumerate(latencies)]
    asked += [f"{budget.params} parameters"] if budget.params is not None else []
    asked += [f"at least {budget.least_params} parameters"] if budget.least_params is not None else []
    asked += [f"{budget.macs} conv+linear MACs"] if budget.macs is not None else []
    asked += [f"{budget.memory_bytes} bytes of activations"] if budget.memory_bytes is not None else []
    within = " within the rest" if len(asked) > 1 else ""
    reach = (
        f"the smallest latency that can be reached{within} is {fastest.latency_ms:.4g} ms{_by(compiled, 0)}"
    )
    if budget.cautious:
        reach += (
            f" (its upper bound at {100 * budget.confidence:g} %, which is what counts, "
            f"{fastest.latency_high_ms:.4g} ms)"
        )
    return InfeasibleError(
        f"no architecture of {compiled.space.name} meets {' and '.join(asked)}; {reach}; allow more"
    )


CELLS = 4096
"""Cells of the count for each state: all bins of one budgeted sum, or 64 of each of two, 16 of each of three."""

TINY = 1e-9
"""Rounding of sums, in bins: no architecture within the budget may be counted out by it."""


class CompletionsCount:
    """Counts for a compiled space within limits.

    Attributes:
        starts: (combos,): architectures of each resolution and head that fit by their bins.
    """

    def __init__(self, compiled: CompiledSpace, limits: Limits):
        self.compiled, self.limits = compiled, limits
        bounds = {c: v for c, v in zip(limits.channels, limits.largest, strict=True) if np.isfinite(v)}
        least = -bounds.pop(compiled.fewness_channel, np.inf)
        if np.isfinite(least):
            most = completions(compiled, compiled.params_channel, limits, largest=True)[0].max()
            bounds.setdefault(compiled.params_channel, float(most))
        bounded = list(bounds.items())
        bins = max(1, round(CELLS ** (1 / len(bounded))) if bounded else 1)
        self._spent = [self._binned(channel, bound, bins) for channel, bound in bounded]
        self._shape = (bins + 1,) * len(bounded)
        self._counts = self._count(self._ends(bounds, bins, least))
        for channel, bound in bounded:
            cheapest = completions(compiled, channel, limits)[0][:, 0]
            self._counts[0][~(cheapest <= bound * (1 + TINY))] = 0.0
        self.starts: Floats = self._counts[0][(slice(None), 0, *(size - 1 for size in self._shape))]

    def all_left(self, rows: int) -> list[Integers]:
        """The bins of so many networks that are not begun, for each sum."""
        return [np.full(rows, size - 1) for size in self._shape]

    def ways(
        self, at: int, combos: Integers, states: Integers, left: Sequence[Integers]
    ) -> tuple[Floats, list[Integers]]:
        """For each row and option of a stage, in how many ways it can be gone on with, and the bins then left."""
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
        """Per stage (combos, states, options): bins of a sum's slack that an option uses up."""
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
        """(combos, states, bins left...): 1 where a network may end so, 0 where it has too few parameters."""
        tables, channel = self.compiled.tables, self.compiled.params_channel
        ends = np.ones((len(self.compiled.combos), int(tables[-1].following.max()) + 1, *self._shape))
        if not np.isfinite(least):
            return ends
        fewest = completions(self.compiled, channel, self.limits)[0][:, 0]
        slack = np.maximum(bounds[channel] - fewest, 1.0)
        # rounded down stage by stage, a network has used up to a bin more for each of them
        used = np.floor((least - fewest) / slack * bins) - len(tables) - 1
        axis = list(bounds).index(channel)
        along = [-1 if position == axis else 1 for position in range(len(bounds))]
        left = np.arange(bins + 1).reshape(1, 1, *along)
        allowed = left <= (bins - used).reshape(-1, 1, *[1] * len(bounds))
        return np.where(allowed, ends, 0.0)

    def _count(self, ends: Floats) -> list[Floats]:
        """For each number of stages done, (combos, states, bins left...): ways to complete a network."""
        tables = self.compiled.tables
        counts = [ends]
        for at in reversed(range(len(tables))):
            table, after = tables[at], counts[0]
            own = np.zeros((*table.memory_bytes.shape[:2], *self._shape))
            for combo, state, option in np.argwhere(self.limits.options(self.compiled, at)):
                used = [spent[at][combo, state, option] for spent in self._spent]
                if all(u < size for u, size in zip(used, self._shape, strict=True)):
                    to = tuple(slice(u, None) for u in used)
                    left = tuple(slice(0, size - u) for u, size in zip(used, self._shape, strict=True))
                    own[(combo, state, *to)] += after[(combo, table.following[state, option], *left)]
            counts.insert(0, own)
        return counts


MAX_PROPOSED = 100
"""Draws for each architecture asked for, before fewer are given."""

ROWS = 1 << 15
"""Architectures worked on at a time: keeps the ways of all their options within 32 MB or so."""


@dataclass(frozen=True)
class Drawn:
    """Architectures within the limits, and how many draws that fit by their bins it took."""

    codes: Codes
    proposed: int


class FeasibleSet:
    """Architectures of a compiled space within limits."""

    def __init__(self, compiled: CompiledSpace, limits: Limits):
        self.compiled, self.limits = compiled, limits
        self._count = CompletionsCount(compiled, limits)

    @property
    def most(self) -> int:
        """Architectures that fit by their bins: at least as many as are within the limits."""
        return int(self._count.starts.sum())

    def sample(self, count: int, rng: np.random.Generator) -> Drawn:
        """`count` architectures, independent and uniform among those within the limits; fewer, perhaps none,
        where `MAX_PROPOSED` draws for each did not find so many."""
        kept: list[Codes] = [np.empty((0, 1 + len(self.compiled.tables)), np.int16)]
        within = proposed = 0
        while self.most and within < count and proposed < MAX_PROPOSED * count:
            drawn = self._draw(min(count - within, ROWS), None, rng)
            kept.append(drawn[self.limits.allow(self.compiled, drawn)])
            proposed += len(drawn)
            within += len(kept[-1])
        return Drawn(np.asfortranarray(np.concatenate(kept)), proposed)

    def enumerate(self) -> Codes:
        """Every architecture within the limits; ask `most` first."""
        codes = np.flatnonzero(self._count.starts).astype(np.int16)[:, None]
        states = np.zeros(len(codes), np.int64)
        begun = self._count.all_left(len(codes))
        left = np.array(begun).reshape(len(begun), len(codes))
        for at, table in enumerate(self.compiled.tables):
            parts = []
            for some in (slice(start, start + ROWS) for start in range(0, len(codes), ROWS)):
                combos = codes[some, 0].astype(np.int64)
                ways, remaining = self._count.ways(at, combos, states[some], list(left[:, some]))
                rows, options = np.nonzero(ways)
                longer = np.column_stack([codes[some][rows], options.astype(np.int16)])
                bins = np.array([have[rows, options] for have in remaining]).reshape(-1, len(rows))
                parts.append((longer, table.following[states[some][rows], options], bins))
            if not parts:
                return np.empty((0, 1 + len(self.compiled.tables)), np.int16, order="F")
            codes = np.concatenate([part[0] for part in parts])
            states = np.concatenate([part[1] for part in parts])
            left = np.concatenate([part[2] for part in parts], axis=1)
        codes = np.asfortranarray(codes)
        return codes[self.limits.allow(self.compiled, codes)]

    def repair(self, codes: Codes, rng: np.random.Generator) -> tuple[Codes, Mask]:
        """Each row with as many of its choices kept, from the first stage on, as a network that fits by its
        bins can have, the others drawn; and which of these rows are within the limits in truth.

        A row that is within the limits comes back as it is.
        """
        drawn = self._draw(len(codes), codes, rng)
        return drawn, self.limits.allow(self.compiled, drawn)

    def _draw(self, count: int, wanted: Codes | None, rng: np.random.Generator) -> Codes:
        """Rows that fit by their bins, uniform among them; with `wanted`, its choices where they fit."""
        codes = np.empty((count, 1 + len(self.compiled.tables)), np.int16, order="F")
        rows = np.arange(count)
        starts = np.broadcast_to(self._count.starts, (count, len(self.compiled.combos)))
        combos = _choose(starts, None if wanted is None else wanted[:, 0], rng)
        codes[:, 0] = combos
        states = np.zeros(count, np.int64)
        left = self._count.all_left(count)
        for at, table in enumerate(self.compiled.tables):
            ways, remaining = self._count.ways(at, combos, states, left)
            options = _choose(ways, None if wanted is None else wanted[:, 1 + at], rng)
            codes[:, 1 + at] = options
            left = [have[rows, options] for have in remaining]
            states = table.following[states, options]
        return codes


def _choose(ways: Floats, wanted: NDArray[np.int16] | None, rng: np.random.Generator) -> NDArray[np.int64]:
    """A column for each row with the probability of its ways, or the one wanted where it has any."""
    cumulative = ways.cumsum(axis=1)
    point = rng.random(len(ways))[:, None] * cumulative[:, -1:]
    drawn: Integers = np.minimum((cumulative <= point).sum(axis=1), ways.shape[1] - 1)
    if wanted is None:
        return drawn
    return np.where(ways[np.arange(len(ways)), wanted] > 0, wanted, drawn)


ROUNDING = 1e-12
"""Sums in another order differ by less; nothing at the very edge of a limit may be lost by it."""


@dataclass(frozen=True)
class Goal:
    """A channel that is wanted small, or large for `sign` -1."""

    channel: int
    sign: Literal[1, -1] = 1


def pareto_front(compiled: CompiledSpace, goals: Sequence[Goal], limits: Limits) -> Codes:
    """Architectures within the limits that no other beats in all `goals`, exactly; of those with equal
    costs one. Best in the first objective first.

    Limited channels count as further goals, since a beginning that is worse in all others may be the only
    one that can be completed; the front of `goals` alone is taken of what they leave. A channel that is
    wanted large beside one that is limited leaves few beginnings beaten: seconds become hours in a large space.
    """
    bounds = dict(zip(limits.channels, limits.largest, strict=True))
    limited = [Goal(channel) for channel, bound in bounds.items() if np.isfinite(bound)]
    columns = tuple(dict.fromkeys((*goals, *limited)))
    largest = np.array([bounds.get(c.channel, np.inf) if c in limited else np.inf for c in columns])
    rest = [completions(compiled, c.channel, limits) for c in columns]
    programme = _Programme(compiled, columns, largest, limits, rest)
    sums, codes = np.empty((0, len(goals))), np.empty((0, 1 + len(compiled.tables)), np.int16)
    for combo in range(len(compiled.combos)):
        reached, rows = programme.front(combo)
        within = limits.allow(compiled, rows)
        sums = np.concatenate([sums, reached[within, : len(goals)]])
        codes = np.concatenate([codes, rows[within]])
        kept = skyline(sums)
        sums, codes = sums[kept], codes[kept]
    return np.asfortranarray(codes)


@dataclass(frozen=True)
class _Labels:
    """Beginnings of networks: sums (N, channels), the state they lead to, the row of the beginning before and
    the option that was added to it."""

    sums: Floats
    states: Integers
    parents: Integers
    options: Integers

    def best(self) -> _Labels:
        """What no other label of the same state beats."""
        kept = [
            own[skyline(self.sums[own])]
            for own in (np.flatnonzero(self.states == state) for state in np.unique(self.states))
        ]
        rows = np.concatenate([np.empty(0, np.int64), *kept])
        return _Labels(self.sums[rows], self.states[rows], self.parents[rows], self.options[rows])


@dataclass(frozen=True)
class _Programme:
    """The dynamic programme. `rest` holds the least that is still added in each column."""

    compiled: CompiledSpace
    columns: tuple[Goal, ...]
    largest: Floats
    limits: Limits
    rest: Sequence[Sequence[Floats]]

    def front(self, combo: int) -> tuple[Floats, Codes]:
        """Sums and rows of what is not dominated at one resolution and head."""
        none = np.zeros(1, np.int64)
        steps = [_Labels(np.zeros((1, len(self.columns))), none, none, none)]
        for at in range(len(self.compiled.tables)):
            steps.append(self._extend(combo, at, steps[-1]).best())
        last = _Labels(steps[-1].sums, np.zeros_like(steps[-1].states), steps[-1].parents, steps[-1].options)
        steps[-1] = last.best()
        codes = np.full((len(steps[-1].sums), len(steps)), combo, np.int16)
        rows = np.arange(len(codes))
        for column in range(len(steps) - 1, 0, -1):
            codes[:, column] = steps[column].options[rows]
            rows = steps[column].parents[rows]
        return steps[-1].sums, codes

    def _extend(self, combo: int, at: int, labels: _Labels) -> _Labels:
        """Every label with every option that is worth it and can be completed within the limits."""
        table, parts = self.compiled.tables[at], []
        channels = np.array([column.channel for column in self.columns])[:, None]
        signs = np.array([column.sign for column in self.columns])
        allowed = self.limits.options(self.compiled, at)[combo]
        for state in np.unique(labels.states):
            own = np.flatnonzero(labels.states == state)
            for after in np.unique(table.following[state, allowed[state]]):
                options = np.flatnonzero(allowed[state] & (table.following[state] == after))
                costs = signs * table.costs[channels, combo, state, options].T
                best = skyline(costs)
                sums = (labels.sums[own][:, None] + costs[best]).reshape(-1, len(self.columns))
                ahead = np.array([column[at + 1][combo, after] for column in self.rest])
                least = sums + np.where(signs > 0, ahead, 0.0)
                within = np.flatnonzero((least <= self.largest * (1 + ROUNDING)).all(axis=1))
                states = np.full(len(within), after)
                parents, chosen = own[within // len(best)], options[best[within % len(best)]]
                parts.append(_Labels(sums[within], states, parents, chosen))
        return _Labels(
            np.concatenate([part.sums for part in parts]) if parts else np.empty((0, len(self.columns))),
            *(
                np.concatenate([np.empty(0, np.int64), *(getattr(part, name) for part in parts)])
                for name in ("states", "parents", "options")
            ),
        )


ENUMERATED = 20_000
"""Architectures that are looked at one by one."""

DRAWS = 500
"""Of a round: leaves about one in five hundred."""

ROUNDS = 20
"""Far more than bring the largest space below `ENUMERATED`."""


def fastest_drawn(compiled: CompiledSpace, limits: Limits) -> Codes:
    """The architecture of smallest latency, the first channel, within the others: one row, or none.

    Exact where at most `ENUMERATED` are as fast as one that was drawn.
    """
    rng, best = np.random.default_rng(0), np.empty((0, 1 + len(compiled.tables)), np.int16, order="F")
    bound = np.inf
    for _ in range(ROUNDS):
        feasible = FeasibleSet(compiled, replace(limits, largest=(bound, *limits.largest[1:])))
        whole = feasible.most <= ENUMERATED
        codes = feasible.enumerate() if whole else feasible.sample(DRAWS, rng).codes
        if len(codes):
            latencies = compiled.channel(codes, limits.channels[0])
            best, fastest = codes[[int(latencies.argmin())]], float(latencies.min())
        if whole or not len(codes) or fastest == bound:
            break
        bound = fastest
    return np.asfortranarray(best)


@dataclass(frozen=True)
class Corner:
    """An architecture at an edge of what is possible."""

    arch: Arch
    priced: Priced


@dataclass(frozen=True)
class Reach:
    """What counts as latency is the bound where the budget is cautious, the prediction where it is not.

    Attributes:
        smallest: The fastest architecture within the budget's other limits.
        largest: The slowest of the space.
        lean: No architecture within those limits has less of both latency and parameters.
        most_params: None within the memory limit has less latency and more parameters than one of these.
        most_macs: None within the memory limit has less latency and more MACs than one of these.
    """

    smallest: Corner
    largest: Corner
    lean: tuple[Corner, ...]
    most_params: tuple[Corner, ...]
    most_macs: tuple[Corner, ...]


def reachable(space: Space, prices: Prices, budget: Budget) -> Reach:
    """Which latencies a space can reach within everything else that a budget asks; all fronts fastest first.

    Raises:
        InfeasibleError: no architecture meets the other limits, whatever its latency.
    """
    compiled = CompiledSpace(space, prices, budget.confidence)
    limits = compile_limits(compiled, budget).without_latency()
    latency = Goal(limits.channels[0])
    slowest = extreme(compiled, latency.channel, UNLIMITED, largest=True)
    lean, most_params, most_macs = (
        corners(compiled, pareto_front(compiled, (latency, other), within))
        for other, within in (
            (Goal(compiled.params_channel), limits),
            (Goal(compiled.params_channel, -1), Limits((), (), limits.memory_bytes)),
            (Goal(compiled.macs_channel, -1), Limits((), (), limits.memory_bytes)),
        )
    )
    return Reach(
        smallest=fastest(compiled, limits),
        largest=corners(compiled, slowest)[0],
        lean=lean,
        most_params=most_params,
        most_macs=most_macs,
    )


def corners(compiled: CompiledSpace, codes: Codes) -> tuple[Corner, ...]:
    """Architectures with their prices."""
    batch = compiled.price(codes)
    return tuple(Corner(arch, batch[index]) for index, arch in enumerate(compiled.decode(codes)))


def fastest(compiled: CompiledSpace, limits: Limits) -> Corner:
    """The architecture of smallest latency, the first channel, within the other limits.

    Raises:
        InfeasibleError: nothing meets those, at any latency.
    """
    free = limits.without_latency()
    codes = extreme(compiled, limits.channels[0], free, largest=False)
    if not free.allow(compiled, codes).all():
        floor = compiled.fewness_channel in limits.channels
        codes = (
            fastest_drawn(compiled, free)
            if floor
            else pareto_front(compiled, [Goal(limits.channels[0])], free)
        )
    if not len(codes):
        raise beyond_reach(compiled, free)
    return corners(compiled, codes)[0]


class Candidates:
    """What a budget leaves of a space.

    Attributes:
        pool: All of it where the budget leaves few architectures, else as many as asked for, drawn uniformly.
        whole: Whether the pool is all.
        priced: Architectures priced for it: all that may be within the budget where these are few, else draws.
        share: Of the space that is within the budget; exact where the pool is all, else estimated by the draws.
        smallest_ms: Smallest latency within the other budgets: what counts, the bound where it is cautious.
    """

    def __init__(
        self, space: Space, prices: Prices, budget: Budget, draws: int, generator: np.random.Generator
    ):
        """`draws`: the largest pool; `generator`: for these and all later draws.

        Raises:
            InfeasibleError: nothing meets the budget; says the smallest latency that can be reached.
            UsageError: a LUT lacks blocks of the space, or the budget does not name a latency for each LUT.
        """
        self.compiled = CompiledSpace(space, prices, budget.confidence)
        self._limits = compile_limits(self.compiled, budget)
        self._generator = generator
        corner = fastest(self.compiled, self._limits)
        if not self.allow([corner.arch]).all():
            raise too_slow(self.compiled, budget, corner.priced)
        self.smallest_ms = corner.priced.latency_high_ms if budget.cautious else corner.priced.latency_ms
        self._feasible = FeasibleSet(self.compiled, self._limits)
        self.whole = self._feasible.most <= draws
        if self.whole:
            self.pool, self.priced = self._feasible.enumerate(), self._feasible.most
            self.share = len(self.pool) / space.size()
        else:
            drawn = self._feasible.sample(draws, generator)
            codes = np.concatenate([self.compiled.encode([corner.arch]), drawn.codes])
            self.pool, self.priced = _distinct(codes), drawn.proposed
            self.share = self._feasible.most / space.size() * len(drawn.codes) / drawn.proposed

    def allow(self, archs: Sequence[Arch]) -> Mask:
        """Which are within the budget; `UsageError` for one that is not of the space."""
        return self._limits.allow(self.compiled, self.compiled.encode(archs))

    def price(self, archs: Sequence[Arch]) -> Batch:
        """What they cost."""
        return self.compiled.price(self.compiled.encode(archs))

    def repair(self, archs: Sequence[Arch]) -> tuple[list[Arch], Mask]:
        """Architectures near these that fit the budget's bins, and which of them are within it in truth."""
        codes, within = self._feasible.repair(self.compiled.encode(archs), self._generator)
        return self.compiled.decode(codes), within

    def draw(self, count: int) -> list[Arch]:
        """The whole pool in random order where it is all, else about `count` fresh draws."""
        if self.whole:
            return self.compiled.decode(self.pool[self._generator.permutation(len(self.pool))])
        return self.compiled.decode(self._feasible.sample(count, self._generator).codes)


def _distinct(codes: Codes) -> Codes:
    """Each row once, where it first stands."""
    _, first = np.unique(codes, axis=0, return_index=True)
    return np.asfortranarray(codes[np.sort(first)])
