"""The search against a known optimum, in a space small enough to look at whole."""

import dataclasses
import random

import numpy as np
import pytest
from pydantic import ValidationError

from luts.format.errors import BlocktimeError, InvalidArtifactError, UsageError
from orchestrator.cli.main import exit_code
from search.algorithms import (
    CachedEvaluator,
    CompiledSpace,
    Constraints,
    SearchResult,
    SearchSettings,
    search,
)
from search.algorithms.bounds import InfeasibleError
from search.algorithms.strategies import skeletons
from tests.support.search_world import NANO, XXS, Accuracy, Flat, make_price

FEW = SearchSettings(generations=6, population=30, skeletons=15, crossovers=15, mutations=15)
ANY = Constraints(latency_ms=1e9)


@pytest.fixture(scope="module")
def price():
    return make_price()


@pytest.fixture(scope="module")
def everything(price):
    archs = list(NANO)
    compiled = CompiledSpace(NANO, price)
    batch = compiled.price(compiled.encode(archs))
    return {arch: batch[row] for row, arch in enumerate(archs)}


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_finds_the_best_within_the_budget(price, everything, share):
    """The bound is held to the budget unless asked otherwise."""
    latencies = sorted(cost.latency_high_ms for cost in everything.values())
    budget = Constraints(latency_ms=latencies[int(share * len(latencies))])
    within = {arch for arch, cost in everything.items() if cost.latency_high_ms <= budget.latency_ms}
    results = [
        search(NANO, price, Accuracy(), budget, FEW.model_copy(update={"seed": seed})) for seed in range(5)
    ]
    best = max(Accuracy().truth(arch) for arch in within)
    assert sum(result.winner.accuracy == best for result in results) >= 3
    assert min(result.winner.accuracy for result in results) > best - 0.021
    result = results[0]
    assert {found.architecture() for found in result.evaluated} <= within
    assert len(result.evaluated) < len(everything) / 5
    assert (result.coarse.feasible, result.coarse.feasible_share) == (len(within), len(within) / NANO.size())


def test_every_budget_holds(price, everything):
    budget = Constraints(latency_ms=10, params=210_000, macs=8_000_000, memory_bytes=110_000, cautious=False)
    result = search(NANO, price, Accuracy(), budget, FEW)
    within = [
        cost
        for cost in everything.values()
        if cost.latency_ms <= 10
        and cost.params <= 210_000
        and cost.macs <= 8_000_000
        and cost.memory_bytes <= 110_000
    ]
    assert 100 < len(within) == result.coarse.feasible < 2000
    assert max(found.latency_ms for found in result.evaluated) <= 10
    assert max(found.params for found in result.evaluated) <= 210_000
    assert max(found.macs for found in result.evaluated) <= 8_000_000
    assert max(found.memory_bytes for found in result.evaluated) <= 110_000


def test_every_phone_has_its_budget(price):
    other = make_price(salt="other")
    budget = Constraints(latency_ms=6, further_latency_ms=(5,))
    result = search(NANO, [price, other], Accuracy(), budget, FEW)
    alone = search(NANO, price, Accuracy(), Constraints(latency_ms=6), FEW)
    assert max(found.latency_high_ms for found in result.evaluated) <= 6
    assert max(found.further_latency_high_ms[0] for found in result.evaluated) <= 5
    assert result.coarse.feasible < alone.coarse.feasible
    assert result.price == f"{price.fingerprint}+{other.fingerprint}"
    with pytest.raises(UsageError, match="2 LUTs, but 1"):
        search(NANO, [price, other], Accuracy(), Constraints(latency_ms=6), FEW)


def test_latency_has_its_price_in_the_joint_objective(price):
    fast, slow = (
        search(NANO, price, Accuracy(), ANY, FEW.model_copy(update={"loss_per_ms": rate})).winner
        for rate in (10.0, 0.0)
    )
    assert fast.latency_ms < slow.latency_ms
    assert fast.accuracy < slow.accuracy


def test_latency_first_and_loss_first_rank_alike_where_one_lambda_is_the_others_reciprocal(price):
    """By hand, in ms: 6 + 500 x 0.3 = 156 is better than 9 + 500 x 0.295 = 156.5; 1/500 says so the other way."""
    latency_first, loss_first = SearchSettings(ms_per_loss=500), SearchSettings(loss_per_ms=1 / 500)
    assert latency_first.loss(0.7, 6.0) == pytest.approx(156)
    assert latency_first.loss(0.705, 9.0) == pytest.approx(156.5)
    first, second = (
        search(NANO, price, Accuracy(), ANY, FEW.model_copy(update={name: rate}))
        for name, rate in (("ms_per_loss", 12.5), ("loss_per_ms", 0.08))
    )
    assert first.winner == second.winner
    plain = search(NANO, price, Accuracy(), ANY, FEW).winner
    assert first.winner.latency_ms < plain.latency_ms
    assert loss_first.loss(0.7, 6.0) < loss_first.loss(0.705, 9.0)
    with pytest.raises(ValidationError, match="two readings"):
        SearchSettings(ms_per_loss=1, loss_per_ms=1)


def test_equal_accuracy_goes_to_the_faster(price):
    result = search(NANO, price, Flat(), ANY, FEW)
    assert result.winner.latency_ms == min(found.latency_ms for found in result.evaluated)


