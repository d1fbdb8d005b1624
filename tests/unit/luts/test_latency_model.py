"""Predictions of a LUT, and LUTs used for other numbers of classes."""

import math
import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from luts.build import build_lut
from luts.estimate.latencies import LatencyEstimates
from luts.format.latency import EntryCost, LatencyModel, Prediction, latency_ms
from luts.format.lut import Lut
from orchestrator.plan.build import make_plan
from orchestrator.plan.plan import NETWORKS_PER_HEAD as NETWORKS_A_HEAD
from orchestrator.plan.plan import classifier_note, features_of_plan, with_classifier_prices, with_heads
from orchestrator.simulate.device import GroundTruth, TrueCosts
from search.blocks import boundary_bytes, parse_keys
from search.spaces import Arch, get_space
from search.spaces.scope import covered_space
from tests.support.errors import raises
from tests.support.lut_world import lut_inputs, make_study, make_world, model_spec, simulate

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


def test_unknown_key_is_refused() -> None:
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
        return study.lut()

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


def test_key_of_no_model_is_weak(make_lut: Callable[..., Lut]) -> None:
    lut = make_lut(1)
    unheld = lut.entries[0].model_copy(update={"method": "prior"})
    latency = LatencyModel.of(lut.meta, (unheld, *lut.entries[1:]), lut.models)
    assert latency.predict([unheld.key], 0).weak_keys == (unheld.key,)


def test_uncertain_block_is_weak(make_lut: Callable[..., Lut]) -> None:
    lut = make_lut(1, heldout=12)
    held = next(row for row in lut.models if row.split == "heldout")
    bad = [entry.model_copy(update={"ci_high": 10 * lut.meta.reference_ms}) for entry in lut.entries]
    weak = LatencyModel.of(lut.meta, bad, lut.models).costs
    assert not any(weak[key].weak for key in held.blocks)
    fitted = [row for row in lut.models if row.split == "fit"]
    assert all(cost.weak for cost in LatencyModel.of(lut.meta, bad, fitted).costs.values())


@pytest.mark.parametrize(
    ("ms", "half", "weak"),
    [
        (0.001, 0.0005, False),  # 50 % of itself, 0.05 % of the reference: too small to matter
        (1.0, 0.1, False),  # 10 % of the reference, and of itself
        (0.1, 0.05, True),  # 50 % of itself, 5 % of the reference
    ],
)
def test_weak_is_uncertain_and_large_enough_to_matter(
    make_lut: Callable[..., Lut], ms: float, half: float, weak: bool
) -> None:
    """In units of the reference's latency; without held-out networks, so that none represents the block."""
    lut = make_lut(1)
    unit = lut.meta.reference_ms
    given = {"ms": ms * unit, "ci_low": (ms - half) * unit, "ci_high": (ms + half) * unit}
    entry = lut.entries[0].model_copy(update={**given, "method": "design"})
    assert LatencyModel.of(lut.meta, (entry, *lut.entries[1:]), lut.models).costs[entry.key].weak is weak


def test_held_out_errors_are_relative_to_predictions(make_lut: Callable[..., Lut]) -> None:
    lut = make_lut(1, heldout=12)
    fitted = [row for row in lut.models if row.split == "fit"]
    held = next(row for row in lut.models if row.split == "heldout")
    ms = lut.latency_model.predict(held.blocks, held.boundary_bytes).ms
    rows = [held.model_copy(update={"ms": factor * ms}) for factor in (1.25, 0.8)]
    errors = LatencyModel.of(lut.meta, lut.entries, [*fitted, *rows]).heldout_errors
    assert errors == pytest.approx((-0.2, 0.25))


def test_width_for_another_device_adds_in_quadrature() -> None:
    own = Prediction(ms=2.0, low=1.5, high=2.0 * math.exp(0.3), level=None, weak_keys=())
    other = own.for_other_device(0.4 / 1.96)
    assert (other.low, other.high) == pytest.approx((2.0 * math.exp(-0.5), 2.0 * math.exp(0.5)))
    assert (other.ms, other.level, other.basis) == (2.0, 0.95, "spread")


