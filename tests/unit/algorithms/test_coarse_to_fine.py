"""The search against a known optimum, in a space small enough to look at whole."""

import dataclasses
import hashlib
import random

import pytest

from luts.errors import BlocktimeError, InfeasibleError, InvalidArtifactError
from search.algorithms import Budget, CachedEvaluator, LutPrice, SearchResult, SearchSettings, search
from search.algorithms.cheapest import cheapest
from search.algorithms.coarse_to_fine import skeleton
from search.blocks import parse_key
from search.spaces import get_space

NANO = get_space("autovit-nano")
FEW = SearchSettings(generations=6, population=30, skeletons=15, crossovers=15, mutations=15)


@dataclasses.dataclass(frozen=True)
class _Prediction:
    ms: float
    high: float


class _Model:
    """A latency model: a constant, nanoseconds per MAC with a quirk of each key, and bytes moved."""

    def predict(self, blocks, boundary_bytes=0):
        ms = 0.2 + boundary_bytes * 2e-7
        for key in blocks:
            quirk = int(hashlib.sha256(key.encode()).hexdigest()[:4], 16) / 65536
            ms += parse_key(key).macs().total * 1e-6 * (0.5 + quirk)
        return _Prediction(ms, 1.1 * ms)


class _Accuracy:
    """Known at once: grows with parameters to a limit, with a bump at one architecture's choices."""

    fingerprint = "a" * 64

    def __init__(self, die_after=None):
        self.calls = []
        self.die_after = die_after

    def accuracy(self, arch):
        if self.die_after is not None and len(self.calls) == self.die_after:
            raise KeyboardInterrupt
        self.calls.append(arch)
        wanted = ((16,), (24, 1, 3), (32, 2, 3, 1.5, 3), (64, 1, 2, 2.0, 3))
        hits = sum(
            a == b
            for row, best in zip(arch.stages, wanted, strict=False)
            for a, b in zip(row, best, strict=True)
        )
        return 0.5 + 0.02 * hits

    def accuracies(self, archs):
        return [self.accuracy(arch) for arch in archs]

    def stream(self, archs):
        return ((arch, self.accuracy(arch)) for arch in archs)


class _Flat(_Accuracy):
    def accuracy(self, arch):
        return 0.5


@pytest.fixture(scope="module")
def price():
    return LutPrice(_Model(), "b" * 64)


@pytest.fixture(scope="module")
def everything(price):
    return {arch: price.price(arch) for arch in NANO}


def test_finds_the_best_within_the_budget(price, everything):
    latencies = sorted(cost.latency_ms for cost in everything.values())
    for share in (0.1, 0.5, 0.9):
        budget = Budget(latency_ms=latencies[int(share * len(latencies))])
        truth = max(_Accuracy().accuracy(arch) for arch, cost in everything.items() if budget.allows(cost))
        result = search(NANO, price, _Accuracy(), budget, FEW)
        assert result.winner.accuracy == truth
        assert all(budget.allows(everything[found.architecture()]) for found in result.evaluated)
        assert len(result.evaluated) < len(everything) / 5


def test_parameters_and_interval_bound_too(price, everything):
    budget = Budget(latency_ms=6, params=100_000, cautious=True)
    result = search(NANO, price, _Accuracy(), budget, FEW)
    assert result.coarse.feasible == sum(
        cost.latency_high_ms <= 6 and cost.params <= 100_000 for cost in everything.values()
    )
    assert max(found.params for found in result.evaluated) <= 100_000
    assert max(found.latency_high_ms for found in result.evaluated) <= 6


def test_equal_accuracy_goes_to_the_faster(price):
    result = search(NANO, price, _Flat(), Budget(latency_ms=1e9), FEW)
    assert result.winner.latency_ms == min(found.latency_ms for found in result.evaluated)


def test_impossible_budgets_name_what_is_possible(price, everything):
    smallest_ms = min(cost.latency_ms for cost in everything.values())
    with pytest.raises(InfeasibleError, match=f"{smallest_ms:.4g} ms") as caught:
        search(NANO, price, _Accuracy(), Budget(latency_ms=0.9 * smallest_ms), FEW)
    assert caught.value.exit_code == 5
    with pytest.raises(InfeasibleError, match=str(min(cost.params for cost in everything.values()))):
        search(NANO, price, _Accuracy(), Budget(latency_ms=100, params=1000), FEW)
    with pytest.raises(InfeasibleError, match="upper end"):
        search(NANO, price, _Accuracy(), Budget(latency_ms=smallest_ms, cautious=True), FEW)


def test_lower_edge_is_exact(price, everything):
    """The dynamic programme against all 2,176 architectures."""
    front = []
    for cost in sorted(everything.values(), key=lambda c: (c.latency_ms, c.params)):
        if not front or cost.params < front[-1][1]:
            front.append((cost.latency_ms, cost.params))
    corners = cheapest(NANO, price)
    assert [(pytest.approx(ms), params) for ms, params in front] == [
        (corner.latency_ms, corner.params) for corner in corners
    ]
    for corner in corners:
        cost = everything[corner.arch]
        assert (cost.latency_ms, cost.params) == (pytest.approx(corner.latency_ms), corner.params)


