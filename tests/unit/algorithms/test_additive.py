"""Judged in part by an additive model of the choices: what it learns, and what a search makes of it."""

import random

import pytest
from scipy import stats

from search.algorithms import Constraints, SearchSettings, search
from search.algorithms.objectives import AdditiveModel, InProcess, SmoothedEvaluator
from search.spaces import get_space
from search.spaces.nasbench_macro import key_of
from search.spaces.registry import arch_from_json
from tests.support.search_world import NANO, make_price

MACRO = get_space("nasbench-macro")
FEW = SearchSettings(generations=2, population=8, crossovers=4, mutations=4, sample=40)
BUDGET = Constraints(latency_ms=8.5)


class Judge:
    """A value of every architecture, and which were asked for."""

    fingerprint = "judge"

    def __init__(self, value):
        self.value, self.asked = value, []

    def accuracy(self, arch):
        self.asked.append(arch)
        return self.value(arch)


def drawn(space, count, seed=0):
    rng = random.Random(seed)
    return [space.sample(rng) for _ in range(count)]


def worth(arch):
    """A sum over the choices of NAS-Bench-Macro's places."""
    return 0.2 + sum((1 + place) * (0, 2, 3)[int(op)] for place, op in enumerate(key_of(arch))) / 200


def test_a_sum_of_choices_is_found_from_few_networks():
    model, unseen = (
        AdditiveModel(known := drawn(MACRO, 60), [worth(arch) for arch in known]),
        drawn(MACRO, 200, 1),
    )
    assert model.predict(unseen) == pytest.approx([worth(arch) for arch in unseen], abs=2e-3)


def test_stages_that_are_missing_count_for_nothing():
    """Spaces of several depths: what only deep networks have is told from what all have."""
    known = drawn(NANO, 120)
    model = AdditiveModel(known, [len(arch.stages) / 10 for arch in known])
    unseen = drawn(NANO, 50, 1)
    assert {len(arch.stages) for arch in unseen} != {len(unseen[0].stages)}
    assert model.predict(unseen) == pytest.approx([len(arch.stages) / 10 for arch in unseen], abs=0.01)


def test_an_architecture_that_was_read_from_json_is_the_same():
    known = drawn(NANO, 60)
    model = AdditiveModel(known, [arch.params() / 1e6 for arch in known])
    read = [arch_from_json(arch.to_json()) for arch in known]
    assert model.predict(read) == model.predict(known), "2 is 2.0"


def test_predictions_are_shares():
    known = drawn(MACRO, 60)
    model = AdditiveModel(known, [min(1.0, 2 * worth(arch)) for arch in known])
    assert max(model.predict(list(MACRO)[-50:])) == 1.0


def test_noise_of_single_networks_is_averaged():
    rng = random.Random(3)
    noisy = {arch: worth(arch) + rng.gauss(0, 0.05) for arch in MACRO}
    judge = Judge(noisy.__getitem__)
    own, smoothed = InProcess(judge), SmoothedEvaluator(InProcess(judge), drawn(MACRO, 100), 0.5)
    asked = drawn(MACRO, 300, 1)
    true = [worth(arch) for arch in asked]
    before, after = (stats.kendalltau(judged.accuracies(asked), true).statistic for judged in (own, smoothed))
    assert after > before + 0.05


def test_the_sample_is_evaluated_once():
    judge = Judge(worth)
    smoothed = SmoothedEvaluator(InProcess(judge), drawn(MACRO, 30), 0.5)
    for seed in (1, 2):
        smoothed.accuracies(drawn(MACRO, 5, seed))
    assert len(judge.asked) == 30 + 5 + 5


def test_a_search_is_ranked_by_the_mean_of_both():
    judge = Judge(lambda arch: len(arch.stages) / 10 + (0.3 if arch.digest[0] in "01" else 0.0))
    told = []
    begun = lambda share, evaluations: told.append(evaluations)  # noqa: E731
    settings = FEW.model_copy(update={"additive": 0.5})
    result = search(NANO, make_price(NANO), judge, BUDGET, settings, begun)
    assert told == [FEW.evaluations + 40]
    sample = judge.asked[:40]
    model = AdditiveModel(sample, [judge.value(arch) for arch in sample])
    for row in result.evaluated:
        arch = row.architecture()
        assert row.accuracy == pytest.approx((model.predict([arch])[0] + judge.value(arch)) / 2)
    assert all(row.latency_high_ms <= BUDGET.latency_ms for row in result.evaluated)
    assert len(result.evaluated) == FEW.evaluations
    assert search(NANO, make_price(NANO), judge, BUDGET, settings) == result
    assert result.own_objective == "inherited-accuracy, 50% by an additive model"


def test_without_a_share_nothing_more_is_evaluated():
    judge = Judge(lambda arch: len(arch.stages) / 10)
    search(NANO, make_price(NANO), judge, BUDGET, FEW)
    assert len(judge.asked) == FEW.evaluations
