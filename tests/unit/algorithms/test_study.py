"""Searches against a known optimum, in a space small enough to enumerate; every strategy."""

import dataclasses
import itertools
import random
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from luts.format.errors import InvalidArtifactError
from orchestrator.cli.main import exit_code
from search.algorithms import (
    CachedEvaluator,
    CompiledSpace,
    Constraints,
    InfeasibleError,
    SearchResult,
    SearchSettings,
    Study,
    pareto_front,
    search,
)
from search.algorithms.pareto import criterion_costs, non_dominated_ranks
from search.algorithms.strategies import mutate_choices, skeletons
from search.blocks import parse_key
from search.spaces import get_space
from tests.support.errors import raises
from tests.support.search_world import NANO, XXS, Accuracy, Flat, make_price

STRATEGIES = ("large-first", "autovit", "evolution", "random", "pareto")
FEW = SearchSettings(generations=6, population=30, skeletons=15, crossovers=15, mutations=15)
ANY = Constraints(latency_ms=1e9)
LIMIT = Constraints(latency_ms=8.5)


def changed(settings=FEW, **changes):
    return settings.model_copy(update=changes)


@pytest.fixture(scope="module")
def every_arch(price):
    """Return all architectures with their costs."""
    archs = list(NANO)
    compiled = CompiledSpace(NANO, price)
    return dict(zip(archs, compiled.priced(compiled.encode(archs)), strict=True))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_best_within_the_constraints_is_found(price, every_arch, share):
    """The upper bound of the latency counts."""
    latencies = sorted(cost.latency_high_ms for cost in every_arch.values())
    limit = Constraints(latency_ms=latencies[int(share * len(latencies))])
    within = {arch for arch, cost in every_arch.items() if cost.latency_high_ms <= limit.latency_ms}
    results = [search(NANO, price, Accuracy(), limit, changed(seed=seed)) for seed in range(5)]
    best = max(Accuracy().truth(arch) for arch in within)
    assert sum(result.winner.accuracy == best for result in results) >= 3
    assert min(result.winner.accuracy for result in results) > best - 0.021
    result = results[0]
    assert {found.architecture() for found in result.evaluated} <= within
    assert len(result.evaluated) < len(every_arch) / 5
    assert (result.coarse.feasible, result.coarse.feasible_share) == (len(within), len(within) / NANO.size())


def test_all_constraints_hold(price, every_arch):
    limits: dict[str, Any] = {"latency_ms": 10, "params": 210_000, "macs": 8_000_000, "memory_bytes": 110_000}
    result = search(NANO, price, Accuracy(), Constraints(**limits, cautious=False), FEW)
    within = [
        cost
        for cost in every_arch.values()
        if all(getattr(cost, name) <= limit for name, limit in limits.items())
    ]
    assert 100 < len(within) == result.coarse.feasible < 2000
    for name, limit in limits.items():
        assert max(getattr(found, name) for found in result.evaluated) <= limit


def test_each_device_has_its_limit(price):
    other = make_price(salt="other")
    limits = Constraints(latency_ms=6, further_latency_ms=(5,))
    result = search(NANO, [price, other], Accuracy(), limits, FEW)
    alone = search(NANO, price, Accuracy(), Constraints(latency_ms=6), FEW)
    assert max(found.latency_high_ms for found in result.evaluated) <= 6
    assert max(found.further_latency_high_ms[0] for found in result.evaluated) <= 5
    assert result.coarse.feasible < alone.coarse.feasible
    assert result.price == f"{price.fingerprint}+{other.fingerprint}"


def test_the_joint_objective_by_hand(price):
    """In ms, 6 + 500 x 0.3 = 156 is better than 9 + 500 x 0.295 = 156.5; 1/500 gives the reverse reading."""
    latency_first, loss_first = SearchSettings(ms_per_loss=500), SearchSettings(loss_per_ms=1 / 500)
    assert latency_first.loss(0.7, 6.0) == pytest.approx(156)
    assert latency_first.loss(0.705, 9.0) == pytest.approx(156.5)
    assert loss_first.loss(0.7, 6.0) < loss_first.loss(0.705, 9.0)
    with pytest.raises(ValidationError, match="two readings"):
        SearchSettings(ms_per_loss=1, loss_per_ms=1)


