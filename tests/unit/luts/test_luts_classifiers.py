"""A LUT used for another number of classes than was profiled, on made-up devices whose truth is known."""

import random
from functools import cache

import numpy as np
import pytest

from luts.build import build_lut
from luts.estimate.latencies import LatencyEstimates
from luts.format.errors import UsageError
from luts.format.lut import Lut
from orchestrator.plan.build import make_plan
from orchestrator.plan.plan import NETWORKS_PER_HEAD as NETWORKS_A_HEAD
from orchestrator.plan.plan import classifier_note, features_of_plan, with_classifier_prices, with_heads
from orchestrator.simulate.device import GroundTruth, TrueCosts
from search.blocks import boundary_bytes, parse_keys
from search.spaces import Arch, get_space
from search.spaces.scope import covered_space
from tests.support.lut_world import lut_inputs, model_spec, simulate

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


def test_intervals_of_other_classes_hold_what_networks_take():
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


def test_a_plan_without_further_heads_is_what_it_was():
    plan = make_plan(SPACE, design=2, heldout=2, removals="none")
    assert with_heads(plan, (plan.classes,)).digest == with_heads(plan, ()).digest == plan.digest


def test_only_classifiers_are_priced_anew():
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
    with pytest.raises(UsageError, match="0 classes; give 1 or more"):
        with_classifier_prices(lut, 0)
    assert covered_space(with_classifier_prices(lut, 10)).default_classes == 1000
