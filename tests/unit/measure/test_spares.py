"""What a plan is without some of its models, and which models take their places."""

from dataclasses import replace

import pytest

from luts.estimate.design import TYPICAL_DEVICE
from orchestrator.plan.build import make_plan, remove_failed, replacement_models
from orchestrator.plan.plan import Plan
from search.blocks import check_chain, parse_keys
from search.spaces import get_space


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(get_space("autovit-nano"), removals="reference", design=4, heldout=3)


def of(plan: Plan, role: str) -> list:
    return [model for model in plan.models if model.role == role]


def spared(plan: Plan, *failed) -> list:
    return replacement_models(plan, {model.model_id for model in failed}, failed, TYPICAL_DEVICE)


def test_replacements_are_new_networks(plan) -> None:
    taken = spared(plan, *of(plan, "design")[:2], of(plan, "heldout")[0], of(plan, "removal")[0])
    assert [model.role for model in taken] == ["design", "design", "heldout"]
    assert not {model.model_id for model in taken} & {model.model_id for model in plan.models}
    for model in taken:
        check_chain(parse_keys(model.blocks))
    assert spared(plan, *of(plan, "design")[:2], of(plan, "heldout")[0], of(plan, "removal")[0]) == taken


def test_replacements_avoid_failing_blocks(plan) -> None:
    counts = [key for model in of(plan, "design") for key in set(model.blocks)]
    key = next(key for key in counts if sum(key in model.blocks for model in plan.models) >= 2)
    failed = [model for model in plan.models if key in model.blocks and model.arch]
    only = replace(plan, models=tuple(m for m in plan.models if m.arch or key not in m.blocks))
    assert len(failed) >= 2
    taken = spared(only, *failed)
    assert taken
    assert not any(key in model.blocks for model in taken)


def test_failed_reference_is_replaced(
    plan,
) -> None:
    left = remove_failed(plan, {plan.reference.model_id})
    first = next(model for model in plan.models[1:] if model.arch and model.role != "heldout")
    assert left.reference.model_id == first.model_id
    assert [model.role for model in left.models].count("reference") == 1
    assert (left.reference.base_id, left.reference.removed_key) == ("", "")
    assert not any(model.base_id == plan.reference.model_id for model in left.models)
    assert {model.model_id for model in left.models} == {model.model_id for model in plan.models[1:]}


def test_a_whole_plan_stays_as_it_is(plan) -> None:
    assert remove_failed(plan, set()) == plan


def test_without_any_network_to_fit_nothing_is_left(plan) -> None:
    assert remove_failed(plan, {m.model_id for m in plan.models if m.role != "heldout"}).models == ()
