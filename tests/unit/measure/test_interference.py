"""What a device's self-test decides: settle runs and company, on simulated devices where either costs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from orchestrator.agent.store import ModelStore
from orchestrator.export.artifacts.spec import Variant
from orchestrator.journal.log import read_log
from orchestrator.journal.records import (
    BatchRecord,
    DecisionRecord,
    InterferenceRecord,
    RoundsRecord,
)
from orchestrator.measure.engine import EngineOptions
from orchestrator.measure.interference import InterferenceResult, excess_by_settle_runs, excess_co_resident
from orchestrator.measure.session import Measurement, measure
from orchestrator.plan.build import make_plan
from orchestrator.plan.plan import Policy
from orchestrator.simulate.__main__ import simulated_agent
from orchestrator.simulate.device import Noise, Scenario, write_model
from orchestrator.tasks.exported_plan import ExportedPlan
from search.spaces import get_space
from tests.support.errors import raises
from tests.support.served_agent import ServedDevice
from tests.support.slow import mostly_slow

PLAN = make_plan(get_space("autovit-nano"), design=8, heldout=2, removals="none", seed=5)
POLICY = Policy(min_rounds=10, max_rounds=10, min_passes=1, max_passes=1, cooling_s=0.0, self_test=True)
NOISE = Noise(load_sd=0.003, sample_sd=0.004, cold_share=0.2)


def profiled(folder: Path, noise: Noise, policy: Policy = POLICY) -> Measurement:
    scenario = Scenario(name="company", noise=noise, noise_seed=1)
    files = {model.model_id: write_model(model.blocks, folder / "models") for model in PLAN.models}
    with ServedDevice(simulated_agent(scenario, "token", ModelStore(folder / "store"))) as device:
        return measure(
            device,
            Variant("simulated", "", threads=1),
            ExportedPlan(PLAN, files).model_set,
            folder / "journal.jsonl",
            policy,
            EngineOptions(budget_s=0),
        )


def settle_runs_and_models(folder: Path) -> tuple[set[int], int]:
    records = read_log(folder / "journal.jsonl")
    chunks = {record.settle_runs for record in records if isinstance(record, RoundsRecord)}
    return chunks, max(len(record.slots) for record in records if isinstance(record, BatchRecord)) - 2


def test_quiet_device_keeps_its_policy(tmp_path: Path) -> None:
    measured = profiled(tmp_path, NOISE)
    assert settle_runs_and_models(tmp_path) == ({1}, 5)
    assert (measured.policy["settle_runs"], measured.policy["batch_models"]) == (1, 6)
    records = read_log(tmp_path / "journal.jsonl")
    assert [record.residents for record in records if isinstance(record, InterferenceRecord)] == [1, 1, 8, 1]


@pytest.mark.parametrize(("cold_runs", "settle_runs"), mostly_slow([(2, 2), (3, 3)], kept=[(3, 3)]))
def test_more_settle_runs(tmp_path: Path, cold_runs: int, settle_runs: int) -> None:
    measured = profiled(tmp_path, NOISE.model_copy(update={"cold_runs": cold_runs}))
    assert settle_runs_and_models(tmp_path) == ({settle_runs}, 5)
    assert measured.policy["settle_runs"] == settle_runs
    files = {model.model_id: write_model(model.blocks, tmp_path / "models") for model in PLAN.models}
    meta = ExportedPlan(PLAN, files).lut(measured, "company").meta
    assert meta.policy["settle_runs"] == settle_runs
    assert "+20." in str(meta.policy["company"]) or "+19." in str(meta.policy["company"])


def test_where_company_costs_batches_are_of_one_model(tmp_path: Path) -> None:
    profiled(tmp_path, NOISE.model_copy(update={"crowd_share": 0.1, "crowd_models": 4}))
    assert settle_runs_and_models(tmp_path) == ({1}, 1)
    records = read_log(tmp_path / "journal.jsonl")
    asked = [record.residents for record in records if isinstance(record, InterferenceRecord)]
    assert asked == 2 * [1, 1, 8, 1, 3, 1], "a second test says the same"


@pytest.mark.parametrize("costs", [{"cold_runs": 4}, {"crowd_share": 0.1, "crowd_models": 1}])
def test_interference_is_refused(tmp_path: Path, costs: dict[str, float]) -> None:
    noise = NOISE.model_copy(update=costs)
    with raises("interference"):
        profiled(tmp_path, noise)
    records = read_log(tmp_path / "journal.jsonl")
    assert not any(isinstance(record, BatchRecord) for record in records)
    alone = profiled(tmp_path / "untested", noise, dataclasses.replace(POLICY, self_test=False))
    assert "company" not in alone.policy


def test_a_resumed_run_does_not_test_again(tmp_path: Path) -> None:
    def tests() -> int:
        return sum(
            isinstance(r, InterferenceRecord | DecisionRecord) for r in read_log(tmp_path / "journal.jsonl")
        )

    noise = NOISE.model_copy(update={"cold_runs": 2})
    profiled(tmp_path, noise)
    made = tests()
    profiled(tmp_path, noise)
    assert tests() == made == 9
    assert settle_runs_and_models(tmp_path) == ({2}, 5)


def test_settle_excess_by_hand() -> None:
    level = np.exp(np.linspace(0, 1, 9))[:, None]
    assert excess_by_settle_runs(level * [9, 150, 120, 110, 100, 100]) == pytest.approx((0.2, 0.1, 0.0))
    noisy = level * np.where(np.arange(9)[:, None] % 2, 130, 80) * [1, 1, 1, 1, 1, 0]
    noisy[:, 5] = 100 * level[:, 0]
    assert excess_by_settle_runs(noisy)[0] == 0.0


def test_what_one_test_of_two_says_changes_nothing() -> None:
    busy, quiet = (
        InterferenceResult((0.1, 0.02, 0.0), {8: 0.18, 3: 0.0}),
        InterferenceResult((0.0, 0.0, 0.0), {8: 0.01}),
    )
    both = busy.combine(quiet)
    assert both == InterferenceResult((0.0, 0.0, 0.0), {8: 0.01, 3: 0.0}) == quiet.combine(busy)
    assert (both.settle_runs, both.residents) == (1, 8)
    assert (busy.combine(busy).settle_runs, busy.combine(busy).residents) == (3, 3)


def test_co_resident_excess_ignores_drift() -> None:
    def settled(ns: float) -> np.ndarray:
        return np.full((8, 6), ns)

    assert excess_co_resident(settled(110), settled(100), settled(100)) == pytest.approx(0.1)
    assert excess_co_resident(settled(104), settled(100), settled(108)) == 0.0
    assert excess_co_resident(settled(90), settled(100), settled(100)) == 0.0


def test_co_resident_excess_is_over_the_mean_before_and_after() -> None:
    """Alone 100 and 110.25, so 105 in the mean of logarithms; 120 is 1/7 more, less the drift of ln 1.1025."""
    ns = [np.full((8, 6), value) for value in (120.0, 100.0, 110.25)]
    assert excess_co_resident(*ns) == pytest.approx(1 / 7 - np.log(1.1025))


@pytest.mark.parametrize(("excess", "counts"), [(0.02, True), (0.012, False)])
def test_noise_of_a_median_falls_with_the_root_of_the_rounds(excess: float, counts: bool) -> None:
    """25 rounds whose deviations from the median are 0.02: 2 * 1.2533 * 1.4826 * 0.02 / 5 = 0.0149."""
    deviations = np.array([-0.02] * 12 + [0.0] + [0.02] * 12)
    ns = np.full((25, 6), 1e9)
    ns[:, 2] *= np.exp(excess + deviations)
    after_one, *_ = excess_by_settle_runs(ns)
    assert after_one == pytest.approx(np.expm1(excess) if counts else 0.0, rel=1e-6)