def test_impossible_budgets_name_what_is_possible(price, everything):
    smallest_ms = min(cost.latency_ms for cost in everything.values())
    evaluator = Accuracy()
    with pytest.raises(InfeasibleError, match=f"{smallest_ms:.4g} ms") as caught:
        search(NANO, price, evaluator, Constraints(latency_ms=0.9 * smallest_ms), FEW)
    assert exit_code(caught.value) == 5
    with pytest.raises(InfeasibleError, match=str(min(cost.params for cost in everything.values()))):
        search(NANO, price, evaluator, Constraints(latency_ms=100, params=1000), FEW)
    with pytest.raises(InfeasibleError, match="upper bound at 95 %"):
        search(NANO, price, evaluator, Constraints(latency_ms=smallest_ms), FEW)
    with pytest.raises(InfeasibleError, match="2 ms and 50,000 parameters and 90,000 bytes"):
        search(NANO, price, evaluator, Constraints(latency_ms=2, params=50_000, memory_bytes=90_000), FEW)
    assert evaluator.calls == []


def test_tight_budget_in_a_large_space_ends_with_the_fastest():
    space, price = XXS, make_price(XXS)
    settings = FEW.model_copy(update={"draws": 50, "generations": 1, "redraws": 3})
    with pytest.raises(InfeasibleError) as caught:
        search(space, price, Flat(), Constraints(latency_ms=0.1, cautious=False), settings)
    smallest_ms = float(str(caught.value).partition("reached is ")[2].partition(" ms")[0])
    budget = Constraints(latency_ms=1.001 * smallest_ms, cautious=False)
    result = search(space, price, Flat(), budget, settings)
    assert result.winner.latency_ms <= budget.latency_ms


def test_part_of_a_space_is_never_left():
    space, price = dataclasses.replace(XXS, resolutions=(192,), heads=("fc",)), make_price(XXS)
    settings = FEW.model_copy(update={"draws": 100, "generations": 2})
    result = search(space, price, Flat(), ANY, settings)
    found = {(a.resolution, a.head) for a in (e.architecture() for e in result.evaluated)}
    assert found == {(192, "fc")}


def test_initial_population_holds_the_top_skeletons(price, everything):
    result = search(NANO, price, Accuracy(), ANY, FEW.model_copy(update={"generations": 0}))
    first = [found.architecture() for found in result.evaluated]
    assert len(first) == 30
    compiled = CompiledSpace(NANO, price)
    assert len(np.unique(skeletons(compiled, compiled.encode(first[:15])), axis=0)) == 15
    assert everything[first[0]].macs == max(cost.macs for cost in everything.values())


def test_no_architecture_is_evaluated_twice_and_children_come_from_good_parents(price):
    evaluator = Accuracy()
    result = search(NANO, price, evaluator, ANY, FEW)
    assert len(evaluator.calls) == len(set(evaluator.calls)) == len(result.evaluated)
    assert [generation.new for generation in result.history] == [30] * 7
    best = [generation.best for generation in result.history]
    assert best == sorted(best)
    assert result.history[-1].mean > result.history[0].mean


def test_exhausted_budget_region_ends_early(price, everything):
    latencies = sorted(cost.latency_high_ms for cost in everything.values())
    result = search(NANO, price, Accuracy(), Constraints(latency_ms=latencies[39]), FEW)
    assert len(result.evaluated) == 40
    assert len(result.history) < 7


def test_seed_decides(price):
    budget = ANY
    first, again = (search(NANO, price, Accuracy(), budget, FEW) for _ in range(2))
    other = search(NANO, price, Accuracy(), budget, FEW.model_copy(update={"seed": 1}))
    assert first == again
    assert [e.arch for e in first.evaluated] != [e.arch for e in other.evaluated]


def test_killed_search_ends_as_the_undisturbed_one(price, tmp_path):
    path, budget = tmp_path / "cache" / "accuracies.jsonl", ANY
    undisturbed = search(NANO, price, Accuracy(), budget, FEW)
    with pytest.raises(KeyboardInterrupt):
        search(NANO, price, CachedEvaluator(Accuracy(die_after=50), path), budget, FEW)
    with path.open("ab") as file:
        file.write(b'{"evaluator":"aaaa')
    rest = Accuracy()
    assert search(NANO, price, CachedEvaluator(rest, path), budget, FEW) == undisturbed
    assert len(rest.calls) == len(undisturbed.evaluated) - 50
    third = Accuracy()
    assert search(NANO, price, CachedEvaluator(third, path), budget, FEW) == undisturbed
    assert third.calls == []


def test_cache_knows_whose_accuracies_it_holds(tmp_path):
    path, arch = tmp_path / "a.jsonl", NANO.sample(random.Random(0))
    CachedEvaluator(Accuracy(), path).accuracies([arch])
    other = Accuracy()
    other.fingerprint = "c" * 64
    CachedEvaluator(other, path).accuracies([arch])
    assert other.calls == [arch]
    path.write_bytes(b"nonsense\n" + path.read_bytes())
    with pytest.raises(InvalidArtifactError, match="line 1"):
        CachedEvaluator(Accuracy(), path)


def test_record_survives_its_file(price, tmp_path):
    result = search(NANO, price, Accuracy(), Constraints(latency_ms=1e9, params=200_000), FEW)
    path = tmp_path / "search.json"
    result.save(path)
    assert SearchResult.load(path) == result
    assert result.winner.architecture().to_json() == result.winner.arch
    path.write_text(path.read_text()[:-50])
    with pytest.raises(InvalidArtifactError, match="invalid"):
        SearchResult.load(path)
    with pytest.raises(InvalidArtifactError, match="cannot be read"):
        SearchResult.load(tmp_path / "none.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(BlocktimeError, match="cannot save"):
        result.save(tmp_path / "file" / "search.json")
