"""Plans cover a space, remove what can be removed, hold out what they say, and replace models that fail."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from luts.estimate.design import TYPICAL_DEVICE
from luts.estimate.joint import fit_entries
from luts.estimate.likelihood import FitData
from orchestrator.plan.build import make_plan, remove_failed, replacement_models
from orchestrator.plan.plan import Plan, features_of, model_id
from orchestrator.plan.sizing import plan_of_size
from search.blocks import check_chain, parse_key, parse_keys
from search.spaces import get_arch, get_space
from search.spaces.registry import arch_from_json
from tests.support.errors import raises


@pytest.fixture(scope="module")
def plan():
    return make_plan(get_space("autovit-nano"))


def test_every_block_is_fitted(plan):
    assert plan.covered_keys() == {spec.key for spec in get_space("autovit-nano").block_specs()}


def test_removals_cover_removable_blocks(plan):
    models = {model.model_id: model for model in plan.models}
    removed = set()
    for model in plan.models:
        if model.role != "removal":
            continue
        missing = Counter(models[model.base_id].blocks)
        missing.subtract(model.blocks)
        assert {key: n for key, n in missing.items() if n} == {model.removed_key: 1}
        removed.add(model.removed_key)
    assert removed == {s.key for s in get_space("autovit-nano").block_specs() if s.removable}


def test_swaps_are_small(plan):
    models = {model.model_id: model for model in plan.models}
    shown = set()
    for model in plan.models:
        if model.role != "swap":
            continue
        mine, base = Counter(model.blocks), Counter(models[model.base_id].blocks)
        assert model.removed_key in base - mine
        assert len(list((base - mine).elements())) <= 5
        shown |= set(base - mine) | set(mine - base)
    assert {s.key for s in get_space("autovit-nano").block_specs() if not s.removable} <= shown


def test_models_are_distinct_valid_networks(plan):
    assert len({model.model_id for model in plan.models}) == len(plan.models)
    for model in plan.models:
        check_chain(parse_keys(model.blocks))
        assert model.model_id == model_id(model.blocks)
        if model.arch:
            assert arch_from_json(model.arch).keys() == model.blocks


def test_fifth_is_held_out(plan):
    heldout = sum(model.role == "heldout" for model in plan.models)
    assert abs(heldout / len(plan.models) - 0.2) < 0.03
    assert plan.reference.role == "reference"


def test_plans_are_seeded(plan):
    space = get_space("autovit-nano")
    assert make_plan(space) == plan
    assert make_plan(space).digest == plan.digest
    assert make_plan(space, seed=1).digest != plan.digest


def test_plans_of_a_seed_stay_the_same():
    """Otherwise interrupted measurements could not resume: see `planning_features`."""
    assert make_plan(get_space("autovit-nano")).digest == (
        "a1c33a8907728069faed3988088ff48e4afed51ba8103f30e8bd47cc2c54e923"
    )
    assert plan_of_size(get_space("autovit-xxs"), 12, resolutions=None, seed=0).digest == (
        "2de1cff20f2f5dfa65e78d93af1acfcfdceb966556ca768c028af4e6ffcc001a"
    )


def test_sizes_can_be_chosen():
    plan = make_plan(get_space("autovit-nano"), design=3, heldout=2, removals="reference")
    roles = Counter(model.role for model in plan.models)
    removable = {key for key in plan.reference.blocks if parse_key(key).removable}
    assert roles.pop("swap") <= len(set(plan.reference.blocks) - removable)
    assert roles == {"reference": 1, "removal": len(removable), "design": 3, "heldout": 2}
    assert Counter(m.role for m in make_plan(get_space("autovit-nano"), removals="none").models)["base"] == 0


def test_published_network_is_the_reference():
    plan = make_plan(get_space("autovit-xxs"), design=0, heldout=0, removals="none")
    assert plan.reference.blocks == get_arch("autovit-xxs-paper").keys()


def _prediction_error(space, models, test, seed):
    """MAPE of the joint fit of `models` on `test`, on a made-up device where entries stray 15 % from physics."""
    generator = np.random.default_rng(seed)
    features = features_of(space.block_specs())
    common = TYPICAL_DEVICE.common
    speed = (common.constant_ms, common.ms_per_mmac, common.ms_per_mib) * np.exp(generator.normal(0, 0.5, 3))
    truth = {
        key: float(speed @ (1, f.macs / 1e6, f.traffic_bytes / 2**20) * np.exp(generator.normal(0, 0.15)))
        for key, f in features.items()
    }

    def ms(entry_ms, blocks, base_ms):
        return base_ms + sum(entry_ms[key] for key in blocks)

    rows_ms = np.array([ms(truth, blocks, 0.01) for blocks in models])
    rows_ms *= np.exp(generator.normal(0, 0.006, len(rows_ms)))
    noise = 0.0045**2 * np.eye(len(rows_ms))
    fit = fit_entries(FitData(rows_ms, noise, tuple(models), np.zeros(len(rows_ms))), features)
    entries = dict(zip(fit.keys, fit.ms, strict=True))
    return np.mean([abs(ms(entries, b, fit.base_ms) / ms(truth, b, 0.01) - 1) for b in test])


def test_the_design_predicts_better_than_random_models():
    space = get_space("autovit-nano")
    gain = {12: [], 24: []}
    for seed in range(3):
        models = make_plan(space, design=23, heldout=223, removals="none", seed=seed).models
        blocks = [model.blocks for model in models]
        chosen, drawn, test = blocks[:24], blocks[:1] + blocks[24:47], blocks[47:]
        for count in gain:
            ours, theirs = (_prediction_error(space, rows[:count], test, seed) for rows in (chosen, drawn))
            gain[count].append(theirs / ours)
    assert np.mean(gain[12]) > 1.1
    assert np.mean(gain[24]) > 1.2


def test_designs_are_nested():
    space = get_space("autovit-nano")
    short, long = (make_plan(space, design=n, heldout=0, removals="none").models for n in (5, 9))
    assert long[: len(short)] == short


def test_refused_plans():
    with raises("unknown_resolution"):
        make_plan(get_space("autovit-nano"), resolutions=(100,))
    with raises("space_too_small"):
        make_plan(get_space("autovit-nano"), heldout=3000)


@pytest.fixture(scope="module")
def small() -> Plan:
    return make_plan(get_space("autovit-nano"), removals="reference", design=4, heldout=3)


def of(plan: Plan, role: str) -> list:
    return [model for model in plan.models if model.role == role]


def spared(plan: Plan, *failed) -> list:
    return replacement_models(plan, {model.model_id for model in failed}, failed, TYPICAL_DEVICE)


def test_replacements_are_new_networks(small) -> None:
    failed = (*of(small, "design")[:2], of(small, "heldout")[0], of(small, "removal")[0])
    taken = spared(small, *failed)
    assert [model.role for model in taken] == ["design", "design", "heldout"]
    assert not {model.model_id for model in taken} & {model.model_id for model in small.models}
    for model in taken:
        check_chain(parse_keys(model.blocks))
    assert spared(small, *failed) == taken


def test_replacements_avoid_failing_blocks(small) -> None:
    counts = [key for model in of(small, "design") for key in set(model.blocks)]
    key = next(key for key in counts if sum(key in model.blocks for model in small.models) >= 2)
    failed = [model for model in small.models if key in model.blocks and model.arch]
    only = replace(small, models=tuple(m for m in small.models if m.arch or key not in m.blocks))
    assert len(failed) >= 2
    taken = spared(only, *failed)
    assert taken
    assert not any(key in model.blocks for model in taken)


def test_failed_reference_is_replaced(small) -> None:
    left = remove_failed(small, {small.reference.model_id})
    first = next(model for model in small.models[1:] if model.arch and model.role != "heldout")
    assert left.reference.model_id == first.model_id
    assert [model.role for model in left.models].count("reference") == 1
    assert (left.reference.base_id, left.reference.removed_key) == ("", "")
    assert not any(model.base_id == small.reference.model_id for model in left.models)
    assert {model.model_id for model in left.models} == {model.model_id for model in small.models[1:]}


def test_a_whole_plan_stays_as_it_is(small) -> None:
    assert remove_failed(small, set()) == small


def test_without_any_network_to_fit_nothing_is_left(small) -> None:
    assert remove_failed(small, {m.model_id for m in small.models if m.role != "heldout"}).models == ()
