"""Predictors that the benchmark of operators compares, on costs that they can express exactly."""

import numpy as np
import pytest

from luts.format.operators import parse_operator
from luts.format.schema import MIB, MMAC, MeasuredModel
from tests.support.operator_world import OperatorWorld, Program, measured, programs
from tools.benchmarks.operators import _held_out, _score, _spread, by_macs, by_physics

KNOWN = programs(0, 12)


def exact(program: Program, ms: float) -> MeasuredModel:
    """A program that takes exactly so long."""
    return measured(program, OperatorWorld({})).model_copy(update={"ms": ms, "ci_low": ms, "ci_high": ms})


def macs_ms(program: Program) -> float:
    """2 ms and 3 ms a million MACs."""
    return 2 + 3 * sum(parse_operator(key).features.macs for key in program.blocks) / MMAC


def physics_ms(program: Program) -> float:
    """0.1 ms a product and 2 ms a MiB of an activation, nothing for all else."""
    features = [parse_operator(key).features for key in program.blocks]
    products = sum(each.kind == "gemm" for each in features)
    return 0.1 * products + 2 * sum(f.traffic_bytes for f in features if f.kind in ("clamp", "gelu")) / MIB


@pytest.mark.parametrize(("predictor", "truth"), [(by_macs, macs_ms), (by_physics, physics_ms)])
def test_linear_predictors_find_what_is_linear(predictor, truth):
    wanted = [program for program in KNOWN if truth(program) > 0]
    known = [exact(program, truth(program)) for program in wanted]
    (found,) = predictor(known, [exact(program, 1.0) for program in wanted])
    np.testing.assert_allclose(found, [truth(program) for program in wanted], rtol=0.02)


def test_scores_by_hand():
    """Errors of 0, 5, 10.5 and 40 %: three folds of one score each can't calibrate a fourth."""
    row = _score(np.array([[1.0, 1.0, 1.0, 1.0], [1.0, 1.05, 1.105, 0.6]]), [0, 1, 2, 3])
    assert row["MAPE"] == pytest.approx((0 + 5 + 10.5 + 40) / 4)
    assert row["within 10 %"] == 50
    assert row["worst"] == pytest.approx(40)
    assert row["coverage of 95 %"] is None


def test_coverage_is_of_intervals_from_the_other_folds():
    """Fold 0 has the two largest errors, which those of the other 30 networks do not reach."""
    errors = np.array([0.5, 0.4, *np.linspace(0.01, 0.1, 30)])
    found = np.array([np.ones(32), np.exp(errors), np.zeros(32)])
    row = _score(found, [0, 0, *[1 + place % 5 for place in range(30)]])
    assert row["coverage of 95 %"] == pytest.approx(100 * 30 / 32)


def test_programs_to_learn_from_are_spread_evenly():
    models = [exact(program, 1.0) for program in KNOWN]
    assert _spread(models, 4) == models[::3]
    assert _spread(models, 0) == []
    assert _spread(models, None) == models


def test_no_network_is_predicted_from_its_family():
    seen = []

    def predictor(known, networks):
        seen.append({model.arch[:20] for model in known} & {model.arch[:20] for model in networks})
        return np.ones((1, len(networks)))

    models = [exact(program, 1.0) for program in programs(10, 12, families=6)]
    row = _held_out((predictor, models, 3, 5, None))
    assert row["networks"] == 12
    assert seen == [set()] * 3
