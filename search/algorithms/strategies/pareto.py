"""Several criteria at once: NSGA-II (Deb et al. 2002) over what a budget allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from luts.format.numbers import Floats, Integers
from search.algorithms.record.front import criterion_costs
from search.algorithms.record.result import Evaluated
from search.algorithms.study.strategy import Strategy, register_strategy
from search.algorithms.study.study import Study
from search.spaces import Arch


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
