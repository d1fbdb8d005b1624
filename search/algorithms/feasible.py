"""Drawing from the architectures within a budget directly, however few of the space they are.

A budgeted sum over stages is rounded down to bins, stage by stage, so that completions can be counted by
dynamic programming. What fits by its bins holds every architecture within the budget and a few beside it; a
draw that is uniform among those and then accepted by its exact price is uniform within the budget.

Sums are counted from the least that is possible: the cost of an option is what it adds to the cheapest way to
complete the network, so that the bins divide the slack of the budget and not the budget. A tight budget has
as many bins as a wide one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.algorithms.compiled import Codes, CompiledSpace
from search.algorithms.limits import Limits, Mask
from search.algorithms.reach import completions
from search.algorithms.tables import Floats, Integers

CELLS = 4096
"""Cells of the count for each state: all bins of one budgeted sum, or 64 of each of two, 16 of each of three."""

MAX_PROPOSED = 100
"""Draws for each architecture asked for, before fewer are given."""

ROWS = 1 << 15
"""Architectures worked on at a time: keeps the ways of all their options within 32 MB or so."""

TINY = 1e-9
"""Rounding of sums, in bins: no architecture within the budget may be counted out by it."""


@dataclass(frozen=True)
class Drawn:
    """Architectures within the limits, and how many draws that fit by their bins it took."""

    codes: Codes
    proposed: int


class FeasibleSet:
    """Architectures of a compiled space within limits."""

    def __init__(self, compiled: CompiledSpace, limits: Limits):
        self.compiled, self.limits = compiled, limits
        bounded = [(c, v) for c, v in zip(limits.channels, limits.largest, strict=True) if np.isfinite(v)]
        bins = max(1, round(CELLS ** (1 / len(bounded))) if bounded else 1)
        self._spent = [self._binned(channel, bound, bins) for channel, bound in bounded]
        self._reachable = [
            completions(compiled, channel, limits)[0][:, 0] <= bound * (1 + TINY)
            for channel, bound in bounded
        ]
        self._shape = (bins + 1,) * len(bounded)
        self._counts = self._count()

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

    def _count(self) -> list[Floats]:
        """For each number of stages done, (combos, states, bins left...): ways to complete a network."""
        tables = self.compiled.tables
        ends = int(tables[-1].following.max()) + 1
        counts = [np.ones((len(self.compiled.combos), ends, *self._shape))]
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
        for combos in self._reachable:
            counts[0][~combos] = 0.0
        return counts

    @property
    def most(self) -> int:
        """Architectures that fit by their bins: at least as many as are within the limits."""
        return int(self._starts.sum())

    @property
    def _starts(self) -> Floats:
        whole = (slice(None), 0, *(size - 1 for size in self._shape))
        starts: Floats = self._counts[0][whole]
        return starts

    def sample(self, count: int, rng: np.random.Generator) -> Drawn:
        """`count` architectures, independent and uniform among those within the limits; fewer, perhaps none,
        where `MAX_PROPOSED` draws for each did not find so many."""
        kept: list[Codes] = [np.empty((0, 1 + len(self.compiled.tables)), np.int16)]
        found = proposed = 0
        while self.most and found < count and proposed < MAX_PROPOSED * count:
            drawn = self._draw(min(count - found, ROWS), None, rng)
            kept.append(drawn[self.limits.allow(self.compiled, drawn)])
            proposed += len(drawn)
            found += len(kept[-1])
        return Drawn(np.asfortranarray(np.concatenate(kept)), proposed)

    def enumerate(self) -> Codes:
        """Every architecture within the limits; ask `most` first."""
        codes = np.flatnonzero(self._starts).astype(np.int16)[:, None]
        states = np.zeros(len(codes), np.int64)
        left = np.array([np.full(len(codes), size - 1) for size in self._shape]).reshape(-1, len(codes))
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


def _choose(ways: Floats, wanted: NDArray[np.int16] | None, rng: np.random.Generator) -> NDArray[np.int64]:
    """A column for each row with the probability of its ways, or the one wanted where it has any."""
    cumulative = ways.cumsum(axis=1)
    point = rng.random(len(ways))[:, None] * cumulative[:, -1:]
    drawn: Integers = np.minimum((cumulative <= point).sum(axis=1), ways.shape[1] - 1)
    if wanted is None:
        return drawn
    return np.where(ways[np.arange(len(ways)), wanted] > 0, wanted, drawn)