def test_reciprocal_readings_of_the_joint_objective_agree(price):
    first, second, plain = (
        search(NANO, price, Accuracy(), ANY, changed(**settings)).winner
        for settings in ({"ms_per_loss": 12.5}, {"loss_per_ms": 0.08}, {})
    )
    assert first == second
    assert first.latency_ms < plain.latency_ms
    assert first.accuracy < plain.accuracy


def test_the_faster_of_equal_accuracy_wins(price):
    result = search(NANO, price, Flat(), ANY, FEW)
    assert result.winner.latency_ms == min(found.latency_ms for found in result.evaluated)


def test_infeasible_constraints_name_what_is_possible(price, every_arch):
    smallest_ms = min(cost.latency_ms for cost in every_arch.values())
    fewest = min(cost.params for cost in every_arch.values())
    evaluator = Accuracy()
    for limits, text in (
        ({"latency_ms": 0.9 * smallest_ms}, f"{smallest_ms:.4g} ms"),
        ({"latency_ms": 100, "params": 1000}, str(fewest)),
        ({"latency_ms": smallest_ms}, "upper bound at 95 %"),
        (
            {"latency_ms": 2, "params": 50_000, "memory_bytes": 90_000},
            "2 ms and 50,000 parameters and 90,000 bytes",
        ),
    ):
        with pytest.raises(InfeasibleError, match=text) as caught:
            search(NANO, price, evaluator, Constraints(**limits), FEW)
        assert exit_code(caught.value) == 5
    assert evaluator.calls == []


def test_a_tight_limit_in_a_large_space_leaves_the_fastest():
    price, settings = make_price(XXS), changed(draws=50, generations=1, redraws=3)
    with pytest.raises(InfeasibleError) as caught:
        search(XXS, price, Flat(), Constraints(latency_ms=0.1, cautious=False), settings)
    smallest_ms = float(str(caught.value).partition("reached is ")[2].partition(" ms")[0])
    limit = Constraints(latency_ms=1.001 * smallest_ms, cautious=False)
    assert search(XXS, price, Flat(), limit, settings).winner.latency_ms <= limit.latency_ms


def test_part_of_a_space_is_searched():
    space, price = dataclasses.replace(XXS, resolutions=(192,), heads=("fc",)), make_price(XXS)
    result = search(space, price, Flat(), ANY, changed(draws=100, generations=2))
    found = {(a.resolution, a.head) for a in (e.architecture() for e in result.evaluated)}
    assert found == {(192, "fc")}


def test_the_first_generation_has_the_top_skeletons(price, every_arch):
    result = search(NANO, price, Accuracy(), ANY, changed(strategy="autovit", generations=0))
    first = [found.architecture() for found in result.evaluated]
    assert len(first) == 30
    compiled = CompiledSpace(NANO, price)
    assert len(np.unique(skeletons(compiled, compiled.encode(first[:15])), axis=0)) == 15
    assert every_arch[first[0]].macs == max(cost.macs for cost in every_arch.values())


def test_large_first_starts_from_the_largest_the_deepest_and_random_ones(price, every_arch):
    result = search(NANO, price, Accuracy(), ANY, changed(generations=0, additive=0.5, sample=12))
    first = [row.architecture() for row in result.evaluated]
    by_macs = sorted(every_arch.values(), key=lambda row: (-row.macs, -row.params, row.latency_ms))
    deepest = max(every_arch.values(), key=lambda row: (row.depth, row.macs))
    assert (result.largest.macs, result.deepest.arch) == (by_macs[0].macs, deepest.arch)
    known = {row.arch for row in by_macs[:15]} | {deepest.arch}
    assert {arch.to_json() for arch in first[: len(known)]} == known
    study = Study(NANO, price, ANY, changed(additive=0.5, sample=12))
    assert set(study.sample) <= set(first), "the additive model's sample is evaluated once"
    assert len(first) == 30


