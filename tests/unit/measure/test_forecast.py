"""Forecast of a plan's time and of its entries' errors."""

import dataclasses

import pytest

from luts.estimate.design import TYPICAL_DEVICE
from luts.format.schema import Coefficients
from luts.format.store import LutStore
from orchestrator.export import ExportSpec
from orchestrator.journal.log import MeasurementLog
from orchestrator.journal.records import BatchRecord, Header, Identity
from orchestrator.plan.build import heldout_count, make_plan
from orchestrator.plan.plan import Policy
from orchestrator.plan.sizing import (
    BLOCK_S,
    LOAD_S,
    MIN_USEFUL_MODELS,
    SPLICED_BLOCK_S,
    START_S,
    device_seconds,
    export_seconds,
    forecast,
    plan_for_budget,
    plan_of_size,
    plan_seconds,
)
from orchestrator.tasks.plan import PlanOptions, ProfileCommand, plan_profile
from orchestrator.tasks.target import Target
from search.spaces import get_space
from tests.support.errors import raises

NANO = get_space("autovit-nano")
POLICY = Policy()


def test_time_is_what_the_schedule_says():
    policy = Policy(batch_models=2, warmup=5, warmup_ms=0, settle_runs=1, min_rounds=20, max_rounds=40)
    runs = 5 + 30 * 2
    one_pass = (2 * LOAD_S + runs * 0.030) + 2 * 1 * (LOAD_S + runs * 0.010)
    assert device_seconds([10.0, 12.0, 18.0], policy, 3) == pytest.approx(3 * one_pass)
    assert device_seconds([10.0, 12.0, 18.0, 0.0], policy, 1) == pytest.approx(
        one_pass + LOAD_S + 2 * (LOAD_S + runs * 0.010)
    )


def test_pace_lengthens_short_calls():
    policy = Policy(warmup=0, warmup_ms=0, settle_runs=1, min_rounds=20, max_rounds=40, pace_us=33_000)
    assert device_seconds([10.0, 50.0], policy, 1) == pytest.approx(3 * LOAD_S + 60 * (2 * 0.033 + 0.050))


def test_every_run_of_rounds_begins_with_three_windows():
    policy = Policy(batch_models=2, warmup_ms=2000, min_rounds=20, max_rounds=40, chunk_rounds=10)
    bare = dataclasses.replace(policy, warmup_ms=0)

    def warmup_s(models_ms):
        return device_seconds(models_ms, policy, 1) - device_seconds(models_ms, bare, 1)

    assert warmup_s([1.0, 2.0, 3.0]) == pytest.approx(3 * 3 * 0.050), "rounds of 7 ms"
    assert warmup_s([10.0, 40.0, 60.0]) == pytest.approx(3 * 3 * 0.120), "rounds of 120 ms"
    assert warmup_s([100.0, 400.0, 600.0]) == pytest.approx(3 * 2.0), "no longer than allowed"


BLOCKS = ("conv(in=3,out=16,k=3,s=2)@64", "head.fc(in=16,classes=10)@32")


def test_export_seconds_with_reuse():
    specs = [ExportSpec(BLOCKS)] * 10
    whole, spliced = 2 * BLOCK_S, 2 * SPLICED_BLOCK_S
    assert export_seconds(specs, [], 4) == pytest.approx(START_S + (4 * whole + 6 * spliced) / 4)
    assert export_seconds(specs, [3.0], 4) == pytest.approx(START_S + 10 * spliced / 4)
    int8 = [ExportSpec(BLOCKS, precision="int8")] * 10
    assert export_seconds(int8, [], 4) == pytest.approx(START_S + 10 * whole / 4)


def test_export_seconds_from_earlier_exports():
    specs = [ExportSpec(BLOCKS)] * 3
    assert export_seconds(specs, [1.0, 9.0, 2.0], 2) == pytest.approx(START_S + 3 * 2.0 / 2)
    assert export_seconds(specs[:1], [1.0, 9.0, 2.0], 8) == pytest.approx(START_S + 2.0)
    assert export_seconds([], [1.0, 9.0, 2.0], 2) == 0


