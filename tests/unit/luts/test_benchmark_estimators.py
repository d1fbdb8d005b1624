"""The learning curves of tools/benchmarks, on made-up measurements of known truth."""

import numpy as np
import pytest

from luts.build import build_lut
from luts.format.errors import UsageError
from luts.format.lut import Lut
from orchestrator.plan.plan import Plan, PlanModel
from tests.support.lut_world import Study, make_study, make_world
from tools.benchmarks._estimators import ALONE, Campaign, Score, campaign, curve, perfect, reached, score


def plan_of(study: Study) -> Plan:
    models = tuple(
        PlanModel(spec.model_id, "", spec.blocks, spec.role, spec.base_id, spec.removed_key)
        for spec in study.models
    )
    return Plan("toy", "0" * 64, 10, (64,), 0, models)


@pytest.fixture(scope="module")
def measured() -> tuple[Study, Lut, Campaign]:
    generator = np.random.default_rng(1)
    world = make_world(generator)
    study = make_study(generator, world, designs=40, heldout=20, removals=4)
    inputs = study.inputs.model_copy(update={"policy": {"settle_runs": 1}})
    lut = build_lut(inputs, study.models, study.estimation, study.features)
    alone_ms = {key: 0.8 * ms for key, ms in world.entry_ms.items()}
    return (
        study,
        lut,
        campaign(lut, plan_of(study), study.features, alone_ms, dict.fromkeys(alone_ms, 60.0)),
    )


def test_each_estimator_uses_its_own_measurements_design_models_first(
    measured: tuple[Study, Lut, Campaign],
) -> None:
    orders = measured[2].orders
    designs = {f"design{i}" for i in range(40)}
    drops = tuple(f"removal{i}" for i in range(4))
    assert orders["design"][0] == "reference"
    assert set(orders["design"][1:]) == designs
    assert orders["joint"] == (*orders["design"], *drops)
    assert orders["removals, sum"] == ("reference", *drops)
    assert sorted(orders[ALONE]) == sorted(measured[2].observed.alone_ms)
    assert not any(name.startswith("heldout") for order in orders.values() for name in order)


def test_the_whole_curve_ends_at_the_error_of_the_lut(measured: tuple[Study, Lut, Campaign]) -> None:
    _, lut, known = measured
    assert lut.meta.heldout_error is not None
    end = score(known, "joint", len(known.orders["joint"]))
    assert end.mape == pytest.approx(lut.meta.heldout_error.mape, rel=1e-9)
    assert end.within[1] == lut.meta.heldout_error.within_5


def test_device_time_counts_settle_runs_and_the_reference(measured: tuple[Study, Lut, Campaign]) -> None:
    _, lut, known = measured
    every = sum(known.seconds[model.model_id] for model in lut.models)
    assert every == pytest.approx(2 * sum(lut.samples.column("ns").to_pylist()) / 1e9)
    assert score(known, ALONE, 5).minutes == pytest.approx(5.0)


def test_blocks_alone_that_are_all_too_cheap_predict_too_little(
    measured: tuple[Study, Lut, Campaign],
) -> None:
    known = measured[2]
    assert 0.18 < score(known, ALONE, len(known.orders[ALONE])).mape < 0.30


def test_a_perfect_predictor_is_judged_by_the_noise_alone(measured: tuple[Study, Lut, Campaign]) -> None:
    study, _, known = measured
    truth = np.array([study.truth_ms[model.model_id] for model in known.heldout])
    ratio = np.array([model.ms for model in known.heldout]) / truth
    seen = float(np.abs(ratio / np.median(ratio) - 1).mean())
    assert 0.5 * seen < perfect(known).mape < 2 * seen
    assert perfect(known).mape < curve(known, "MACs, linear")[-1].mape


def test_reached_is_where_the_curve_stays_below() -> None:
    points = [
        Score(used, used / 2, mape, (1.0,), mape, None)
        for used, mape in ((5, 0.009), (10, 0.02), (20, 0.01), (40, 0.008))
    ]
    assert reached(points, 0.01) == points[2]
    assert reached(points, 0.005) is None


def test_a_lut_of_another_plan_is_refused(measured: tuple[Study, Lut, Campaign]) -> None:
    study, lut, _ = measured
    shorter = plan_of(study)
    shorter = Plan("toy", "0" * 64, 10, (64,), 0, shorter.models[:-1])
    with pytest.raises(UsageError, match="which the plan does not"):
        campaign(lut, shorter, study.features, {}, {})