def test_bound_uses_the_best_evidence() -> None:
    blocks, errors = ["a", "b", "w"], tuple(-0.05 + 0.01 * i for i in range(20))
    known = LatencyModel(0.5, 0.25, COSTS, 0.3, 0.95, errors)
    arm = 2.0 * 1.6448536 / 1.9599640
    assert known.bound_ms(blocks, 0, 0.95) == pytest.approx(7.5 * (1 + errors[19]) + arm)
    assert known.bound_ms(["w", "w"], 0, 0.95) == pytest.approx(8.5 * (1 + errors[19]) + 2 * arm)
    assert known.bound_ms(["a"], 0, 0.5) == pytest.approx(1.5 * (1 + errors[10]))
    assert known.bound_ms(["a"], 0, 0.975) == pytest.approx(1.5 * 1.3)
    assert known.bound_ms(["a"], 0, 0.98) == known.margin(0.98).arms_ms["a"] + 1.5
    assert model(0.3).bound_ms(["a"], 0, 0.95) == pytest.approx(1.5 * 1.3)
    assert model(None).bound_ms(["a"], 0, 0.975) == pytest.approx(1.6)


def test_bound_for_another_device_by_hand() -> None:
    """Errors up to 14 %, devices that differ by exp(0.2) at this confidence: in quadrature; arms grow by that."""
    errors = tuple(-0.05 + 0.01 * i for i in range(20))
    other = LatencyModel(0.5, 0.25, COSTS, 0.3, 0.95, errors, device_log_sd=0.2 / 1.6448536)
    relative = math.exp(math.hypot(math.log(1.14), 0.2))
    arm = 2.0 * 1.6448536 / 1.9599640 * math.exp(0.2)
    assert other.bound_ms(["a", "b", "w"], 0, 0.95) == pytest.approx(7.5 * relative + arm)


def test_bound_is_not_below_the_prediction() -> None:
    pessimist = LatencyModel(0.5, 0.25, COSTS, 0.3, 0.95, (-0.2,) * 30)
    assert pessimist.bound_ms(["a"], 0, 0.95) == pytest.approx(1.5)


def test_bound_has_its_coverage() -> None:
    """Calibrated on 40 held-out errors that are skewed, then tried on new ones; 1,000 times over."""
    generator = np.random.default_rng(3)
    held = 0
    for _ in range(1000):
        errors = generator.exponential(0.05, 41) - 0.03
        bound = LatencyModel(0.0, 0.0, COSTS, 0.2, 0.95, tuple(sorted(errors[:40]))).bound_ms(["b"], 0, 0.9)
        held += 2.0 * (1 + errors[40]) <= bound
    assert 0.88 < held / 1000 < 0.94


SPACE = get_space("autovit-nano")
SEEDS, NETWORKS_PER_HEAD = 4, 20


@cache
def profiled(seed: int, heads: tuple[int, ...] = ()) -> Lut:
    """Of 1000 classes and a device that strays 15 % from physics, each classifier in its own way."""
    space = SPACE.with_classes(1000)
    plan = with_heads(make_plan(space, design=20, heldout=20, removals="none", seed=seed), heads)
    truth = GroundTruth(TrueCosts(seed=seed))
    specs = [
        model_spec(m.model_id, m.blocks, m.role, boundary_bytes(parse_keys(m.blocks))) for m in plan.models
    ]
    latency = {model.model_id: float(np.log(truth.latency_ms(model.blocks))) for model in plan.models}
    names = [model.model_id for model in plan.models[1:]]
    samples = simulate(latency, plan.reference.model_id, [names], np.random.default_rng(seed), rounds=10)
    inputs = lut_inputs().model_copy(
        update={"space": space.name, "space_hash": space.digest, "reference_id": plan.reference.model_id}
    )
    estimation = LatencyEstimates.of(samples, plan.reference.model_id)
    return build_lut(inputs, specs, estimation, features_of_plan(plan))


def true_ms(lut: Lut, seed: int, arch: Arch) -> float:
    """In milliseconds of the LUT's reference, as `bench validate` compares."""
    truth = GroundTruth(TrueCosts(seed=seed))
    return lut.meta.reference_ms * truth.latency_ms(arch.keys()) / truth.latency_ms(lut.reference.blocks)


def test_intervals_for_other_classes_cover_the_truth():
    """95 % intervals of 1000 classes' LUTs, for 10: no fewer hold the truth, and the error is far below theirs."""
    within, errors = [], []
    for seed in range(SEEDS):
        lut = with_classifier_prices(profiled(seed), 10)
        rng = random.Random(seed)
        for _ in range(NETWORKS_PER_HEAD):
            arch = covered_space(lut, 10).sample(rng)
            predicted, ms = lut.predict(arch), true_ms(lut, seed, arch)
            within.append(predicted.low <= ms <= predicted.high)
            errors.append(abs(predicted.ms / ms - 1))
            assert predicted.weak_keys[-1] == arch.keys()[-1]
    assert np.mean(within) >= 0.93
    assert np.mean(errors) < 0.03


