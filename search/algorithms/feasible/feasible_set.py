"""Drawing from the architectures within a budget directly, however few of the space they are.

Completions are counted by bins; a draw that is uniform among what fits by its bins and then accepted by its exact
price is uniform within the budget.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from luts.format.numbers import Floats, Integers
from search.algorithms.feasible.completions_count import CompletionsCount
from search.algorithms.pricing.compiled import Codes, CompiledSpace
from search.algorithms.pricing.limits import Limits, Mask

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
