"""Strategies and objectives of a user's own: registered in a file, used by name, refused in one line."""

import json

import pytest

from search.algorithms import (
    CachedEvaluator,
    Constraints,
    ObjectiveOpener,
    SearchResult,
    SearchSettings,
    Strategy,
    objective_names,
    open_objective,
    register_objective,
    register_strategy,
    search,
    strategy_names,
)
from search.algorithms.evaluation import ProcessPool
from search.spaces.plugins import load_plugin
from tests.support.errors import raises
from tests.support.own_code import own_code_forgotten
from tests.support.search_world import NANO, Accuracy, make_model

OWN = """
from search import Strategy, register_objective, register_strategy


@register_strategy("{name}")
class Climber(Strategy):
    def __init__(self, study):
        super().__init__(study)
        self.best = None

    def propose(self, count):
        if self.best is None:
            return self.study.fresh(count)
        space, rng = self.study.space, self.study.rng
        return self.study.breed([lambda: space.mutate(self.best, rng, 0.2, 0.4)] * count)

    def tell(self, evaluated):
        known = [*evaluated] if self.best is None else [self.best, *evaluated]
        self.best = max(known, key=lambda arch: self.study.evaluated[arch].accuracy)


@register_objective("{name}")
class Stages:
    fingerprint = "stages and parameters, 1"

    def __init__(self, supernet, data):
        self.arguments = supernet, data

    def accuracy(self, arch):
        return len(arch.stages) / 10 + arch.params() / 1e6
"""

FEW = SearchSettings(generations=3, population=8, crossovers=4, mutations=4)
LIMIT = Constraints(latency_ms=8.5)


@pytest.fixture(autouse=True)
def _forgotten():
    with own_code_forgotten():
        yield


@pytest.fixture
def own(tmp_path):
    """The name that an imported file has registered a strategy and an objective under."""
    path = tmp_path / "own_search.py"
    path.write_text(OWN.replace("{name}", "own"))
    load_plugin(str(path))
    return "own"


def _named(name, **changes):
    return FEW.model_copy(update={"strategy": name, **changes})


def test_a_file_adds_a_strategy_and_an_objective(price, own, tmp_path):
    assert own in strategy_names()
    assert own in objective_names()
    objective = open_objective(own, tmp_path, "digits")
    assert vars(objective)["arguments"] == (tmp_path, "digits")
    result = search(NANO, price, objective, LIMIT, _named(own))
    assert [generation.new for generation in result.history] == [8] * 4
    assert result.history[-1].best > result.history[0].best
    assert result.evaluator == "stages and parameters, 1"
    assert result.winner.accuracy == objective.accuracy(result.winner.architecture())


def test_workers_import_the_file_of_an_objective(price, own, tmp_path):
    objective = open_objective(own)
    with ProcessPool(ObjectiveOpener(own), objective.fingerprint, 2) as pool:
        cached = CachedEvaluator(pool, tmp_path / "accuracies.jsonl")
        result = search(NANO, price, cached, LIMIT, FEW)
    assert result == search(NANO, price, objective, LIMIT, FEW)
    lines = (tmp_path / "accuracies.jsonl").read_text().splitlines()
    assert {json.loads(line)["evaluator"] for line in lines} == {objective.fingerprint}
    assert len(lines) == len(result.evaluated)


def test_a_result_of_an_unknown_strategy_can_be_read(price, own, tmp_path):
    result = search(NANO, price, Accuracy(), LIMIT, _named(own))
    (tmp_path / "result.json").write_text(result.model_dump_json().replace(own, "forgotten"))
    assert SearchResult.load(tmp_path / "result.json").settings.strategy == "forgotten"


def test_a_price_may_be_a_latency_model(price):
    model = make_model()
    first, again = (search(NANO, model, Accuracy(), LIMIT, FEW) for _ in range(2))
    by_lut = search(NANO, price, Accuracy(), LIMIT, FEW)
    assert first == again
    assert first.evaluated == by_lut.evaluated
    other = search(NANO, make_model(salt="other"), Accuracy(), LIMIT, FEW)
    assert len({first.price, by_lut.price, other.price}) == 3


def test_unknown_names_are_refused(price):
    with raises("unknown_strategy"):
        search(NANO, price, Accuracy(), LIMIT, _named("evolutoin"))
    with raises("unknown_objective"):
        open_objective("inherited")


def test_names_are_registered_once(tmp_path):
    path = tmp_path / "taken.py"
    path.write_text(OWN.replace("{name}", "evolution"))
    with pytest.raises(Exception, match="search.algorithms.strategies.Evolution") as twice:
        load_plugin(str(path))
    assert f"Climber ({path})" in str(twice.value)
    with raises("name_taken"):
        register_objective("inherited-accuracy")(Accuracy)  # type: ignore[type-var]


def test_invalid_plugins_are_refused():
    with raises("invalid_name"):
        register_objective("Two Words")(lambda supernet, data: Accuracy())  # type: ignore[type-var]
    with raises("not_a_strategy"):
        register_strategy("bare")(Accuracy)  # type: ignore[type-var]
    assert "bare" not in strategy_names()


class _Proposes(Strategy):
    """Proposes what a test sets as `made`."""

    made: object = None

    def propose(self, count):
        return type(self).made(self.study, count)


@pytest.fixture
def whatever():
    register_strategy("whatever")(_Proposes)


@pytest.mark.usefixtures("whatever")
@pytest.mark.parametrize(
    "made",
    [
        lambda study, count: [],
        lambda study, count: study.fresh(count + 1),
        lambda study, count: list(study.space)[-count:],
    ],
    ids=["none", "too many", "infeasible"],
)
def test_invalid_proposals_are_refused(price, monkeypatch, made):
    monkeypatch.setattr(_Proposes, "made", staticmethod(made))
    evaluator = Accuracy()
    with raises("invalid_proposal"):
        search(NANO, price, evaluator, Constraints(latency_ms=4.5), _named("whatever"))
    assert evaluator.calls == []


@pytest.mark.usefixtures("whatever")
def test_repeated_proposals_are_evaluated_once_and_none_ends_the_search(price, monkeypatch):
    results = []

    def made(study, count):
        return [*study.evaluated, *study.evaluated, *study.fresh(2 if len(study.history) < 3 else 0)]

    monkeypatch.setattr(_Proposes, "made", staticmethod(made))
    monkeypatch.setattr(_Proposes, "tell", lambda self, evaluated: results.append(list(evaluated)))
    evaluator = Accuracy()
    result = search(NANO, price, evaluator, LIMIT, _named("whatever", generations=9))
    assert [generation.new for generation in result.history] == [2, 2, 2]
    assert len(result.evaluated) == 6
    assert [arch for generation in results for arch in generation] == evaluator.calls[:6]
    assert [row.architecture() for row in result.rows] == evaluator.calls, "the largest and the deepest last"


@pytest.mark.parametrize("accuracy", [1.5, -0.1, float("nan")])
def test_values_outside_0_to_1_are_refused(price, tmp_path, accuracy):
    class Wrong(Accuracy):
        def truth(self, arch):
            return accuracy

    for evaluator in (Wrong(), CachedEvaluator(Wrong(), tmp_path / "accuracies.jsonl")):
        with raises("objective_out_of_range"):
            search(NANO, price, evaluator, LIMIT, FEW)
    assert not (tmp_path / "accuracies.jsonl").exists() or not (tmp_path / "accuracies.jsonl").read_text()
