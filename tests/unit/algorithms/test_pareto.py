"""Pareto dominance by definition, and the parts of NSGA-II by hand."""

import numpy as np
import pytest

from search.algorithms.pareto import best_first, crowding_distance, non_dominated_ranks, pareto_rows


def _dominated(costs):
    return [any((a <= b).all() and (a < b).any() for a in costs) for b in costs]


@pytest.mark.parametrize("columns", [1, 2, 3, 4])
def test_pareto_rows_by_definition(columns):
    costs = np.random.default_rng(columns).integers(0, 6, (200, columns)).astype(float)
    wanted = {tuple(row) for row, beaten in zip(costs, _dominated(costs), strict=True) if not beaten}
    assert [tuple(row) for row in costs[pareto_rows(costs)]] == sorted(wanted)


def test_pareto_rows_of_several_blocks_and_of_none():
    costs = np.random.default_rng(0).random((3000, 3))
    assert set(pareto_rows(costs)) == {i for i, beaten in enumerate(_dominated(costs)) if not beaten}
    assert pareto_rows(np.empty((0, 2))).size == pareto_rows(np.empty((0, 3))).size == 0


def test_ties_across_blocks_are_beaten():
    costs = np.random.default_rng(0).integers(0, 9, (3000, 4)).astype(float)
    costs[:, 3] = 40 - costs[:, :3].sum(axis=1)
    costs[1500:, 3] += 1  # beaten in this column by a row that is equal in the others
    wanted = {tuple(row) for row, beaten in zip(costs, _dominated(costs), strict=True) if not beaten}
    assert {tuple(row) for row in costs[pareto_rows(costs)]} == wanted


def test_ranks_by_definition():
    costs = np.array([[0, 3], [1, 1], [3, 0], [1, 2], [2, 2], [1, 1]], float)
    assert non_dominated_ranks(costs).tolist() == [0, 0, 0, 1, 2, 0]


def test_crowding_distance_by_hand():
    costs = np.array([[0, 4], [1, 2], [4, 0]], float)
    assert crowding_distance(costs).tolist() == [np.inf, 2.0, np.inf]
    assert crowding_distance(np.zeros((3, 2))).tolist() == [np.inf, 0.0, np.inf]


def test_the_least_crowded_of_a_rank_come_first():
    """The inner two of a front have (2 - 0) / 10 + (10 - 7.9) / 10 = 0.41 and 0.9 + 0.8 = 1.7."""
    costs = np.array([[1, 8], [20, 20], [0, 10], [2, 7.9], [10, 0]], float)
    assert best_first(costs).tolist() == [2, 4, 3, 0, 1]
