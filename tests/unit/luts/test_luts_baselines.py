from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from luts.build import build_lut
from luts.estimate.latencies import LatencyEstimates
from luts.format.errors import UsageError
from luts.format.lut import Lut
from luts.format.schema import KeyFeatures, MeasuredModel
from tests.support.lut_world import make_study, make_world
from tools.benchmarks._baselines import (
    ESTIMATORS,
    Observations,
    blocks_alone,
    design,
    joint,
    macs_linear,
    removals,
)
from tools.benchmarks._baselines import parameters_linear as params_linear

FEATURES = {
    "stem": KeyFeatures(kind="conv", macs=4_000_000, traffic_bytes=2**20, params=1_000),
    "layer": KeyFeatures(kind="attn", macs=10_000_000, traffic_bytes=2**20, params=5_000),
    "wide": KeyFeatures(kind="attn", macs=20_000_000, traffic_bytes=2**20, params=30_000),
    "head": KeyFeatures(kind="head", macs=2_000_000, traffic_bytes=2**18, params=90_000),
}


def model(name: str, role: str, blocks: Sequence[str], ms: float, removed: str = "") -> MeasuredModel:
    return MeasuredModel.model_validate(
        {
            "model_id": name,
            "arch": "",
            "blocks": tuple(blocks),
            "boundary_bytes": 0,
            "artifact_sha256": "ab" * 32,
            "split": "heldout" if role == "heldout" else "fit",
            "role": role,
            "base_id": "reference" if removed else "",
            "removed_key": removed,
            "ms": ms,
            "ci_low": ms,
            "ci_high": ms,
            "loads": 3,
            "rounds": 60,
        }
    )


def observe(models: Sequence[MeasuredModel], alone_ms: Mapping[str, float] = {}) -> Observations:
    return Observations(tuple(models), 1e-6 * np.eye(len(models)), alone_ms, FEATURES)


def architectures(size: str, slope_ms: float) -> list[MeasuredModel]:
    """Networks that cost 0.5 ms and `slope_ms` for each unit of `size`."""
    return [
        model(f"d{i}", "design", blocks, 0.5 + slope_ms * sum(getattr(FEATURES[key], size) for key in blocks))
        for i, blocks in enumerate(
            (("stem", "layer", "head"), ("stem", "wide", "head"), ("stem", "layer", "wide", "head"))
        )
    ]


def test_linear_estimators_find_the_line() -> None:
    for estimator, size, slope_ms in ((macs_linear, "macs", 1e-7), (params_linear, "params", 2e-5)):
        costs = estimator(observe(architectures(size, slope_ms)))
        assert costs.base_ms == pytest.approx(0.5)
        assert costs.entry_ms["wide"] == pytest.approx(slope_ms * getattr(FEATURES["wide"], size))


def test_removals_take_the_drop_and_share_the_rest_by_macs() -> None:
    costs = removals(
        observe(
            [
                model("reference", "reference", ("stem", "layer", "wide", "head"), 9.0),
                model("r1", "removal", ("stem", "wide", "head"), 7.0, "layer"),
                model("r2", "removal", ("stem", "layer", "head"), 5.0, "wide"),
            ]
        )
    )
    assert costs.entry_ms == pytest.approx({"layer": 2.0, "wide": 4.0, "stem": 2.0, "head": 1.0})
    assert costs.predict(("stem", "layer", "layer", "head"), 0) == pytest.approx(7.0)


def test_removals_of_a_base_that_was_not_measured_tell_nothing() -> None:
    with pytest.raises(UsageError, match="base"):
        removals(observe([model("r1", "removal", ("stem", "head"), 7.0, "layer")]))


def test_blocks_alone_add_up_and_those_missing_cost_by_their_macs() -> None:
    costs = blocks_alone(observe([], {"stem": 1.0, "layer": 6.0}))
    assert costs.entry_ms == pytest.approx({"stem": 1.0, "layer": 6.0, "wide": 10.0, "head": 1.0})
    with pytest.raises(UsageError, match="alone"):
        blocks_alone(observe([]))


@pytest.fixture(scope="module")
def measured() -> tuple[Lut, Observations]:
    generator = np.random.default_rng(3)
    study = make_study(generator, make_world(generator), designs=30, heldout=20, removals=4)
    lut = build_lut(study.inputs, study.models, study.estimation, study.features)
    estimates = LatencyEstimates.of(lut.samples, lut.meta.reference_id).ratios
    everything = Observations(lut.models, estimates.covariance, {}, study.features)
    return lut, everything.only(lambda row: row.split == "fit")


def test_joint_is_what_the_lut_ships(measured: tuple[Lut, Observations]) -> None:
    lut, observed = measured
    costs = joint(observed)
    assert costs.entry_ms == {entry.key: entry.ms for entry in lut.entries}
    assert (costs.base_ms, costs.transfer_ms_per_mib) == (lut.meta.base_ms, lut.meta.transfer_ms_per_mib)


def test_design_looks_at_random_networks_alone(measured: tuple[Lut, Observations]) -> None:
    _, observed = measured
    assert design(observed) == joint(observed.without([f"removal{i}" for i in range(4)], []))
    assert design(observed) != joint(observed)


def test_learned_costs_beat_a_line_where_blocks_stray_from_physics(
    measured: tuple[Lut, Observations],
) -> None:
    lut, observed = measured
    heldout = [row for row in lut.models if row.split == "heldout"]

    def error(name: str) -> float:
        costs = ESTIMATORS[name](observed)
        return float(np.mean([abs(costs.predict(row.blocks, 0) / row.ms - 1) for row in heldout]))

    assert error("joint") < 0.012
    assert error("joint") < 0.2 * error("MACs, linear")
