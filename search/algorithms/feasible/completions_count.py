"""In how many ways a network can be completed within a budget, counted by dynamic programming over stages.

A budgeted sum over stages is rounded down to bins, stage by stage. What fits by its bins holds every architecture
within the budget and a few beside it.

Sums are counted from the least that is possible: the cost of an option is what it adds to the cheapest way to
complete the network, so that the bins divide the slack of the budget and not the budget. A tight budget has
as many bins as a wide one. Where parameters may also be too few, their sum must leave no more than so many bins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from luts.format.numbers import Floats, Integers
from search.algorithms.feasible.extremes import completions
from search.algorithms.pricing.compiled import CompiledSpace
from search.algorithms.pricing.limits import Limits

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
