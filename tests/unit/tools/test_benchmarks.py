"""Figures of the benchmarks against ones worked out by hand, or from measurements of known truth."""

import dataclasses
import functools

import numpy as np
import pytest

from luts.build import build_lut
from luts.estimate.likelihood import FitData
from luts.format.schema import KeyFeatures, MeasuredModel
from orchestrator.export import ExportSpec
from orchestrator.measure.engine import ModelSet
from orchestrator.plan.plan import Plan, PlanModel
from orchestrator.wire.client import ModelFile
from tests.support.errors import raises
from tests.support.fake_device import FakeDevice
from tests.support.lut_world import make_study, make_world
from tools.benchmarks import agents, controls, lowerings, torch_host, transfer
from tools.benchmarks.accuracy import (
    Campaign,
    Observations,
    macs_linear,
    reached,
    sum_blocks,
    sum_removals,
)
from tools.benchmarks.shared import predicted_ms

FEATURES = {
    "stem": KeyFeatures(kind="conv", macs=4_000_000, traffic_bytes=2**20, params=1_000),
    "layer": KeyFeatures(kind="attn", macs=10_000_000, traffic_bytes=2**20, params=5_000),
    "wide": KeyFeatures(kind="attn", macs=20_000_000, traffic_bytes=2**20, params=30_000),
    "head": KeyFeatures(kind="head", macs=2_000_000, traffic_bytes=2**18, params=90_000),
}


def model(name, role, blocks, ms, removed=""):
    return MeasuredModel(
        model_id=name, arch="", blocks=tuple(blocks), boundary_bytes=0, artifact_sha256="ab" * 32,
        split="fit", role=role, base_id="reference" if removed else "", removed_key=removed,
        ms=ms, ci_low=ms, ci_high=ms, loads=3, rounds=60,
    )  # fmt: skip


def observe(models, alone_ms=None):
    return Observations(tuple(models), 1e-6 * np.eye(len(models)), alone_ms or {}, FEATURES)


def test_a_linear_estimator_finds_the_line():
    chains = (("stem", "layer", "head"), ("stem", "wide", "head"), ("stem", "layer", "wide", "head"))
    models = [
        model(f"d{i}", "design", blocks, 0.5 + 1e-7 * sum(FEATURES[key].macs for key in blocks))
        for i, blocks in enumerate(chains)
    ]
    costs = macs_linear(observe(models))
    assert (costs.base_ms, costs.entry_ms["wide"]) == pytest.approx((0.5, 2.0))


def test_removals_use_the_drop_and_share_the_rest_by_macs():
    costs = sum_removals(
        observe(
            [
                model("reference", "reference", ("stem", "layer", "wide", "head"), 9.0),
                model("r1", "removal", ("stem", "wide", "head"), 7.0, "layer"),
                model("r2", "removal", ("stem", "layer", "head"), 5.0, "wide"),
            ]
        )
    )
    assert costs.entry_ms == pytest.approx({"layer": 2.0, "wide": 4.0, "stem": 2.0, "head": 1.0})
    network = model("new", "design", ("stem", "layer", "layer", "head"), 7.0)
    assert predicted_ms(costs, FitData.of([network], np.eye(1))) == pytest.approx(7.0)


def test_blocks_alone_add_up_and_missing_ones_cost_by_their_macs():
    costs = sum_blocks(observe([], {"stem": 1.0, "layer": 6.0}))
    assert costs.entry_ms == pytest.approx({"stem": 1.0, "layer": 6.0, "wide": 10.0, "head": 1.0})


def test_a_campaign_ends_at_the_error_of_the_lut(monkeypatch):
    monkeypatch.setattr("orchestrator.plan.build.planning_features", dict)  # keys here are not of real blocks
    generator = np.random.default_rng(1)
    world = make_world(generator)
    study = make_study(generator, world, designs=40, heldout=20, removals=4)
    inputs = study.inputs.model_copy(update={"policy": {"settle_runs": 1}})
    lut = build_lut(inputs, study.models, study.estimation, study.features)
    models = tuple(
        PlanModel(spec.model_id, "", spec.blocks, spec.role, spec.base_id, spec.removed_key)
        for spec in study.models
    )
    plan = Plan("toy", "0" * 64, 10, (64,), 0, models)
    alone_ms = {key: 0.8 * ms for key, ms in world.entry_ms.items()}
    alone_s = dict.fromkeys(alone_ms, 60.0)
    campaign = Campaign.of(lut, plan, study.features, alone_ms, alone_s)
    end = campaign.score("joint", len(campaign.orders["joint"]))
    assert end["MAPE, %"] == pytest.approx(100 * lut.meta.heldout_error.mape, rel=1e-9)
    macs = campaign.score("MACs, linear", 41)["MAPE, %"]
    assert campaign.perfect()["MAPE, %"] < end["MAPE, %"] < 0.2 * macs
    every_s = sum(campaign.seconds[each.model_id] for each in lut.models)
    assert every_s == pytest.approx(2 * sum(lut.samples.column("ns").to_pylist()) / 1e9)
    assert campaign.score("blocks measured alone, sum", 5)["minutes"] == pytest.approx(5.0)
    with raises("other_plan"):
        Campaign.of(lut, dataclasses.replace(plan, models=models[:-1]), study.features, {}, {})