def first_loads(folder, device_model, seconds, variant="coreml-fp16-all", simulated=False):
    """A run in which models took so long to come to a phone, and a moment the next time, which does not count."""
    identity = Identity(
        device_model=device_model,
        soc="",
        os="iOS 18",
        os_build="",
        agent="",
        runtime="",
        variant=variant,
        plan="",
        policy={},
        artifacts={},
    )
    header = Header(identity=identity, reference_id="m0", seed=0, created="2026-11-22", simulated=simulated)
    with MeasurementLog(folder / "journal.jsonl", header) as log:
        for cached, ns in [(False, [int(1e9 * s) - 10**9 for s in seconds]), (True, [10**6] * len(seconds))]:
            log.append(
                BatchRecord(
                    batch=0,
                    segment=int(cached),
                    pass_index=0,
                    group=0,
                    attempt=0,
                    slots=[f"m{i}" for i in range(len(seconds))],
                    copies=[0] * len(seconds),
                    load_ns=ns,
                    compile_ns=[None if cached else 10**9] * len(seconds),
                    cached=[cached] * len(seconds),
                )
            )


@pytest.fixture
def plan_nano(tmp_path, monkeypatch):
    """Plan a profile of a device, with runs and cache in `tmp_path`."""
    monkeypatch.setenv("BLOCKTIME_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BLOCKTIME_RUNS", str(tmp_path / "runs"))

    def plan(device, pace_us=0, **target):
        return plan_profile(
            ProfileCommand(
                space="autovit-nano",
                target=Target(device, **target),
                plan=PlanOptions(models=12),
                store=LutStore([tmp_path]),
                workers=2,
                pace_us=pace_us,
            )
        )

    return plan


def test_forecast_of_first_loads(tmp_path, plan_nano):
    runs = tmp_path / "runs"
    first_loads(runs / "iphone15-autovit-xxs-coreml-fp16-all-1", "iPhone15,4", [900.0])
    first_loads(runs / "iphone13-x-coreml-fp16-cpuonly-1", "iPhone14,5", [900.0], "coreml-fp16-cpuonly")
    first_loads(runs / "iphone13-y-coreml-fp16-all-1", "iPhone14,5", [900.0], simulated=True)
    planned = plan_nano("iphone13")
    assert (planned.compile_s, planned.first_loads) == (None, 0), "never invented"
    first_loads(runs / "measure-iphone13-coreml-fp16-all-2", "iPhone14,5", [20.0, 40.0, 90.0])
    planned = plan_nano("iphone13")
    assert planned.compile_s == pytest.approx(40.0 * planned.compiled)
    assert planned.first_loads == 3


def test_forecast_needs_a_plausible_device(plan_nano):
    with raises("unknown_device"):
        plan_nano("iphnoe13", threads=1)
    with raises("unknown_agent"):
        plan_nano("host", agent="rust")
    planned = plan_nano("iphone13")
    specs = [ExportSpec(model.blocks, runtime="coreml") for model in planned.plan.models]
    assert (planned.cached, planned.export_s) == (0, export_seconds(specs, [], 2))
    assert planned.compiled == len(planned.plan.models) >= 12, "Core ML prepares each for the neural engine"
    for more in ({"backend": "cpuandgpu"}, {"precision": "fp32"}, {"runtime": "executorch", "threads": 1}):
        assert plan_nano("iphone13", **more).compiled == 0
    plain, paced = (plan_nano("simulated", pace_us) for pace_us in (0, 1_000_000))
    assert plain.export_s is None
    assert paced.plan == plain.plan
    assert paced.forecast.device_s > 10 * plain.forecast.device_s, "a call a second"


@pytest.fixture(scope="module")
def reported():
    plan = make_plan(NANO, design=14, heldout=4)
    return plan, forecast(plan, TYPICAL_DEVICE, POLICY)


def test_every_entry_has_its_forecast_the_worst_first(reported):
    plan, found = reported
    assert {entry.key for entry in found.entries} == {spec.key for spec in NANO.block_specs()}
    errors = [entry.relative_se for entry in found.entries]
    assert errors == sorted(errors, reverse=True)
    assert found.device_s == pytest.approx(plan_seconds(plan, TYPICAL_DEVICE, POLICY, 3))
    assert found.device_s < found.most_s