def test_the_largest_of_a_large_space_are_exact(price, every_arch):
    """The pool has 5 of 288 networks; two limits, so sums are binned coarsely."""
    macs = sorted(row.macs for row in every_arch.values())[200]
    limit = Constraints(latency_ms=9, params=170_000, macs=macs)
    study = Study(NANO, price, limit, changed(draws=5))
    assert not study.candidates.whole
    within = [arch for arch in every_arch if study.candidates.allow([arch])[0]]
    for deepest in (False, True):
        sizes = [
            (every_arch[arch].depth, every_arch[arch].macs) if deepest else (every_arch[arch].macs,)
            for arch in within
        ]
        found = [every_arch[arch] for arch in study.largest(20, deepest=deepest)]
        got = [(row.depth, row.macs) if deepest else (row.macs,) for row in found]
        assert got == sorted(sizes, reverse=True)[:20]


def test_depth_counts_blocks_that_combine_positions():
    blocks = [
        "conv(in=3,out=8,k=3,s=2)@32",
        "conv(in=8,out=8,k=1,s=1)@16",
        "mbconv(in=8,out=8,k=3,e=2,s=1)@16",
    ]
    attention = "mvit.layer(d=16,heads=1,head_dim=16,ratio=2,patch=2)@16"
    assert [parse_key(key).costs.mixes_positions for key in (*blocks, attention)] == [True, False, True, True]


def test_depth_adds_up_over_a_network(every_arch):
    for arch, row in list(every_arch.items())[::40]:
        assert row.depth == sum(block.costs.mixes_positions for block in arch.blocks())
    space = get_space("vit-cifar")
    arch = space.sample(random.Random(0))
    compiled = CompiledSpace(space, make_price(space))
    assert (len(arch.blocks()), compiled.priced(compiled.encode([arch]))[0].depth) == (16, 6)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_strategies_evaluate_the_same_number_once_each_and_the_seed_decides(price, strategy):
    evaluator, started = Accuracy(), []
    settings = changed(strategy=strategy)
    result = search(NANO, price, evaluator, LIMIT, settings, lambda *start: started.append(start[1]))
    assert started == [FEW.evaluations]
    assert len(evaluator.calls) == len(set(evaluator.calls)) == len(result.rows)
    assert len(result.evaluated) == FEW.evaluations
    assert evaluator.batches == len(result.history) + (result.rows != result.evaluated)
    assert len(result.history) == 7
    assert max(found.latency_high_ms for found in result.evaluated) <= 8.5
    assert result.winner.accuracy == max(found.accuracy for found in result.evaluated)
    assert (result.coarse.skeletons > 0) == (strategy == "autovit")
    best = [generation.best for generation in result.history]
    assert best == sorted(best)
    assert search(NANO, price, Accuracy(), LIMIT, settings) == result
    other = search(NANO, price, Accuracy(), LIMIT, changed(settings, seed=1))
    assert [found.arch for found in other.evaluated] != [found.arch for found in result.evaluated]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_few_feasible_architectures_are_all_evaluated(price, every_arch, strategy):
    latencies = sorted(cost.latency_high_ms for cost in every_arch.values())
    limit, started = Constraints(latency_ms=latencies[39]), []
    settings = changed(strategy=strategy)
    result = search(NANO, price, Accuracy(), limit, settings, lambda *start: started.append(start))
    assert len(result.evaluated) == 40
    assert len(result.history) < 7
    assert started == [(40 / len(every_arch), 40)]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_large_space_is_sampled(strategy):
    settings = changed(strategy=strategy, draws=200, generations=2, population=10, crossovers=5, mutations=5)
    limits = Constraints(latency_ms=400, params=1_500_000)
    result = search(XXS, make_price(XXS), Accuracy(), limits, settings)
    assert len(result.evaluated) == 20 + 10
    assert max(found.latency_high_ms for found in result.evaluated) <= 400
    assert max(found.params for found in result.evaluated) <= 1_500_000
    assert 0 < result.coarse.feasible_share < 0.5


