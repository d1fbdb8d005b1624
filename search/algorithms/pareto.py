"""Pareto dominance on arrays of costs, of which smaller is better: fronts, ranks and crowding (NSGA-II)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from luts.format.schema import Floats, Integers
from search.algorithms.record import Criterion, Evaluated

BLOCK = 512
"""Rows compared at a time with all front rows so far, where there are three costs or more."""


def pareto_rows(costs: Floats) -> Integers:
    """Return the indices of the rows of (N, criteria) that no other row dominates.

    Of equal rows one is returned. The rows are in lexicographic order of their costs.
    """
    order: Integers = np.lexsort(costs.T[::-1])
    if costs.shape[1] <= 2:
        last = costs[order, -1]
        before = np.concatenate([[np.inf], np.minimum.accumulate(last)[:-1]])
        rows: Integers = order[last < before]
        return rows
    rows = np.empty(0, np.int64)
    for start in range(0, len(order), BLOCK):
        block = order[start : start + BLOCK]
        block = block[~_dominated(costs[block], costs[rows])]
        earlier = np.tri(len(block), k=-1, dtype=np.bool_)
        beaten = (costs[block][None] <= costs[block][:, None]).all(axis=2) & earlier
        rows = np.concatenate([rows, block[~beaten.any(axis=1)]])
    return rows


def _dominated(rows: Floats, by: Floats) -> NDArray[np.bool_]:
    """Return which rows are at least as large in every column as some row of `by`."""
    beaten = np.zeros(len(rows), np.bool_)
    for start in range(0, len(by), 8 * BLOCK):
        some = by[start : start + 8 * BLOCK]
        worse = np.ones((len(rows), len(some)), np.bool_)
        for column in range(rows.shape[1]):
            worse &= some[None, :, column] <= rows[:, column, None]
        beaten |= worse.any(axis=1)
    return beaten


def pareto_front(evaluated: Sequence[Evaluated], criteria: Sequence[Criterion]) -> tuple[Evaluated, ...]:
    """Return the architectures that no other dominates in the criteria, best in the first criterion first."""
    return tuple(evaluated[row] for row in pareto_rows(criterion_costs(evaluated, criteria)))


def criterion_costs(evaluated: Sequence[Evaluated], criteria: Sequence[Criterion]) -> Floats:
    """Return the costs of (N, criteria); accuracy is negated, so that smaller is better in every column."""
    columns = {
        "accuracy": lambda row: -row.accuracy,
        "latency": lambda row: row.latency_ms,
        "params": lambda row: row.params,
        "macs": lambda row: row.macs,
        "memory": lambda row: row.memory_bytes,
    }
    return np.array([[columns[name](row) for name in criteria] for row in evaluated], dtype=np.float64)


def non_dominated_ranks(costs: Floats) -> Integers:
    """Return the rank of each row: 0 on the front, 1 on the front of the rest, and so on (Deb et al. 2002)."""
    ranks = np.full(len(costs), -1, np.int64)
    no_worse: NDArray[np.bool_] = np.all(costs[:, None] <= costs[None], axis=2)
    beats = no_worse & ~no_worse.T
    rank = 0
    while (ranks < 0).any():
        left = ranks < 0
        ranks[left & ~beats[left].any(axis=0)] = rank
        rank += 1
    return ranks


def crowding_distance(costs: Floats) -> Floats:
    """Return the crowding distance of rows of one rank: larger in sparse regions, infinite at the ends."""
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
    """Return the rows by rank, within a rank the least crowded first."""
    ranks, distances = non_dominated_ranks(costs), np.zeros(len(costs))
    for rank in np.unique(ranks):
        distances[ranks == rank] = crowding_distance(costs[ranks == rank])
    order: Integers = np.lexsort((-distances, ranks))
    return order
