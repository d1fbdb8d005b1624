"""Latency-aware coarse-to-fine search (AutoViT, Algorithm 2)."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from search.algorithms.run import Run
from search.spaces import Arch


def coarse_to_fine(run: Run) -> int:
    """Skeletons within the budget, then evolution around them; the number of skeletons."""
    first, skeletons = initial_population(run)
    run.evaluate(first)
    for _ in range(run.settings.generations):
        children = _children(run)
        if not children:
            break
        run.evaluate(children)
    return skeletons


def skeleton(arch: Arch) -> Hashable:
    """What mutation around a candidate keeps fixed in spirit: resolution, head and the widths of the stages."""
    return arch.resolution, arch.head, tuple(row[0] for row in arch.stages)


def initial_population(run: Run) -> tuple[list[Arch], int]:
    """The best candidate of each of the top K skeletons, then others of the pool at random; and how many are
    the first. Most MACs are best: of equal price, more computation is the better guess."""
    batch = run.compiled.price(run.pool)
    order = np.lexsort((*run.pool.T[::-1], batch.latency_ms[0], -batch.macs))
    best: dict[Hashable, int] = {}
    for row in order.tolist():
        arch = run.compiled.decode(run.pool[row : row + 1])[0]
        if len(best) == min(run.settings.skeletons, run.settings.population):
            break
        best.setdefault(skeleton(arch), row)
    others = np.setdiff1d(order, list(best.values()))
    wanted = min(len(others), run.settings.population - len(best))
    rows = [*best.values(), *run.draws.choice(others, wanted, replace=False).tolist()]
    return run.compiled.decode(run.pool[rows]), len(best)


def _children(run: Run) -> list[Arch]:
    """Crossovers and mutations of the best so far."""
    space, settings, rng = run.space, run.settings, run.rng
    parents = run.ranked()[: settings.parents]

    def cross() -> Arch:
        return space.crossover(rng.choice(parents), rng.choice(parents), rng)

    def mutate() -> Arch:
        return space.mutate(rng.choice(parents), rng, settings.p_depth, settings.p_block)

    return run.breed([cross] * settings.crossovers + [mutate] * settings.mutations)