def test_evolution_improves_and_random_search_does_not(price):
    gains = {}
    for strategy in ("autovit", "evolution", "random"):
        settings = changed(strategy=strategy, generations=2)
        runs = [search(NANO, price, Accuracy(), LIMIT, changed(settings, seed=seed)) for seed in range(5)]
        gains[strategy] = sum(run.history[2].mean - run.history[0].mean for run in runs) / 5
    assert gains["evolution"] > 0.02
    assert gains["autovit"] > 0.02
    assert abs(gains["random"]) < 0.01


def test_pareto_search_approaches_the_whole_front(price, every_arch):
    """At every latency of the true front, the accuracy is at most one step lower."""
    truth = Accuracy()
    latencies = np.array([cost.latency_ms for cost in every_arch.values()])
    result = search(NANO, price, truth, ANY, changed(strategy="pareto", generations=12))
    found = pareto_front(result.evaluated, ("accuracy", "latency"))
    for ms in np.quantile(latencies, (0.05, 0.25, 0.5, 0.9)):
        best = max(truth.truth(arch) for arch, cost in every_arch.items() if cost.latency_ms <= ms)
        assert max(row.accuracy for row in found if row.latency_ms <= ms) >= best - 0.021
    for worse, better in itertools.pairwise(found[::-1]):
        assert worse.accuracy < better.accuracy
        assert worse.latency_ms < better.latency_ms


def test_pareto_search_with_three_objectives(price):
    objectives: tuple[Any, ...] = ("accuracy", "latency", "params")
    settings = changed(strategy="pareto", objectives=objectives)
    result = search(NANO, price, Accuracy(), LIMIT, settings)
    rows = pareto_front(result.evaluated, objectives)
    assert (non_dominated_ranks(criterion_costs(rows, objectives)) == 0).all()
    assert len(rows) > len(pareto_front(result.evaluated, ("accuracy", "latency")))


def test_plain_mutation_changes_every_choice():
    rng, parent = random.Random(0), XXS.sample(random.Random(4))
    children = [mutate_choices(XXS, parent, rng) for _ in range(600)]
    for i, j in [(i, j) for i, row in enumerate(parent.stages) for j in range(len(row))]:
        same = [child.stages[i][j] == parent.stages[i][j] for child in children if i < len(child.stages)]
        assert 0.8 < sum(same) / len(same) < 0.99
    assert len({len(child.stages) for child in children}) == 3
    assert len({child.resolution for child in children}) == 4
    assert len({child.head for child in children}) == 2


def test_a_killed_search_resumes(price, tmp_path):
    path = tmp_path / "cache" / "accuracies.jsonl"
    undisturbed = search(NANO, price, Accuracy(), ANY, FEW)
    with pytest.raises(KeyboardInterrupt):
        search(NANO, price, CachedEvaluator(Accuracy(die_after=50), path), ANY, FEW)
    with path.open("ab") as file:
        file.write(b'{"evaluator":"aaaa')
    for evaluations in (len(undisturbed.evaluated) - 50, 0):
        rest = Accuracy()
        assert search(NANO, price, CachedEvaluator(rest, path), ANY, FEW) == undisturbed
        assert len(rest.calls) == evaluations


def test_a_result_file(price, tmp_path):
    result = search(NANO, price, Accuracy(), Constraints(latency_ms=1e9, params=200_000), FEW)
    path = tmp_path / "search.json"
    result.save(path)
    assert '"budget"' in path.read_text(), "the name of the constraints in files"
    assert SearchResult.load(path) == result
    assert result.winner.architecture().to_json() == result.winner.arch
    path.write_text(path.read_text()[:-50])
    for damaged in (path, tmp_path / "none.json"):
        with pytest.raises(InvalidArtifactError):
            SearchResult.load(damaged)
    (tmp_path / "file").write_text("")
    with raises("not_writable"):
        result.save(tmp_path / "file" / "search.json")
