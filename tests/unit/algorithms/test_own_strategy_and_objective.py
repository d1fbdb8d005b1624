"""A user's own strategy and objective: registered in a file, searched with by name, refused in one line."""

import json

import pytest

from luts.format.errors import UsageError
from search.algorithms import (
    Budget,
    CachedEvaluator,
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
from tests.support.own_code import own_code_forgotten
from tests.support.search_world import NANO, Accuracy, make_model, make_price

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
        self.given = supernet, data

    def accuracy(self, arch):
        return len(arch.stages) / 10 + arch.params() / 1e6
"""

FEW = SearchSettings(generations=3, population=8, crossovers=4, mutations=4)
BUDGET = Budget(latency_ms=8.5)


@pytest.fixture(scope="module")
def price():
    return make_price()


@pytest.fixture(autouse=True)
def _forgotten():
    with own_code_forgotten():
        yield


@pytest.fixture
def own(tmp_path):
    """The name under which a file that was imported has registered both."""
    path = tmp_path / "own_search.py"
    path.write_text(OWN.replace("{name}", "own"))
    load_plugin(str(path))
    return "own"


def _named(name, **changes):
    return FEW.model_copy(update={"strategy": name, **changes})


def test_a_file_adds_a_strategy_and_an_objective_like_any_other(price, own, tmp_path):
    assert own in strategy_names()
    assert own in objective_names()
    objective = open_objective(own, tmp_path, "digits")
    assert vars(objective)["given"] == (tmp_path, "digits")
    result = search(NANO, price, objective, BUDGET, _named(own))
    assert [generation.new for generation in result.history] == [8] * 4
    assert result.history[-1].best > result.history[0].best
    assert result.evaluator == "stages and parameters, 1"
    assert result.winner.accuracy == objective.accuracy(result.winner.architecture())
    result.save(tmp_path / "result.json")
    assert SearchResult.load(tmp_path / "result.json") == result


def test_workers_know_an_objective_of_a_file(price, own, tmp_path):
    objective = open_objective(own)
    with ProcessPool(ObjectiveOpener(own), objective.fingerprint, 2) as pool:
        cached = CachedEvaluator(pool, tmp_path / "accuracies.jsonl")
        result = search(NANO, price, cached, BUDGET, FEW)
    assert result == search(NANO, price, objective, BUDGET, FEW)
    lines = (tmp_path / "accuracies.jsonl").read_text().splitlines()
    assert {json.loads(line)["evaluator"] for line in lines} == {objective.fingerprint}
    assert len(lines) == len(result.evaluated)


def test_the_record_of_a_strategy_that_is_not_there_is_read(price, own, tmp_path):
    result = search(NANO, price, Accuracy(), BUDGET, _named(own))
    text = result.model_dump_json().replace(own, "forgotten")
    (tmp_path / "result.json").write_text(text)
    assert SearchResult.load(tmp_path / "result.json").settings.strategy == "forgotten"


def test_a_price_may_be_a_latency_model(price):
    model = make_model()
    first, again = (search(NANO, model, Accuracy(), BUDGET, FEW) for _ in range(2))
    by_lut = search(NANO, price, Accuracy(), BUDGET, FEW)
    assert first == again
    assert first.evaluated == by_lut.evaluated
    other = search(NANO, make_model(salt="other"), Accuracy(), BUDGET, FEW)
    assert len({first.price, by_lut.price, other.price}) == 3


def test_names_that_nothing_has_come_with_close_ones(price):
    with pytest.raises(UsageError, match=r"unknown strategy 'evolutoin'; did you mean evolution\?"):
        search(NANO, price, Accuracy(), BUDGET, _named("evolutoin"))
    with pytest.raises(UsageError, match=r"unknown objective 'inherited'; did you mean inherited-.*\?"):
        open_objective("inherited")


def test_a_name_registered_twice_names_both_places(tmp_path):
    path = tmp_path / "taken.py"
    path.write_text(OWN.replace("{name}", "evolution"))
    with pytest.raises(UsageError) as twice:
        load_plugin(str(path))
    said = str(twice.value)
    assert "strategy 'evolution' is registered twice: search.algorithms.strategies.Evolution" in said
    assert f"Climber ({path})" in said
    assert "\n" not in said
    with pytest.raises(
        UsageError, match=r"objective 'inherited-accuracy' is registered twice: .*objectives\.py"
    ):
        register_objective("inherited-accuracy")(Accuracy)  # type: ignore[type-var]


def test_what_cannot_be_registered_is_refused():
    with pytest.raises(UsageError, match="cannot be a name"):
        register_objective("Two Words")(lambda supernet, data: Accuracy())  # type: ignore[type-var]
    with pytest.raises(
        UsageError, match=r"strategy 'bare': .* is not a subclass of search\.algorithms\.Strategy"
    ):
        register_strategy("bare")(Accuracy)  # type: ignore[type-var]
    assert "bare" not in strategy_names()


class _Proposes(Strategy):
    """Whatever a test wants."""

    made: object = None

    def propose(self, count):
        return type(self).made(self.study, count)


@pytest.fixture
def whatever():
    register_strategy("whatever")(_Proposes)


@pytest.mark.usefixtures("whatever")
@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda study, count: [], "proposed no architecture"),
        (lambda study, count: study.fresh(count + 1), "proposed 9 architectures, 8 were asked for"),
        (lambda study, count: list(study.space)[-count:], "which is beyond the budget; let study.fresh"),
    ],
)
def test_proposals_that_break_the_rules_are_refused(price, monkeypatch, made, says):
    monkeypatch.setattr(_Proposes, "made", staticmethod(made))
    evaluator = Accuracy()
    with pytest.raises(UsageError, match=f"strategy whatever .*{says}") as refused:
        search(NANO, price, evaluator, Budget(latency_ms=4.5), _named("whatever"))
    assert "\n" not in str(refused.value)
    assert evaluator.calls == []


@pytest.mark.usefixtures("whatever")
def test_what_was_evaluated_is_not_evaluated_again_and_nothing_new_ends_the_search(price, monkeypatch):
    told = []

    def made(study, count):
        return [*study.evaluated, *study.evaluated, *study.fresh(2 if len(study.history) < 3 else 0)]

    monkeypatch.setattr(_Proposes, "made", staticmethod(made))
    monkeypatch.setattr(_Proposes, "tell", lambda self, evaluated: told.append(list(evaluated)))
    evaluator = Accuracy()
    result = search(NANO, price, evaluator, BUDGET, _named("whatever", generations=9))
    assert [generation.new for generation in result.history] == [2, 2, 2]
    assert len(set(evaluator.calls)) == len(result.evaluated) == 6
    assert [arch for generation in told for arch in generation] == evaluator.calls


@pytest.mark.parametrize("accuracy", [1.5, -0.1, float("nan")])
def test_an_objective_beyond_0_to_1_is_refused(price, tmp_path, accuracy):
    class Wrong(Accuracy):
        def truth(self, arch):
            return accuracy

    for evaluator in (Wrong(), CachedEvaluator(Wrong(), tmp_path / "accuracies.jsonl")):
        with pytest.raises(UsageError, match="scale it to 0 to 1"):
            search(NANO, price, evaluator, BUDGET, FEW)
    assert not (tmp_path / "accuracies.jsonl").exists() or not (tmp_path / "accuracies.jsonl").read_text()
