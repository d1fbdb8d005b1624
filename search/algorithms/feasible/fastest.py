"""The fastest architecture where there may also be too few parameters.

A floor under one sum leaves nearly no beginning of a network beaten, so the programme of the exact fronts does not
end in a large space. Draws do: each round draws among what is as fast as the fastest so far, until so little is
left that all of it is looked at.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from search.algorithms.feasible.feasible_set import FeasibleSet
from search.algorithms.pricing.compiled import Codes, CompiledSpace
from search.algorithms.pricing.limits import Limits

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
