"""What a space can reach at all: exact extremes and exact Pareto fronts by dynamic programming over stages.

A stage depends on those before through one small state, so the non-dominated beginnings of each state are all
that an optimum can begin with: exact for spaces far too large to enumerate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from luts.errors import InfeasibleError
from search.algorithms.compiled import Codes, CompiledSpace
from search.algorithms.interfaces import Priced
from search.algorithms.limits import UNLIMITED, Limits, compile_limits
from search.algorithms.price import Prices
from search.algorithms.record import Budget
from search.algorithms.skyline import skyline
from search.algorithms.tables import Floats, Integers
from search.spaces import Arch, Space

ROUNDING = 1e-12
"""Sums in another order differ by less; nothing at the very edge of a limit may be lost by it."""


@dataclass(frozen=True)
class Objective:
    """A channel that is wanted small, or large for `sign` -1."""

    channel: int
    sign: Literal[1, -1] = 1


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
    latency = Objective(limits.channels[0])
    slowest = extreme(compiled, latency.channel, UNLIMITED, largest=True)
    lean, most_params, most_macs = (
        corners(compiled, pareto_front(compiled, (latency, other), within))
        for other, within in (
            (Objective(compiled.params_channel), limits),
            (Objective(compiled.params_channel, -1), Limits((), (), limits.memory_bytes)),
            (Objective(compiled.macs_channel, -1), Limits((), (), limits.memory_bytes)),
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
        codes = pareto_front(compiled, [Objective(limits.channels[0])], free)
    if not len(codes):
        raise refusal(compiled, free)
    return corners(compiled, codes)[0]


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


def refusal(compiled: CompiledSpace, limits: Limits) -> InfeasibleError:
    """Why no architecture meets the limits besides latency: the first that is out of reach on its own."""
    bounds = [(c, v) for c, v in zip(limits.channels, limits.largest, strict=True) if np.isfinite(v)]
    for channel, bound in bounds:
        least = float(completions(compiled, channel, UNLIMITED)[0].min())
        if least > bound:
            return InfeasibleError(
                f"no architecture of {compiled.space.name} has at most {_shown(compiled, channel, bound)}; "
                f"the smallest has {_shown(compiled, channel, least)}; allow more"
            )
    least_bytes = _least_memory(compiled)
    if least_bytes > limits.memory_bytes:
        return InfeasibleError(
            f"no architecture of {compiled.space.name} has at most {limits.memory_bytes:.0f} bytes of "
            f"activations; the smallest has {least_bytes:.0f} bytes of activations; allow more"
        )
    asked = [_shown(compiled, channel, bound) for channel, bound in bounds]
    if np.isfinite(limits.memory_bytes):
        asked.append(f"{limits.memory_bytes:.0f} bytes of activations")
    return InfeasibleError(
        f"no architecture of {compiled.space.name} has at most {' and '.join(asked)} at any latency; allow more"
    )


def _least_memory(compiled: CompiledSpace) -> float:
    peaks = np.zeros((len(compiled.combos), int(compiled.tables[-1].following.max()) + 1))
    for table in reversed(compiled.tables):
        through = np.maximum(table.memory_bytes, peaks[:, table.following])
        peaks = np.where(table.valid, through, np.inf).min(axis=2)
    return float(peaks[:, 0].min())


def _shown(compiled: CompiledSpace, channel: int, value: float) -> str:
    if channel == compiled.params_channel:
        return f"{value:.0f} parameters"
    if channel == compiled.macs_channel:
        return f"{value:.0f} conv+linear MACs"
    return f"{value:.4g} ms by LUT {channel // 2 + 1}"


def pareto_front(compiled: CompiledSpace, objectives: Sequence[Objective], limits: Limits) -> Codes:
    """Architectures within the limits that no other beats in all `objectives`, exactly; of those with equal
    costs one. Best in the first objective first.

    Limited channels count as further objectives, since a beginning that is worse in all others may be the only
    one that can be completed; the front of `objectives` alone is taken of what they leave. A channel that is
    wanted large beside one that is limited leaves few beginnings beaten: seconds become hours in a large space.
    """
    bounds = dict(zip(limits.channels, limits.largest, strict=True))
    limited = [Objective(channel) for channel, bound in bounds.items() if np.isfinite(bound)]
    columns = tuple(dict.fromkeys((*objectives, *limited)))
    largest = np.array([bounds.get(c.channel, np.inf) if c in limited else np.inf for c in columns])
    rest = [completions(compiled, c.channel, limits) for c in columns]
    programme = _Programme(compiled, columns, largest, limits, rest)
    sums, codes = np.empty((0, len(objectives))), np.empty((0, 1 + len(compiled.tables)), np.int16)
    for combo in range(len(compiled.combos)):
        found, rows = programme.front(combo)
        within = limits.allow(compiled, rows)
        sums = np.concatenate([sums, found[within, : len(objectives)]])
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
    columns: tuple[Objective, ...]
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
