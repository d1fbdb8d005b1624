"""The additive surrogate: what it learns, and how a search uses it."""

import math
import random

import pytest
from scipy import stats

from search.algorithms import Constraints, SearchSettings, search
from search.algorithms.objectives import (
    AdditiveModel,
    InProcess,
    MacsObjective,
    SmoothedEvaluator,
    checked_accuracy,
)
from search.spaces import get_space
from search.spaces.nasbench_macro import key_of
from search.spaces.registry import arch_from_json
from tests.support.errors import raises
from tests.support.search_world import NANO, make_price

MACRO = get_space("nasbench-macro")
FEW = SearchSettings(generations=2, population=8, crossovers=4, mutations=4, sample=40)
LIMIT = Constraints(latency_ms=8.5)


class Recorder:
    """Returns a value of every architecture, and records which were requested."""

    fingerprint = "objective"

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


def test_a_sum_of_choices_is_learnt_from_few_networks():
    model, unseen = (
        AdditiveModel(known := drawn(MACRO, 60), [worth(arch) for arch in known]),
        drawn(MACRO, 200, 1),
    )
    assert model.predict(unseen) == pytest.approx([worth(arch) for arch in unseen], abs=2e-3)


def test_missing_stages_count_as_choices():
    """Spaces of several depths: what only deep networks have is started from what all have."""
    known = drawn(NANO, 120)
    model = AdditiveModel(known, [len(arch.stages) / 10 for arch in known])
    unseen = drawn(NANO, 50, 1)
    assert {len(arch.stages) for arch in unseen} != {len(unseen[0].stages)}
    assert model.predict(unseen) == pytest.approx([len(arch.stages) / 10 for arch in unseen], abs=0.01)


def test_architectures_read_from_json_are_equal():
    known = drawn(NANO, 60)
    model = AdditiveModel(known, [arch.params() / 1e6 for arch in known])
    read = [arch_from_json(arch.to_json()) for arch in known]
    assert model.predict(read) == model.predict(known), "2 is 2.0"


def test_values_are_at_most_1():
    known = drawn(MACRO, 60)
    smoothed = SmoothedEvaluator(InProcess(Recorder(lambda arch: min(1.0, 2 * worth(arch)))), known, 1.0)
    assert max(smoothed.accuracies(list(MACRO)[-50:])) == 1.0


def test_the_mean_is_of_logarithms():
    """An additive model of logarithms predicts products of choices exactly, so the weight has no effect."""
    evaluator = InProcess(Recorder(lambda arch: math.exp(10 * worth(arch) - 12)))
    asked = drawn(MACRO, 20, 5)
    own = evaluator.accuracies(asked)
    for share in (0.5, 1.0):
        assert SmoothedEvaluator(evaluator, drawn(MACRO, 200), share).accuracies(asked) == pytest.approx(
            own, rel=1e-2
        )


def test_the_share_is_the_models_weight():
    known, unseen = drawn(MACRO, 60), drawn(MACRO, 5, 1)
    recorder = Recorder(lambda arch: 0.1 + 0.8 * random.Random(arch.to_json()).random())
    smoothed = SmoothedEvaluator(InProcess(recorder), known, 0.25)
    predicted = smoothed.model.predict(unseen)
    expected = [
        math.exp(0.25 * sum_of_choices + 0.75 * math.log(recorder.value(arch)))
        for sum_of_choices, arch in zip(predicted, unseen, strict=True)
    ]
    assert smoothed.accuracies(unseen) == pytest.approx(expected)


def test_macs_are_an_objective_between_0_and_1():
    arch = drawn(MACRO, 1)[0]
    macs = arch.macs().conv_linear
    assert MacsObjective().accuracy(arch) == macs / (macs + 1e9)


@pytest.mark.parametrize("value", [-0.01, 1.01, math.nan])
def test_an_objective_out_of_range_is_refused(value):
    arch = drawn(MACRO, 1)[0]
    with raises("objective_out_of_range"):
        checked_accuracy(arch, value)
    assert [checked_accuracy(arch, end) for end in (0, 1)] == [0.0, 1.0]


def test_smoothing_averages_noise():
    rng = random.Random(3)
    noisy = {arch: worth(arch) + rng.gauss(0, 0.05) for arch in MACRO}
    objective = Recorder(noisy.__getitem__)
    own, smoothed = InProcess(objective), SmoothedEvaluator(InProcess(objective), drawn(MACRO, 100), 0.5)
    asked = drawn(MACRO, 300, 1)
    true = [worth(arch) for arch in asked]
    before, after = (
        stats.kendalltau(evaluator.accuracies(asked), true).statistic for evaluator in (own, smoothed)
    )
    assert after > before + 0.05


def test_the_sample_is_evaluated_once():
    objective = Recorder(worth)
    smoothed = SmoothedEvaluator(InProcess(objective), drawn(MACRO, 30), 0.5)
    for seed in (1, 2):
        smoothed.accuracies(drawn(MACRO, 5, seed))
    assert len(objective.asked) == 30 + 5 + 5


def test_a_search_ranks_by_the_mean_of_both():
    objective = Recorder(lambda arch: len(arch.stages) / 10 + (0.3 if arch.digest[0] in "01" else 0.0))
    started = []
    begun = lambda share, evaluations: started.append(evaluations)  # noqa: E731
    settings = FEW.model_copy(update={"additive": 0.5})
    result = search(NANO, make_price(NANO), objective, LIMIT, settings, begun)
    assert started == [FEW.evaluations + 40]
    sample = objective.asked[:40]
    model = AdditiveModel(sample, [math.log(objective.value(arch)) for arch in sample])
    for row in result.evaluated:
        arch = row.architecture()
        assert row.accuracy == pytest.approx(
            math.sqrt(math.exp(model.predict([arch])[0]) * objective.value(arch))
        )
    assert all(row.latency_high_ms <= LIMIT.latency_ms for row in result.evaluated)
    assert len(result.evaluated) == FEW.evaluations
    assert search(NANO, make_price(NANO), objective, LIMIT, settings) == result
    assert result.own_objective == "inherited-accuracy, 50% by an additive model"


def test_without_a_weight_the_sample_is_not_evaluated():
    objective = Recorder(lambda arch: len(arch.stages) / 10)
    result = search(NANO, make_price(NANO), objective, LIMIT, FEW)
    assert len(objective.asked) == len(result.rows)
