"""Every strategy by its name, at the same number of evaluations; and the parts of NSGA-II by definition."""

import itertools
import random
from typing import Any

import numpy as np
import pytest

from search.algorithms import CompiledSpace, Constraints, SearchSettings, pareto_front, search
from search.algorithms.pareto import best_first, criterion_costs, crowding_distance, non_dominated_ranks
from search.algorithms.strategies import mutate_choices
from tests.support.search_world import NANO, XXS, Accuracy, make_price

STRATEGIES = ("coarse-to-fine", "evolution", "random", "pareto")
FEW = SearchSettings(generations=5, population=30, skeletons=15, crossovers=15, mutations=15)
BUDGET = Constraints(latency_ms=8.5)


def _named(strategy, **changes):
    return FEW.model_copy(update={"strategy": strategy, **changes})


@pytest.fixture(scope="module")
def price():
    return make_price()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_all_evaluate_the_same_number_once_each_within_the_budget(price, strategy):
    evaluator = Accuracy()
    told = []
    result = search(NANO, price, evaluator, BUDGET, _named(strategy), lambda *what: told.append(what[1]))
    assert told == [180]
    assert (
        len(evaluator.calls) == len(set(evaluator.calls)) == len(result.evaluated) == FEW.evaluations == 180
    )
    assert evaluator.batches == len(result.history) == 6
    assert max(found.latency_high_ms for found in result.evaluated) <= 8.5
    assert result.winner.accuracy == max(found.accuracy for found in result.evaluated)
    assert (result.coarse.skeletons > 0) == (strategy == "coarse-to-fine")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_seed_decides(price, strategy):
    first, again = (search(NANO, price, Accuracy(), BUDGET, _named(strategy)) for _ in range(2))
    other = search(NANO, price, Accuracy(), BUDGET, _named(strategy, seed=1))
    assert first == again
    assert [found.arch for found in first.evaluated] != [found.arch for found in other.evaluated]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_budget_that_leaves_few_is_searched_whole(price, strategy):
    compiled = CompiledSpace(NANO, price)
    bounds = np.sort(compiled.channel(compiled.encode(list(NANO)), 1))
    budget, told = Constraints(latency_ms=float(bounds[39])), []
    result = search(NANO, price, Accuracy(), budget, _named(strategy), lambda *what: told.append(what))
    assert len(result.evaluated) == 40
    assert told == [(40 / len(bounds), 40)], "what a bar counts up to can be reached"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_space_too_large_to_enumerate(strategy):
    settings = _named(strategy, draws=200, generations=2, population=10, crossovers=5, mutations=5)
    budget = Constraints(latency_ms=400, params=1_500_000)
    result = search(XXS, make_price(XXS), Accuracy(), budget, settings)
    assert len(result.evaluated) == 20 + 10
    assert max(found.latency_high_ms for found in result.evaluated) <= 400
    assert max(found.params for found in result.evaluated) <= 1_500_000
    assert 0 < result.coarse.feasible_share < 0.5


def test_evolution_learns_and_random_search_does_not(price):
    gains = {}
    for strategy in ("coarse-to-fine", "evolution", "random"):
        runs = [search(NANO, price, Accuracy(), BUDGET, _named(strategy, seed=seed)) for seed in range(5)]
        gains[strategy] = sum(run.history[2].mean - run.history[0].mean for run in runs) / 5
    assert gains["evolution"] > 0.02
    assert gains["coarse-to-fine"] > 0.02
    assert abs(gains["random"]) < 0.01


def test_pareto_search_nears_the_whole_front(price):
    """Against the true front: every latency on it is met at most a step of accuracy below."""
    compiled, truth = CompiledSpace(NANO, price), Accuracy()
    archs = list(NANO)
    latencies = compiled.channel(compiled.encode(archs))
    result = search(NANO, price, truth, Constraints(latency_ms=1e9), _named("pareto", generations=12))
    found = pareto_front(result.evaluated, ("accuracy", "latency"))
    for ms in np.quantile(latencies, (0.05, 0.25, 0.5, 0.9)):
        best = max(truth.truth(arch) for arch, latency in zip(archs, latencies, strict=True) if latency <= ms)
        assert max(row.accuracy for row in found if row.latency_ms <= ms) >= best - 0.021
    for worse, better in itertools.pairwise(found[::-1]):
        assert worse.accuracy < better.accuracy
        assert worse.latency_ms < better.latency_ms


def test_three_objectives(price):
    objectives: tuple[Any, ...] = ("accuracy", "latency", "params")
    result = search(NANO, price, Accuracy(), BUDGET, _named("pareto", objectives=objectives))
    rows = pareto_front(result.evaluated, objectives)
    costs = criterion_costs(rows, objectives)
    assert (non_dominated_ranks(costs) == 0).all()
    assert len(rows) > len(pareto_front(result.evaluated, ("accuracy", "latency")))


def test_ranks_by_definition():
    costs = np.array([[0, 3], [1, 1], [3, 0], [1, 2], [2, 2], [1, 1]], float)
    assert non_dominated_ranks(costs).tolist() == [0, 0, 0, 1, 2, 0]


def test_crowding_by_hand():
    assert crowding_distance(np.array([[0, 4], [1, 2], [4, 0]], float)).tolist() == [np.inf, 2.0, np.inf]
    assert crowding_distance(np.zeros((3, 2))).tolist() == [np.inf, 0.0, np.inf]


def test_the_least_crowded_of_a_rank_come_first():
    """Of the inner two of a front one has (2 - 0) / 10 + (10 - 7.9) / 10 = 0.41 of room, one 0.9 + 0.8 = 1.7."""
    costs = np.array([[1, 8], [20, 20], [0, 10], [2, 7.9], [10, 0]], float)
    assert best_first(costs).tolist() == [2, 4, 3, 0, 1]


def test_plain_mutation_moves_every_choice():
    rng, parent = random.Random(0), XXS.sample(random.Random(4))
    children = [mutate_choices(XXS, parent, rng) for _ in range(600)]
    stages = [(i, j) for i, row in enumerate(parent.stages) for j in range(len(row))]
    for i, j in stages:
        same = [child.stages[i][j] == parent.stages[i][j] for child in children if i < len(child.stages)]
        assert 0.8 < sum(same) / len(same) < 0.99
    assert len({len(child.stages) for child in children}) == 3
    assert len({child.resolution for child in children}) == 4
    assert len({child.head for child in children}) == 2
