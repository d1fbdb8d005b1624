from collections.abc import Callable

import numpy as np
import pytest

from luts.build import build_lut
from luts.diff import diff_luts
from luts.format.latency import EntryCost, LatencyModel, latency_ms
from luts.format.lut import Lut
from luts.format.schema import Conformal
from tests.support.errors import raises
from tests.support.lut_world import make_study, make_world

COSTS = {
    "a": EntryCost(ms=1.0, half_width_ms=0.1, weak=False),
    "b": EntryCost(ms=2.0, half_width_ms=0.3, weak=False),
    "w": EntryCost(ms=4.0, half_width_ms=2.0, weak=True),
}


def model(width: float | None) -> LatencyModel:
    return LatencyModel(0.5, 0.25, COSTS, width, None if width is None else 0.95)


def test_latency_is_base_plus_entries_plus_data_moved() -> None:
    prediction = model(0.1).predict(["a", "b", "a"], boundary_bytes=2 << 20)
    assert prediction.ms == pytest.approx(0.5 + 1 + 2 + 1 + 0.5)
    assert (prediction.low, prediction.high) == pytest.approx((4.5, 5.5))
    assert prediction.level == 0.95
    assert prediction.weak_keys == ()


def test_interval_without_held_out_models() -> None:
    prediction = model(None).predict(["a", "b", "a"], 0)
    assert prediction.level is None
    assert (prediction.low, prediction.high) == pytest.approx((4.5 - 0.5, 4.5 + 0.5))


def test_weak_entries_widen_and_are_named_once() -> None:
    prediction = model(0.1).predict(["w", "a", "w"], 0)
    assert prediction.weak_keys == ("w",)
    assert prediction.high - prediction.ms == pytest.approx(0.95 + 4.0)
    assert prediction.low == pytest.approx(9.5 - 4.95)


def test_an_unknown_key_is_an_error_that_names_it() -> None:
    with raises("missing_entry"):
        model(0.1).predict(["a", "y", "x", "y"], 0)
    with raises("missing_entry"):
        latency_ms({}, 0.0, 0.0, list("abcdefg"), 0)


@pytest.fixture(scope="module")
def make_lut() -> Callable[..., Lut]:
    generator = np.random.default_rng(0)
    world = make_world(generator)

    def build(seed: int, heldout: int = 0) -> Lut:
        study = make_study(np.random.default_rng(seed), world, designs=30, heldout=heldout)
        return build_lut(study.inputs, study.models, study.estimation, study.features)

    return build


@pytest.mark.parametrize(("heldout", "level"), [(0, None), (12, 0.90), (24, 0.95)])
def test_interval_level_depends_on_held_out_models(
    make_lut: Callable[..., Lut], heldout: int, level: float | None
) -> None:
    lut = make_lut(1, heldout)
    prediction = lut.latency_model.predict(lut.models[0].blocks, 0)
    assert prediction.level == level
    assert prediction.low < prediction.ms < prediction.high
    assert prediction.ms == pytest.approx(lut.models[0].ms, rel=0.05)


def test_keys_that_no_model_held_are_weak(make_lut: Callable[..., Lut]) -> None:
    lut = make_lut(1)
    unheld = lut.entries[0].model_copy(update={"method": "prior"})
    latency = LatencyModel.of(lut.meta, (unheld, *lut.entries[1:]), lut.models)
    assert latency.predict([unheld.key], 0).weak_keys == (unheld.key,)


def test_uncertain_block_is_weak_unless_held_out_models_have_it(make_lut: Callable[..., Lut]) -> None:
    lut = make_lut(1, heldout=12)
    held = next(row for row in lut.models if row.split == "heldout")
    bad = [entry.model_copy(update={"ci_high": 10 * lut.meta.reference_ms}) for entry in lut.entries]
    weak = LatencyModel.of(lut.meta, bad, lut.models).costs
    assert not any(weak[key].weak for key in held.blocks)
    fitted = [row for row in lut.models if row.split == "fit"]
    assert all(cost.weak for cost in LatencyModel.of(lut.meta, bad, fitted).costs.values())


def test_held_out_truth_lies_within_predictions(make_lut: Callable[..., Lut]) -> None:
    lut = make_lut(2, 24)
    assert isinstance(lut.meta.conformal, Conformal)
    latency = lut.latency_model
    held = [row for row in lut.models if row.split == "heldout"]
    inside = [
        prediction.low <= row.ms <= prediction.high
        for row, prediction in ((row, latency.predict(row.blocks, 0)) for row in held)
    ]
    assert np.mean(inside) >= 0.95


def test_two_runs_of_the_same_device_overlap(make_lut: Callable[..., Lut]) -> None:
    diff = diff_luts(make_lut(3), make_lut(4))
    assert diff.overlap_share is not None
    assert diff.overlap_share >= 0.95
    assert diff.reference_ratios[1] is not None
    assert diff.missing == ((), ())


def test_bound_uses_the_best_evidence() -> None:
    blocks, errors = ["a", "b", "w"], tuple(-0.05 + 0.01 * i for i in range(20))
    known = LatencyModel(0.5, 0.25, COSTS, 0.3, 0.95, errors)
    arm = 2.0 * 1.6448536 / 1.9599640
    assert known.bound_ms(blocks, 0, 0.95) == pytest.approx(7.5 * (1 + errors[19]) + arm)
    assert known.bound_ms(["a"], 0, 0.5) == pytest.approx(1.5 * (1 + errors[10]))
    assert known.bound_ms(["a"], 0, 0.975) == pytest.approx(1.5 * 1.3)
    assert known.bound_ms(["a"], 0, 0.98) == known.margin(0.98).arms_ms["a"] + 1.5
    assert model(0.3).bound_ms(["a"], 0, 0.95) == pytest.approx(1.5 * 1.3)
    assert model(None).bound_ms(["a"], 0, 0.975) == pytest.approx(1.6)


def test_bound_never_lies_below_the_prediction() -> None:
    pessimist = LatencyModel(0.5, 0.25, COSTS, 0.3, 0.95, (-0.2,) * 30)
    assert pessimist.bound_ms(["a"], 0, 0.95) == pytest.approx(1.5)


def test_bound_holds_as_often_as_it_says() -> None:
    """Calibrated on 40 held-out errors that are skewed, then tried on new ones; 1,000 times over."""
    generator = np.random.default_rng(3)
    held = 0
    for _ in range(1000):
        errors = generator.exponential(0.05, 41) - 0.03
        bound = LatencyModel(0.0, 0.0, COSTS, 0.2, 0.95, tuple(sorted(errors[:40]))).bound_ms(["b"], 0, 0.9)
        held += 2.0 * (1 + errors[40]) <= bound
    assert 0.88 < held / 1000 < 0.94
