"""Exact Pareto fronts of a space by dynamic programming over stages.

A stage depends on those before through one small state, so the non-dominated beginnings of each state are all
that an optimum can begin with: exact for spaces far too large to enumerate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from luts.format.numbers import Floats, Integers
from search.algorithms.feasible.extremes import completions
from search.algorithms.pricing.compiled import Codes, CompiledSpace
from search.algorithms.pricing.limits import Limits
from search.algorithms.record.skyline import skyline

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
