"""Plans cover a space, remove what can be removed, hold out what they say, and repeat."""

from collections import Counter

import pytest

from luts.errors import UsageError
from orchestrator.measure.plan import make_plan, model_id
from search.blocks import check_chain, parse_key, parse_keys
from search.spaces import get_arch, get_space
from search.spaces.registry import arch_from_json


@pytest.fixture(scope="module")
def plan():
    return make_plan(get_space("autovit-nano"))


def test_every_block_of_the_space_is_in_a_fitted_model(plan):
    assert plan.covered_keys() == {spec.key for spec in get_space("autovit-nano").block_specs()}


def test_every_removable_block_is_removed_from_a_base_that_holds_it(plan):
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


def test_models_are_distinct_valid_networks(plan):
    assert len({model.model_id for model in plan.models}) == len(plan.models)
    for model in plan.models:
        check_chain(parse_keys(model.blocks))
        assert model.model_id == model_id(model.blocks)
        if model.arch:
            assert arch_from_json(model.arch).keys() == model.blocks


def test_a_fifth_is_held_out_and_the_reference_comes_first(plan):
    heldout = sum(model.role == "heldout" for model in plan.models)
    assert abs(heldout / len(plan.models) - 0.2) < 0.03
    assert plan.reference.role == "reference"


def test_the_same_arguments_give_the_same_plan_and_another_seed_another(plan):
    space = get_space("autovit-nano")
    assert make_plan(space) == plan
    assert make_plan(space).digest == plan.digest
    assert make_plan(space, seed=1).digest != plan.digest


def test_sizes_can_be_chosen():
    plan = make_plan(get_space("autovit-nano"), design=3, heldout=2, removals="reference")
    roles = Counter(model.role for model in plan.models)
    removable = {key for key in plan.reference.blocks if parse_key(key).removable}
    assert roles == {"reference": 1, "removal": len(removable), "design": 3, "heldout": 2}
    assert Counter(m.role for m in make_plan(get_space("autovit-nano"), removals="none").models)["base"] == 0


def test_the_published_network_is_the_reference_of_its_space():
    plan = make_plan(get_space("autovit-xxs"), design=0, heldout=0, removals="none")
    assert plan.reference.blocks == get_arch("autovit-xxs-paper").keys()


def test_the_design_beats_random_models_at_identifying_blocks():
    import numpy as np

    space = get_space("autovit-nano")
    keys = [spec.key for spec in space.block_specs()]

    def log_information(models):
        rows = np.array([[model.blocks.count(key) for key in keys] for model in models], dtype=float)
        return np.linalg.slogdet(rows.T @ rows + 0.1 * np.eye(len(keys)))[1]

    chosen = make_plan(space, design=20, heldout=0, removals="none").models
    drawn = make_plan(space, design=0, heldout=20, removals="none").models
    assert len(chosen) == len(drawn)
    assert log_information(chosen) > log_information(drawn) + 5


def test_a_foreign_resolution_and_too_many_models_are_refused():
    with pytest.raises(UsageError, match="no resolution 100"):
        make_plan(get_space("autovit-nano"), resolutions=(100,))
    with pytest.raises(UsageError, match="too few architectures"):
        make_plan(get_space("autovit-nano"), heldout=3000)