def test_reached_is_where_a_curve_stays_below():
    curve = [{"MAPE, %": error} for error in (0.9, 2, 1, 0.8)]
    assert reached(curve, 1) == curve[2]
    assert reached(curve, 0.5) is None


def test_transfer_beats_a_fit_from_scratch_and_rejects_a_shuffled_source(monkeypatch):
    for name, value in (("CANDIDATES", 60), ("HELDOUT", 20), ("KEYS", 40)):
        monkeypatch.setattr(transfer, name, value)
    generator = np.random.default_rng(0)
    keys = [f"transffn_{side}_{wide}_2_hard_swish_ln" for side in (7, 14) for wide in range(64, 264, 8)]
    macs = {key: transfer.phone_features(key).macs for key in keys}
    ms = {key: macs[key] ** 0.8 * float(np.exp(generator.normal(0, 0.3))) for key in keys}
    tables = {
        name: {key: speed * ms[key] * float(np.exp(generator.normal(0, 0.03))) for key in keys}
        for name, speed in (("a", 1e-6), ("b", 3e-6), ("c", 2e-6))
    }
    make = functools.partial(transfer.phone_trial, tables, "a")
    trial = make(0, chosen=True)
    assert [source.name for source in trial.sources] == ["b", "c"]
    scratch, borrowed = (transfer.score(trial, method, 5) for method in ("scratch", "transfer"))
    assert borrowed.mape < 0.5 * scratch.mape
    assert "shuffled" in transfer.score(make(0, chosen=False, shuffled="additional"), "transfer", 5).dropped
    row = transfer.score_row([borrowed, borrowed])
    assert row["MAPE"] == pytest.approx(100 * borrowed.mape)


def test_features_of_a_phone_block_by_hand():
    """14 px, 32 to 64 channels, 2 times wider, stride 2, kernel 3, with a gate of 64 // 4 channels."""
    macs = 196 * 32 * 64 + 49 * 64 * 9 + 49 * 64 * 64 + 2 * 64 * 16
    elements = 196 * (32 + 128) + 49 * (128 + 64) + 2 * 49 * 64
    assert transfer.phone_features("conv_14_32_64_2_2_hard_swish_3_se") == KeyFeatures(
        kind="conv",
        macs=macs,
        traffic_bytes=4 * elements,
        params=32 * 64 + 64 * 9 + 64 * 64 + 2 * 64 * 16,
        depthwise_macs=49 * 64 * 9,
    )


def test_the_spread_of_loads_is_found_again(tmp_path):
    sha = {"reference": "1" * 64, controls.COMPANION: "2" * 64}
    files = {name: ModelFile(tmp_path / name, digest) for name, digest in sha.items()}
    latencies = {sha["reference"]: 2.0, sha[controls.COMPANION]: 0.5}
    device = FakeDevice(latencies, load_sd=0.006, noise=0.004)
    models = ModelSet(files, "reference", "0" * 64, seed=1)
    found = controls.control(device, models, tmp_path / "journal.jsonl", 45)
    assert 88 <= found["interval contains 0, %"].value < 100
    assert (found["one load, %"], found["ms"]) == pytest.approx((0.6, 2.0), rel=0.25)
    assert controls.coverage(190, 200) == pytest.approx((95, 91.0, 97.6), abs=0.1)


def test_ratios_and_their_intervals():
    """The 0.975 quantile of Student's t with two degrees of freedom is 4.303."""
    half = 4.303 * 0.01 / 3**0.5
    expected = np.exp([0.02, 0.02 - half, 0.02 + half])
    assert agents.agreement([0.01, 0.02, 0.03]) == pytest.approx(tuple(expected), rel=1e-4)
    assert torch_host.ratio_of_medians(np.full(9, 3.0), np.full(9, 2.0)) == (1.5, 1.5, 1.5)


def test_a_network_is_lowered_as_written_and_rewritten(tmp_path):
    spec = ExportSpec(("mvit.layer(d=16,heads=1,head_dim=16,ratio=1,patch=2)@4",))
    row = lowerings.lower_twice("layer", spec, tmp_path)
    assert (row["delegates as written"], row["outside as written"]) == (2, 2)
    assert (row["delegates rewritten"], row["outside rewritten"], row["still outside"]) == (1, 0, "")
    written = {file: file.stat().st_mtime_ns for file in lowerings.programs_of("layer", spec, tmp_path)}
    assert lowerings.lower_twice("layer", spec, tmp_path) == row
    assert len(written) == 2
    times = lowerings.call_in_turn([*written])
    assert times.shape == (lowerings.CALLS, 2)
    assert (times > 0).all()
    assert written == {file: file.stat().st_mtime_ns for file in written}


def test_outputs_are_timed():
    rows = torch_host.time_outputs(calls=1)["Processing of a detector's and a segmenter's outputs"]
    assert len(rows) == 3
    assert all(0 < row["ms"].low <= row["ms"].value <= row["ms"].high for row in rows)