def test_identified_entries(reported):
    by_key = {entry.key: entry for entry in reported[1].entries}
    layers = [entry for key, entry in by_key.items() if key.startswith("mvit.layer")]
    assert {entry.identified for entry in layers} == {"alone"}
    assert all(entry.shown and not entry.weak for entry in layers)
    stem = by_key["conv(in=3,out=8,k=3,s=2)@64"]
    assert stem.identified == "sum"
    assert stem.weak
    assert all(name.startswith("mbconv(in=8,") for name in stem.partners)
    assert max(entry.relative_se for entry in layers) < stem.relative_se


def test_more_models_tell_more():
    small, large = (
        forecast(make_plan(NANO, design=n, heldout=4, removals="none"), TYPICAL_DEVICE, POLICY)
        for n in (8, 40)
    )
    errors = [{entry.key: entry.relative_se for entry in found.entries} for found in (small, large)]
    assert all(errors[1][key] < error for key, error in errors[0].items())


def test_plan_for_budget():
    whole = make_plan(NANO)
    ample = plan_for_budget(NANO, 1e6, POLICY, resolutions=None, seed=0)
    assert ample == whole
    seconds = plan_seconds(whole, TYPICAL_DEVICE, POLICY, POLICY.min_passes)
    half, tenth = (
        plan_for_budget(NANO, share * seconds, POLICY, resolutions=None, seed=0) for share in (0.5, 0.1)
    )
    assert plan_seconds(half, TYPICAL_DEVICE, POLICY, POLICY.min_passes) <= 0.5 * seconds
    assert {model.role for model in half.models} == {"reference", "design", "heldout"}
    assert len(tenth.models) == MIN_USEFUL_MODELS < len(half.models) < len(whole.models)
    designs = [[m for m in plan.models if m.role == "design"] for plan in (tenth, half)]
    assert designs[1][: len(designs[0])] == designs[0]


@pytest.mark.parametrize("models", [3, 20, 40, 90])
def test_plan_of_a_size(models):
    plan = plan_of_size(NANO, models, resolutions=None, seed=0)
    heldout = sum(model.role == "heldout" for model in plan.models)
    assert len(plan.models) == models
    assert models / 5 - 1 <= heldout <= max(models / 3, 1)
    assert any(model.role == "removal" for model in plan.models) == (models == 90)


def test_too_few_models_are_refused():
    with raises("too_few_models"):
        plan_of_size(NANO, 2, resolutions=None, seed=0)


def test_expectation_changes_the_forecast():
    common = Coefficients(constant_ms=0.06, ms_per_mmac=0.06, ms_per_mib=0.3)
    slow = dataclasses.replace(TYPICAL_DEVICE, common=common, source="a slow one")
    plan = make_plan(NANO, design=10, heldout=0, removals="none")
    assert make_plan(NANO, design=10, heldout=0, removals="none", expectation=slow) == plan
    assert forecast(plan, slow, POLICY).device_s > plan_seconds(plan, TYPICAL_DEVICE, POLICY, 3)


def test_forecast_counts_fitted_models_alone():
    """A held-out model determines nothing of its blocks."""
    plan = make_plan(NANO, design=6, heldout=8, removals="none")
    fitted = [model.blocks for model in plan.models if model.role != "heldout"]
    entries = forecast(plan, TYPICAL_DEVICE, POLICY).entries
    counts = {entry.key: entry.models for entry in entries}
    assert counts == {key: sum(key in blocks for blocks in fitted) for key in counts}
    assert any(key in model.blocks for model in plan.models if model.role == "heldout" for key in counts)


def test_forecast_spares_entries_of_little_weight():
    """An entry of a microsecond, which may be twice that, is not weak; larger ones that are uncertain are."""
    plan = make_plan(NANO, design=80, heldout=4, removals="none")
    key = plan.reference.blocks[-2]
    light = dataclasses.replace(TYPICAL_DEVICE, entry_ms={key: 1e-3})
    entries = {entry.key: entry for entry in forecast(plan, light, POLICY).entries}
    assert entries[key].relative_se > 0.5
    assert not entries[key].weak
    assert any(entry.weak for entry in entries.values())


def test_plan_of_a_size_that_just_suffices_fits_all_it_can():
    whole = make_plan(NANO, seed=0)
    fitted = sum(model.role != "heldout" for model in whole.models) + 5
    plan = plan_of_size(NANO, fitted + heldout_count(fitted), resolutions=None, seed=0)
    assert sum(model.role != "heldout" for model in plan.models) == fitted
    assert len(plan.models) == fitted + heldout_count(fitted)
