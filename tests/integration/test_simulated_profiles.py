"""The whole way from a simulated device to a LUT, against the truth that no real device tells."""

import os
import signal

import numpy as np
import pytest

from luts.format.schema import Value
from luts.verify import verify_values
from orchestrator.journal.records import EndRecord, Header, RoundsRecord
from orchestrator.plan.build import make_plan
from orchestrator.simulate.compare import compare_lut_with_truth
from orchestrator.simulate.device import SCENARIOS, GroundTruth, Scenario, StolenCore
from search.spaces import get_space
from tests.support.sample_places import sample_places
from tests.support.simulated_profiles import PLAN, profile
from tests.support.slow import mostly_slow


def scenario(name: str, **noise: Value) -> Scenario:
    """Repeatable, and with changes to its noise."""
    found = SCENARIOS[name]
    return found.model_copy(update={"noise_seed": 1, "noise": found.noise.model_copy(update=noise)})


def fast_case(name: str) -> Scenario:
    """Networks of autovit-nano take half a millisecond, a batch about a second: heat and pauses to match."""
    case = SCENARIOS[name].noise.throttling.model_copy(update={"tau_s": 3.0})
    return scenario(name, throttling=case).model_copy(update={"load_ms": 1.0, "pause_s": 0.1})


CASES = {
    "quiet": (scenario("quiet"), 1),
    "noisy": (scenario("noisy"), 1),
    "phone": (fast_case("phone"), 1),
    "phone-silent": (fast_case("phone-silent"), 1),
    "stolen-core": (scenario("stolen-core", stolen_core=StolenCore(mean_quiet_s=0.5, mean_burst_s=0.05)), 2),
}


@pytest.fixture(scope="module")
def profiles(tmp_path_factory):
    """Each scenario is profiled once, when the first test asks for it."""
    done = {}

    def get(name):
        if name not in done:
            chosen, threads = CASES[name]
            done[name] = profile(chosen, tmp_path_factory.mktemp(name), threads=threads)
        return done[name]

    return get


@pytest.mark.parametrize("name", mostly_slow(CASES, kept=["phone"]))
def test_the_lut_finds_the_truth(name, profiles) -> None:
    chosen, threads = CASES[name]
    lut, truth = profiles(name).lut, GroundTruth(chosen.costs, threads)
    verify_values(lut)
    found = compare_lut_with_truth(lut, truth)
    assert found.entries == 40
    assert found.covered >= 0.9, "95 % intervals of entries; wider than need be where the prior decides"
    # Intervals of whole models rest on measurement alone, so they must be neither too narrow nor too wide.
    measured = [model for model in lut.models if model.model_id != lut.meta.reference_id]
    scale = found.reference_ratio
    held = [m.ci_low <= scale * truth.latency_ms(m.blocks) <= m.ci_high for m in measured]
    assert np.mean(held) >= 0.85
    widest = 0.025 if name == "noisy" else 0.015
    assert np.median([(m.ci_high - m.ci_low) / 2 / m.ms for m in measured]) < widest
    assert found.heldout == 12
    assert found.context is not None
    assert 0.2 * found.context < found.heldout_mape < 1.5 * found.context + chosen.noise.load_sd


@pytest.mark.parametrize("name", ["quiet", "stolen-core"])
def test_milliseconds_are_those_of_a_clock_that_does_not_drift(name, profiles) -> None:
    chosen, threads = CASES[name]
    meta, truth = profiles(name).lut.meta, GroundTruth(chosen.costs, threads)
    true_ms = truth.latency_ms(PLAN.reference.blocks)
    assert meta.reference_ms == pytest.approx(true_ms, rel=0.02)
    assert meta.load_sd == pytest.approx(chosen.noise.load_sd, rel=0.6)


def test_all_of_it_says_simulated(profiles) -> None:
    done = profiles("phone")
    header, meta = done.records[0], done.lut.meta
    assert isinstance(header, Header)
    assert header.simulated
    assert done.measurement.hello.device.simulated
    assert meta.measured == "simulated"
    assert meta.device.name == "simulated-phone"
    assert meta.device.model == "simulated phone"
    assert meta.variant == "simulated-t1"
    assert meta.versions.runtime == "simulated phone"
    assert meta.versions.exporter.startswith("none")


def test_hot_batches_are_rejected_and_repeated(profiles) -> None:
    done = profiles("phone")
    ends = {record.batch: record for record in done.records if isinstance(record, EndRecord)}
    rejected = {batch for batch, end in ends.items() if end.reason.startswith("thermal ")}
    assert rejected
    assert not any(ends[batch].kept for batch in rejected)
    hot = {
        record.batch
        for record in done.records
        if isinstance(record, RoundsRecord)
        and any(
            state.thermal_state == "serious" or state.thermal_headroom >= 0.73
            for state in (record.state_before, record.state_after)
        )
    }
    assert hot == rejected
    assert done.measurement.batches_kept == 3 * 3, "every group of every pass was measured after all"


def test_throttling_that_is_not_reported_cancels_in_ratios(profiles) -> None:
    done = profiles("phone-silent")
    assert not any("thermal" in r.reason for r in done.records if isinstance(r, EndRecord))
    samples = done.lut.samples.to_pandas()
    reference = samples[(samples.model == PLAN.reference.model_id) & samples.kept].ns
    assert reference.quantile(0.9) / reference.quantile(0.1) > 1.3, "it did throttle"
    assert compare_lut_with_truth(done.lut, GroundTruth(CASES["phone-silent"][0].costs)).heldout_mape < 0.01


def test_an_agent_killed_in_the_middle_costs_no_sample(tmp_path) -> None:
    messages = []

    def kill_once(device) -> None:
        messages.append(device.agent_pid)
        if len(messages) == 3:
            os.kill(device.agent_pid, signal.SIGKILL)

    plan = make_plan(get_space("autovit-nano"), design=3, heldout=2, removals="none")
    done = profile(scenario("quiet"), tmp_path, plan=plan, disturb=kill_once)
    assert done.agent_starts == 2
    assert_no_sample_twice(done.records)


def assert_no_sample_twice(records) -> None:
    """Neither in a segment nor in two segments of one batch."""
    places = sample_places(records)
    assert len(places) == len(set(places))
