"""Strategies against a made-up table of NAS-Bench-Macro whose best network is known."""

import json

import numpy as np
import pytest

from luts.format.errors import InvalidArtifactError, UsageError
from search.spaces.nasbench_macro import arch_of, key_of
from tests.support.search_world import make_price
from tools.studies import _macro, strategies

KEYS = [key_of(arch) for arch in _macro.SPACE]
WANTED = "21012012"
"""Every place that is as here is worth five points."""


def made_up(keys=KEYS):
    right = {key: sum(a == b for a, b in zip(key, WANTED, strict=True)) for key in keys}
    return {
        key: {"test_acc": [49.0 + 5 * n, 51.0 + 5 * n], "params": 1, "flops": 10} for key, n in right.items()
    }


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.json"
    path.write_text(json.dumps(made_up()))
    return path


@pytest.fixture
def costs():
    return _macro.Priced.by(make_price(_macro.SPACE), "made-up", True)


def test_the_accuracy_is_the_mean_of_the_trainings(table):
    truth = _macro.open_truth(table)
    assert truth.accuracy(arch_of(WANTED)) == pytest.approx(0.90)
    # Of 2, 1, 0, 1, 2, 0, 1, 2 two places are 0.
    assert truth.accuracy(arch_of("00000000")) == pytest.approx(0.60)


def test_a_budget_is_met_by_its_share_of_the_networks(costs):
    for share in _macro.BUDGETS:
        within = (costs.latency_ms <= costs.budget_ms(share)).mean()
        assert within == pytest.approx(share, abs=2 / 6561)


@pytest.mark.parametrize("strategy", ["random", "evolution", "coarse-to-fine"])
def test_evaluations_are_counted_to_the_first_that_is_near(table, costs, strategy):
    """With two wrong places still near and any budget, one draw in fifty is; nobody needs more than all of them."""
    truth = _macro.open_truth(table)
    budget = float(costs.latency_ms.max())
    near, nearer = strategies.evaluations(truth, costs, budget, 0.90 - 0.10, strategy, 3, seed=3)
    assert near == nearer
    assert 1 <= near <= 200
    never = strategies.evaluations(truth, costs, budget, 1.5, strategy, 1, seed=3)
    assert np.isinf(never).all()


def test_no_search_goes_on_once_it_is_as_near_as_is_asked(table):
    judge = strategies.NearEnough(_macro.open_truth(table), 0.90)
    wrong, right = arch_of("00000000"), arch_of(WANTED)
    assert judge.accuracy(wrong) == pytest.approx(0.60)
    assert not judge.needed
    with pytest.raises(strategies._Reached):
        judge.accuracy(right)
    assert judge.needed == dict.fromkeys(strategies.REGRETS, 2)


def test_how_often_one_strategy_needs_fewer():
    never = np.full(40, np.inf)
    assert strategies.fewer(np.arange(40, dtype=np.float64), never) == (1, 1, 1)
    assert strategies.fewer(never, never) == (0.5, 0.5, 0.5)
    rng = np.random.default_rng(1)
    mean, low, high = strategies.fewer(rng.normal(0, 1, 200), rng.normal(0.5, 1, 200))
    assert low < 0.638 < high, "the normal distribution's at half a standard deviation"
    assert 0.5 < low < mean < high < 0.75


def test_a_table_that_lacks_networks_is_refused(tmp_path):
    path = tmp_path / "table.json"
    path.write_text(json.dumps(made_up(KEYS[1:])))
    with pytest.raises(InvalidArtifactError, match=f"1 networks are missing, such as {KEYS[0]}"):
        _macro.open_truth(path)
    path.write_text("[1]")
    with pytest.raises(InvalidArtifactError, match="not the table of NAS-Bench-Macro"):
        _macro.open_truth(path)
    with pytest.raises(UsageError, match="--truth"):
        _macro.open_truth(None)