def test_lower_edge_of_a_space_too_large_to_enumerate(price):
    space = get_space("autovit-xxs")
    corners = cheapest(space, price)
    rng = random.Random(0)
    for arch in (space.sample(rng) for _ in range(200)):
        cost = price.price(arch)
        assert any(c.latency_ms <= cost.latency_ms + 1e-9 and c.params <= cost.params for c in corners)
    fastest = price.price(corners[0].arch)
    assert fastest.latency_ms == pytest.approx(corners[0].latency_ms)
    assert fastest.params == corners[0].params


def test_tight_budget_in_a_large_space_ends_with_the_fastest(price):
    space = get_space("autovit-xxs")
    fastest = cheapest(space, price)[0]
    settings = FEW.model_copy(update={"draws": 50, "generations": 1, "redraws": 3})
    budget = Budget(latency_ms=1.0001 * fastest.latency_ms)
    result = search(space, price, _Flat(), budget, settings)
    assert result.winner.latency_ms <= budget.latency_ms


def test_part_of_a_space_is_never_left(price):
    space = dataclasses.replace(get_space("autovit-xxs"), resolutions=(192,), heads=("fc",))
    settings = FEW.model_copy(update={"draws": 100, "generations": 2})
    result = search(space, price, _Flat(), Budget(latency_ms=1e9), settings)
    found = {(a.resolution, a.head) for a in (e.architecture() for e in result.evaluated)}
    assert found == {(192, "fc")}


def test_initial_population_holds_the_top_skeletons(price, everything):
    result = search(
        NANO, price, _Accuracy(), Budget(latency_ms=1e9), FEW.model_copy(update={"generations": 0})
    )
    first = [found.architecture() for found in result.evaluated]
    assert len(first) == 30
    assert len({skeleton(arch) for arch in first[:15]}) == 15
    assert everything[first[0]].macs == max(cost.macs for cost in everything.values())


def test_no_architecture_is_evaluated_twice_and_children_come_from_good_parents(price):
    evaluator = _Accuracy()
    result = search(NANO, price, evaluator, Budget(latency_ms=1e9), FEW)
    assert len(evaluator.calls) == len(set(evaluator.calls)) == len(result.evaluated)
    assert [generation.new for generation in result.history] == [30] * 7
    best = [generation.best for generation in result.history]
    assert best == sorted(best)
    assert result.history[-1].mean > result.history[0].mean


def test_exhausted_budget_region_ends_early(price, everything):
    latencies = sorted(cost.latency_ms for cost in everything.values())
    result = search(NANO, price, _Accuracy(), Budget(latency_ms=latencies[39]), FEW)
    assert len(result.evaluated) == 40
    assert len(result.history) < 7


def test_seed_decides(price):
    budget = Budget(latency_ms=1e9)
    first, again = (search(NANO, price, _Accuracy(), budget, FEW) for _ in range(2))
    other = search(NANO, price, _Accuracy(), budget, FEW.model_copy(update={"seed": 1}))
    assert first == again
    assert [e.arch for e in first.evaluated] != [e.arch for e in other.evaluated]


def test_killed_search_ends_as_the_undisturbed_one(price, tmp_path):
    path, budget = tmp_path / "cache" / "accuracies.jsonl", Budget(latency_ms=1e9)
    undisturbed = search(NANO, price, _Accuracy(), budget, FEW)
    with pytest.raises(KeyboardInterrupt):
        search(NANO, price, CachedEvaluator(_Accuracy(die_after=50), path), budget, FEW)
    with path.open("ab") as file:
        file.write(b'{"evaluator":"aaaa')
    rest = _Accuracy()
    assert search(NANO, price, CachedEvaluator(rest, path), budget, FEW) == undisturbed
    assert len(rest.calls) == len(undisturbed.evaluated) - 50
    third = _Accuracy()
    assert search(NANO, price, CachedEvaluator(third, path), budget, FEW) == undisturbed
    assert third.calls == []


def test_cache_knows_whose_accuracies_it_holds(tmp_path):
    path, arch = tmp_path / "a.jsonl", NANO.sample(random.Random(0))
    CachedEvaluator(_Accuracy(), path).accuracies([arch])
    other = _Accuracy()
    other.fingerprint = "c" * 64
    CachedEvaluator(other, path).accuracies([arch])
    assert other.calls == [arch]
    path.write_bytes(b"nonsense\n" + path.read_bytes())
    with pytest.raises(InvalidArtifactError, match="line 1"):
        CachedEvaluator(_Accuracy(), path)


def test_record_survives_its_file(price, tmp_path):
    result = search(NANO, price, _Accuracy(), Budget(latency_ms=1e9, params=200_000), FEW)
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
