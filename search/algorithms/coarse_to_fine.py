"""Latency-aware coarse-to-fine search (AutoViT, Algorithm 2)."""

from __future__ import annotations

import numpy as np

from search.algorithms.compiled import Codes, CompiledSpace
from search.algorithms.run import Run
from search.algorithms.tables import Integers
from search.spaces import Arch


def coarse_to_fine(run: Run) -> int:
    """Skeletons within the budget, then evolution around them; the number of skeletons."""
    first, kept = initial_population(run)
    run.evaluate(first)
    for _ in range(run.settings.generations):
        children = _children(run)
        if not children:
            break
        run.evaluate(children)
    return kept


def skeletons(compiled: CompiledSpace, codes: Codes) -> Integers:
    """(N, 1 + stages): resolution and head, and the widths of the stages, 0 where there is none: what mutation
    around a candidate keeps fixed in spirit."""
    widths = [np.array([*map(stage.width, stage.options), 0]) for stage in compiled.stages]
    return np.column_stack([codes[:, 0], *(own[codes[:, 1 + at]] for at, own in enumerate(widths))])


def initial_population(run: Run) -> tuple[list[Arch], int]:
    """The best candidate of each of the top K skeletons, then others of the pool at random; and how many are
    the first. Most MACs are best: of equal price, more computation is the better guess."""
    batch = run.compiled.price(run.pool)
    order = np.lexsort((*run.pool.T[::-1], batch.latency_ms[0], -batch.macs))
    _, first = np.unique(skeletons(run.compiled, run.pool[order]), axis=0, return_index=True)
    best = order[np.sort(first)[: min(run.settings.skeletons, run.settings.population)]]
    others = np.setdiff1d(order, best)
    wanted = min(len(others), run.settings.population - len(best))
    rows = np.concatenate([best, run.draws.choice(others, wanted, replace=False)])
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
