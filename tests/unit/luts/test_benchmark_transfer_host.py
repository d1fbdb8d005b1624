"""The benchmark of transfer between a machine's own variants: what is fitted, what judges, what is told."""

import dataclasses

import numpy as np
import pytest

from luts.format.lut import Lut
from tests.support.winner_world import make_lut
from tools.benchmarks import _transfer_host_trial, transfer_host
from tools.benchmarks._transfer_host_trial import as_source, divided, order_of, score
from tools.benchmarks._transfer_trial import METHODS, Score
from tools.benchmarks.transfer_host import CASES, FIRST, TARGETS, Case, Sizes


@pytest.fixture(scope="module")
def lut() -> Lut:
    return make_lut()


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (transfer_host, _transfer_host_trial):
        monkeypatch.setattr(module, "COUNTS", (0, 3, 6))


def test_what_judges_is_in_no_fit_and_in_no_source(lut: Lut, few: None) -> None:
    measured = divided(lut, 1)
    parts = [[measured.first], measured.pool, measured.calibrating, measured.judged]
    names = [model.model_id for part in parts for model in part]
    assert sorted(names) == sorted(model.model_id for model in lut.models)
    assert len(measured.judged) == 5
    assert divided(lut, 2).judged != measured.judged
    source = as_source("x", lut, 1)
    assert source.entry_ms.keys() == {entry.key for entry in lut.entries}
    worst = dataclasses.replace(
        lut,
        models=tuple(
            model.model_copy(update={"ms": 9 * model.ms}) if model in measured.judged else model
            for model in lut.models
        ),
    )
    assert as_source("x", worst, 1).entry_ms == source.entry_ms


def test_networks_begin_with_the_reference_and_are_chosen_or_random(lut: Lut, few: None) -> None:
    measured, sources = divided(lut, 0), [as_source("x", lut, 0)]
    chosen = order_of(measured, sources, True, 0)
    assert [model.model_id for model in chosen[:1]] == [lut.meta.reference_id]
    assert len({model.model_id for model in chosen}) == len(chosen) == 6
    by_chance = order_of(measured, sources, False, 0)
    assert {model.split for model in by_chance[1:]} == {"heldout"}
    assert not {model.model_id for model in by_chance} & {model.model_id for model in measured.judged}


def test_a_variant_is_learned_from_few_networks_of_its_own_and_anothers_lut(lut: Lut, few: None) -> None:
    measured, source = divided(lut, 0), as_source("x", lut, 0)
    twice = dataclasses.replace(
        source, entry_ms={key: 2 * ms for key, ms in source.entry_ms.items()}, base_ms=2 * source.base_ms
    )
    ordered = order_of(measured, [twice], True, 0)[:3]
    borrowed, scratch, factor = (
        score(measured, ordered, [twice], method) for method in ("transfer", "scratch", "one factor")
    )
    assert borrowed.mape < 0.5 * scratch.mape
    assert factor.mape == pytest.approx(borrowed.mape, abs=0.01)
    assert score(measured, [], [twice], "one factor").mape == pytest.approx(1.0, abs=0.05), "twice as it is"
    assert borrowed.coverage is not None
    assert borrowed.coverage >= 0.8


def test_missed_targets_are_told() -> None:
    case = CASES[0]
    scores = {(case, "random", method, 10): [Score(0.009, 0.95)] for method in ("scratch", "transfer")}
    assert transfer_host._missed(scores) == "No target is missed."
    told = transfer_host._missed(scores | {(case, "random", "transfer", 10): [Score(0.02, 0.5)]})
    name = f"{case.called}, 10 random networks"
    assert f"{name}: MAPE 2.00%, above 1.0%" in told
    assert f"{name}: 50.0% inside the 95 % interval" in told
    assert f"{name}: 2.00% by transfer, 0.90% from scratch" in told


def test_cases_are_the_three_pairs_and_each_variant_from_the_others() -> None:
    pairs = [case for case in CASES if len(case.sources) == 1]
    assert [(case.target, case.sources) for case in pairs] == [
        (name, (FIRST,)) for name in TARGETS if name != FIRST
    ]
    others = [case for case in CASES if len(case.sources) == 3]
    assert {case.target for case in others} == set(TARGETS)
    assert all(case.target not in case.sources for case in others)
    assert Case("int8", ("a", "b")).called == "int8, from the other three"


def test_every_method_and_number_has_its_score(lut: Lut, few: None) -> None:
    luts = dict.fromkeys(TARGETS, lut)
    scores = transfer_host.run(luts, 1)
    counts = {"random": (3,), "chosen": (3, 6)}
    assert scores.keys() == {(case, how, "one factor", 0) for case in CASES for how in counts} | {
        (case, how, method, count)
        for case in CASES
        for how, known in counts.items()
        for method in METHODS
        for count in known
    }, "three random networks are left beside those that judge and calibrate"
    assert np.isfinite([found.mape for each in scores.values() for found in each]).all()


def test_all_variants_are_profiled_with_the_same_networks() -> None:
    planned = transfer_host.plans(Sizes(design=2, heldout=4)).values()
    assert len({plan.plan.digest for plan in planned}) == 1
    assert "all: " in transfer_host._forecast(Sizes(design=2, heldout=4))
