"""Search strategies: coarse to fine (AutoViT, Algorithm 2), evolution, NSGA-II and random search."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from luts.format.schema import Floats, Integers
from search.algorithms.cost import Codes, CompiledSpace
from search.algorithms.record import Evaluated, criterion_costs
from search.algorithms.study import Strategy, Study, register_strategy
from search.spaces import Arch, Space


@register_strategy("coarse-to-fine")
class CoarseToFine(Strategy):
    """Skeletons within the budget, then evolution around them."""

    def propose(self, count: int) -> Sequence[Arch]:
        study, settings = self.study, self.study.settings
        if not study.evaluated:
            return self._best_of_skeletons(count)
        parents = study.ranked()[: settings.parents]
        return study.children(
            lambda: study.rng.choice(parents),
            lambda arch: study.space.mutate(arch, study.rng, settings.p_depth, settings.p_block),
        )

    def _best_of_skeletons(self, count: int) -> list[Arch]:
        """The best candidate of each of the top K skeletons, then others of the pool at random.

        Most MACs are best: of equal price, more computation is the better guess.
        """
        compiled, pool = self.study.candidates.compiled, self.study.candidates.pool
        batch = compiled.price(pool)
        order = np.lexsort((*pool.T[::-1], batch.latency_ms[0], -batch.macs))
        _, first = np.unique(skeletons(compiled, pool[order]), axis=0, return_index=True)
        best = order[np.sort(first)[: min(self.study.settings.skeletons, count)]]
        others = np.setdiff1d(order, best)
        wanted = min(len(others), count - len(best))
        rows = np.concatenate([best, self.study.generator.choice(others, wanted, replace=False)])
        self.skeletons = len(best)
        return compiled.decode(pool[rows])


def skeletons(compiled: CompiledSpace, codes: Codes) -> Integers:
    """(N, 1 + stages): resolution and head, and the widths of the stages, 0 where there is none: what mutation
    around a candidate keeps fixed in spirit."""
    widths = [np.array([*map(stage.width, stage.options), 0]) for stage in compiled.stages]
    return np.column_stack([codes[:, 0], *(own[codes[:, 1 + at]] for at, own in enumerate(widths))])


P_CHOICE = 0.1
"""Probability that plain evolution changes a choice (AutoViT, section 4.3, after Guo et al. 2020)."""


@register_strategy("evolution")
class Evolution(Strategy):
    """A random population, then crossovers and mutations of the best (Guo et al. 2020, single path one-shot).

    Where the original draws again until a child meets the budget, a child is repaired: the number of
    evaluations is what is compared.
    """

    def propose(self, count: int) -> Sequence[Arch]:
        study = self.study
        if not study.evaluated:
            return study.fresh(count)
        parents = study.ranked()[: study.settings.parents]
        return study.children(
            lambda: study.rng.choice(parents), lambda arch: mutate_choices(study.space, arch, study.rng)
        )


def mutate_choices(space: Space, arch: Arch, rng: random.Random, probability: float = P_CHOICE) -> Arch:
    """Every choice redrawn with a probability of its own; widths may shrink, `Study.breed` mends that."""
    total = rng.choice(space.stage_counts) if rng.random() < probability else len(arch.stages)
    rows = []
    for index, stage in enumerate(space.stages[:total]):
        if index >= len(arch.stages):
            rows.append(rng.choice(stage.options))
            continue
        rows.append(
            tuple(
                rng.choice(allowed) if rng.random() < probability else value
                for (_, allowed), value in zip(stage.choices, arch.stages[index], strict=True)
            )
        )
    resolution = rng.choice(space.resolutions) if rng.random() < probability else arch.resolution
    head = rng.choice(space.heads) if rng.random() < probability else arch.head
    return Arch(arch.search_space, resolution, head, arch.classes, tuple(rows))


@register_strategy("pareto")
class ParetoSearch(Strategy):
    """A population that spreads along the whole front of `settings.objectives`."""

    def __init__(self, study: Study):
        super().__init__(study)
        self._population: list[Arch] = []

    def propose(self, count: int) -> Sequence[Arch]:
        study, settings = self.study, self.study.settings
        if not self._population:
            return study.fresh(count)
        best_first = self._sorted(self._population)
        places = {arch: place for place, arch in enumerate(best_first)}

        def parent() -> Arch:
            """Better of two at random."""
            return min(study.rng.choice(best_first), study.rng.choice(best_first), key=places.__getitem__)

        return study.children(
            parent, lambda arch: study.space.mutate(arch, study.rng, settings.p_depth, settings.p_block)
        )

    def tell(self, evaluated: Mapping[Arch, Evaluated]) -> None:
        if self._population:
            together = self._sorted([*self._population, *evaluated])
            self._population = together[: self.study.settings.population]
        else:
            self._population = list(evaluated)

    def _sorted(self, archs: Sequence[Arch]) -> list[Arch]:
        """Best rank first, within a rank the least crowded first."""
        rows = [self.study.evaluated[arch] for arch in archs]
        return [archs[row] for row in best_first(criterion_costs(rows, self.study.settings.objectives))]


def non_dominated_ranks(costs: Floats) -> Integers:
    """0 for rows that no other beats, 1 for those that only these beat, and so on."""
    no_worse: NDArray[np.bool_] = np.all(costs[:, None] <= costs[None], axis=2)
    beats = no_worse & ~no_worse.T
    ranks = np.full(len(costs), -1)
    rank = 0
    while (ranks < 0).any():
        left = ranks < 0
        ranks[left & ~beats[left].any(axis=0)] = rank
        rank += 1
    return ranks


def crowding(costs: Floats) -> Floats:
    """Crowding distance of the rows of one rank: how much room its neighbours leave each, infinite at the ends."""
    distance = np.zeros(len(costs))
    for column in costs.T:
        order = np.argsort(column, kind="stable")
        sorted_costs = column[order]
        distance[order[[0, -1]]] = np.inf
        span = sorted_costs[-1] - sorted_costs[0]
        if span > 0:
            distance[order[1:-1]] += (sorted_costs[2:] - sorted_costs[:-2]) / span
    return distance


def best_first(costs: Floats) -> Integers:
    """Rows by rank, within a rank the least crowded first."""
    ranks, room = non_dominated_ranks(costs), np.zeros(len(costs))
    for rank in np.unique(ranks):
        room[ranks == rank] = crowding(costs[ranks == rank])
    order: Integers = np.lexsort((-room, ranks))
    return order


@register_strategy("random")
class RandomSearch(Strategy):
    """Uniform draws from all within the budget."""

    def propose(self, count: int) -> Sequence[Arch]:
        return self.study.fresh(count)