def test_measured_classifiers_narrow_intervals():
    """`bench profile --heads 10,1000`: a few networks more, which differ from others in the classifier alone."""
    plain, lut = profiled(0), profiled(0, (10, 1000))
    extra = {m.model_id for m in lut.models} - {m.model_id for m in plain.models}
    heads = {
        key for model in lut.models if model.model_id in extra for key in model.blocks if "classes=10)" in key
    }
    assert 1 < len(extra) == len(heads) <= NETWORKS_A_HEAD
    known = {entry.key: entry for entry in lut.entries}
    assert {known[key].method for key in heads} == {"design"}
    assert covered_space(lut).default_classes == 1000
    rng, widths, errors = random.Random(0), [], []
    for _ in range(NETWORKS_PER_HEAD):
        arch = covered_space(with_classifier_prices(lut, 10), 10).sample(rng)
        both = [
            (with_classifier_prices(each, 10).predict(arch), true_ms(each, 0, arch)) for each in (plain, lut)
        ]
        widths.append([(predicted.high - predicted.low) / ms for predicted, ms in both])
        errors.append([abs(predicted.ms / ms - 1) for predicted, ms in both])
    assert np.mean(widths, axis=0)[1] < np.mean(widths, axis=0)[0]
    assert np.mean(errors, axis=0)[1] < np.mean(errors, axis=0)[0]


def test_half_width_is_the_longer_arm():
    lut = profiled(0)
    arms = {"low": {"ci_low": 0.5, "ci_high": 1.2}, "high": {"ci_low": 0.8, "ci_high": 1.5}}
    for longer, ends in arms.items():
        entry = lut.entries[0].model_copy(update={"ms": 1.0, **ends})
        priced = LatencyModel.of(lut.meta, (entry, *lut.entries[1:]), lut.models)
        assert priced.costs[entry.key].half_width_ms == 0.5, longer


def test_extra_heads_are_of_fitted_networks():
    plan = make_plan(SPACE, design=6, heldout=6, removals="none")
    first, *others = plan.models
    turned = replace(plan, models=(first, *reversed(others)))
    fitted = {model.blocks[:-1] for model in plan.models if model.role != "heldout"}
    added = with_heads(turned, (plan.classes + 90,)).models[len(plan.models) :]
    assert added
    assert fitted >= {model.blocks[:-1] for model in added}


def test_plan_without_extra_heads_is_unchanged():
    plan = make_plan(SPACE, design=2, heldout=2, removals="none")
    assert with_heads(plan, (plan.classes,)).digest == with_heads(plan, ()).digest == plan.digest


def test_only_classifiers_get_new_prices():
    lut = profiled(0)
    for classes in (10, 5000):
        priced = with_classifier_prices(lut, classes)
        known = {entry.key: entry for entry in priced.entries}
        assert all(known[entry.key] == entry for entry in lut.entries)
        added = [entry for entry in priced.entries if entry not in lut.entries]
        assert {entry.method for entry in added} == {"prior"}
        assert {entry.key for entry in added} == {
            entry.key.replace("classes=1000", f"classes={classes}")
            for entry in lut.entries
            if entry.kind.startswith("head.")
        }
        for entry in added:
            sibling = known[entry.key.replace(f"classes={classes}", "classes=1000")]
            assert (entry.ms <= sibling.ms) if classes < 1000 else (entry.ms >= sibling.ms)
            assert entry.ci_low <= entry.ms <= entry.ci_high
        assert f"classifiers of 1000 classes; those of {classes} follow from its physics" in classifier_note(
            lut, priced, classes
        )


def test_unchanged_lut_where_nothing_is_missing():
    lut = profiled(0)
    assert with_classifier_prices(lut, 1000) is lut
    assert classifier_note(lut, lut, 1000) == ""
    older = Lut(lut.meta.model_copy(update={"space_hash": "0" * 64}), lut.entries, lut.models, lut.samples)
    assert with_classifier_prices(older, 10) is older
    with raises("bad_classes"):
        with_classifier_prices(lut, 0)
    assert covered_space(with_classifier_prices(lut, 10)).default_classes == 1000
