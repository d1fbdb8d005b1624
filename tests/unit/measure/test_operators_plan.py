"""The plan of a table of operators: designed programs and networks, the same ones for the same arguments."""

import json
from collections import Counter
from typing import Any

import pytest
from timm.models._registry import _model_to_module

from luts.estimate.design import TYPICAL_DEVICE
from luts.format.errors import UsageError
from luts.format.operators import OPERATORS, parse_operator
from luts.format.store import LutStore
from orchestrator.export.artifacts.spec import Variant
from orchestrator.export.lower.programs import CHAINS, PORTABLE
from orchestrator.plan.operators import (
    DESIGNED,
    MEASURED_NETWORKS,
    NETWORKS,
    SIZES_EACH,
    designed_programs,
    plan_operators,
)
from orchestrator.plan.plan import Plan, PlanModel, Policy, features_of_plan, model_id
from orchestrator.tasks.exported_plan import export_plan
from orchestrator.tasks.plan import PlanOptions, ProfileCommand, choose_plan, plan_profile
from orchestrator.tasks.progress import silent
from orchestrator.tasks.target import Target
from tests.support.errors import raises


def programs(plan: Plan) -> list[str]:
    return [model.program for model in plan.models]


def test_default_plan_has_each_kind_outside_the_delegate_once() -> None:
    plan = plan_operators(0)
    assert len(plan.models) == 108
    families = Counter(family for family, _ in designed_programs(DESIGNED, 0))
    assert {kind: families[f"portable.{kind}"] for kind in PORTABLE} == dict.fromkeys(PORTABLE, 1)
    assert all(families[f"chain.{kind}"] for kind in CHAINS)


def test_whole_suite_has_each_kind_in_its_number_and_networks_of_other_families() -> None:
    plan = plan_operators(0, 180)
    families = Counter(json.loads(model.arch)["family"] for model in plan.models)
    expected = {f"chain.{kind}": chain[0] for kind, chain in CHAINS.items()}
    expected |= {f"portable.{kind}": SIZES_EACH for kind in PORTABLE}
    expected |= dict.fromkeys([family for family, _ in NETWORKS[:MEASURED_NETWORKS]], 1)
    assert all(own == _model_to_module[name] for own, name in NETWORKS)
    assert families == expected
    assert len(set(programs(plan))) == len({model.model_id for model in plan.models}) == 220
    assert plan.reference.program == "timm:mobilenetv3_small_100"
    assert {model.role for model in plan.models[1:]} == {"design"}
    assert plan.digest == plan_operators(0, 180).digest


def test_fewer_programs_begin_the_list_of_more() -> None:
    few, many = designed_programs(30, 0), designed_programs(300, 0)
    assert many[:30] == few
    assert {family for family, _ in few} >= {
        "chain.pointwise",
        "chain.depthwise",
        "chain.dense",
        "chain.linear",
    }
    assert len(set(many)) == 300
    assert set(designed_programs(180, 0)).isdisjoint(designed_programs(180, 1))


@pytest.mark.parametrize(
    ("designed", "models", "expected"),
    [(None, None, (68, 40)), (10, None, (10, 40)), (None, 54, (34, 20)), (4, 5, (4, 1)), (0, 3, (0, 3))],
)
def test_sizes(designed: int | None, models: int | None, expected: tuple[int, int]) -> None:
    names = programs(plan_operators(0, designed, models))
    networks = sum(name.startswith("timm:") for name in names)
    assert (len(names) - networks, networks) == expected


@pytest.mark.parametrize(("designed", "models"), [(5, 5), (1, 2), (0, 200), (None, 1)])
def test_sizes_without_a_network_or_with_more_than_there_are(designed: int | None, models: int) -> None:
    with raises("bad_plan_size", UsageError):
        plan_operators(0, designed, models)


def test_features_follow_from_the_operators_of_exported_models() -> None:
    plan = plan_operators(0, 2, 3)
    assert features_of_plan(plan) == {}
    keys = ("gemm(m=4,k=2,n=3)", "softmax(m=4,n=3)")
    model = PlanModel(plan.reference.model_id, plan.reference.arch, keys, "reference")
    exported = Plan(OPERATORS, plan.space_digest, 0, (), 0, (model,))
    assert features_of_plan(exported) == {key: parse_operator(key).features for key in keys}


def command(**options: Any) -> ProfileCommand:
    return ProfileCommand(space=OPERATORS, target=Target("simulated:quiet"), **options)


@pytest.mark.parametrize(
    "given", [{"resolutions": (64,)}, {"classes": 10}, {"heads": (10,)}, {"heldout": 0}, {"removals": "all"}]
)
def test_options_of_search_spaces_are_refused(given: dict[str, Any], tmp_path) -> None:
    with raises("option_does_not_apply", UsageError) as caught:
        choose_plan(command(plan=PlanOptions(**given)), Policy(), 900, LutStore([tmp_path]))
    assert "--design, --models and --seed alone" in str(caught.value)


def test_a_forecast_has_times_but_no_entries(tmp_path) -> None:
    planned = plan_profile(command(store=LutStore([tmp_path])))
    document = json.loads(json.dumps(planned.to_dict()))
    assert document["models"] == {"reference": 1, "design": 107}
    assert document["blocks"] == []
    assert 0 < document["device_s"] < 900
    assert "known once they are exported" in planned.facts()["entries"]


def test_other_runtimes_operators_are_not_known() -> None:
    with raises("unknown_operators", UsageError):
        export_plan(plan_operators(0, 2, 3), Variant.parse("coreml-fp16-all"), TYPICAL_DEVICE, 1, silent)


def test_programs_are_told_from_architectures_of_a_space() -> None:
    plan = plan_operators(0, 2, 3)
    assert plan.reference.model_id == model_id(("timm:mobilenetv3_small_100",))
    assert PlanModel("0" * 12, '{"space":"autovit-nano"}', (), "design").program == ""
    assert PlanModel("0" * 12, "", (), "removal").program == ""


@pytest.mark.parametrize("seed", [-1, 10_000])
def test_seeds_outside_of_names_are_refused(seed: int) -> None:
    with raises("bad_seed", UsageError):
        plan_operators(seed)


def test_tables_of_operators_have_no_source_that_nobody_named(tmp_path) -> None:
    for named in (None, "none", "best"):
        planned = plan_profile(command(store=LutStore([tmp_path]), sources=named))
        assert planned.plan.space == OPERATORS
