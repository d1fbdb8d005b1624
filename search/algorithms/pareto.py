"""Several objectives at once: NSGA-II (Deb et al. 2002) over what a budget allows, and the front it leaves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from search.algorithms.record import Evaluated, Objective
from search.algorithms.run import Run
from search.algorithms.skyline import skyline
from search.algorithms.tables import Floats, Integers
from search.spaces import Arch


def pareto_search(run: Run) -> None:
    """A population that spreads along the whole front of `settings.objectives`."""
    space, settings, rng = run.space, run.settings, run.rng
    run.evaluate(run.fresh(settings.population))
    population = list(run.evaluated)
    for _ in range(settings.generations):
        costs = objective_costs([run.evaluated[arch] for arch in population], settings.objectives)
        place = {population[row]: position for position, row in enumerate(_order(costs).tolist())}

        def parent(place: dict[Arch, int] = place) -> Arch:
            """Better of two at random."""
            return min(rng.choice(list(place)), rng.choice(list(place)), key=place.__getitem__)

        def cross() -> Arch:
            return space.crossover(parent(), parent(), rng)

        def mutate() -> Arch:
            return space.mutate(parent(), rng, settings.p_depth, settings.p_block)

        children = run.breed([cross] * settings.crossovers + [mutate] * settings.mutations)
        if not children:
            break
        run.evaluate(children)
        together = population + children
        costs = objective_costs([run.evaluated[arch] for arch in together], settings.objectives)
        population = [together[row] for row in _order(costs)[: settings.population]]


def front(evaluated: Sequence[Evaluated], objectives: Sequence[Objective]) -> tuple[Evaluated, ...]:
    """Those that no other beats in all objectives; best in the first one first."""
    return tuple(evaluated[row] for row in skyline(objective_costs(evaluated, objectives)))


def objective_costs(evaluated: Sequence[Evaluated], objectives: Sequence[Objective]) -> Floats:
    """(N, objectives), all wanted small."""
    columns = {
        "accuracy": lambda found: -found.accuracy,
        "latency": lambda found: found.latency_ms,
        "params": lambda found: found.params,
        "macs": lambda found: found.macs,
        "memory": lambda found: found.memory_bytes,
    }
    return np.array([[columns[name](found) for name in objectives] for found in evaluated], dtype=np.float64)


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


def _order(costs: Floats) -> Integers:
    """Rows by rank, within a rank the least crowded first."""
    ranks, room = non_dominated_ranks(costs), np.zeros(len(costs))
    for rank in np.unique(ranks):
        room[ranks == rank] = crowding(costs[ranks == rank])
    order: Integers = np.lexsort((-room, ranks))
    return order
