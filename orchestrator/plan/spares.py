"""A plan without models that can't be exported, and the models that take their places."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

from luts.estimate.expected import Expectation
from orchestrator.plan.design import choose_design
from orchestrator.plan.features import features_of_plan
from orchestrator.plan.plan import Plan, PlanModel, Role, model_id
from search.spaces import Arch, get_space

DRAWS = 500
"""Random architectures among which spares are picked."""

GIVEN_UP = 2
"""After so many models that failed, and none that did not, a block is in no spare."""


def without(plan: Plan, failed: Collection[str]) -> Plan:
    """The plan of what is left: where the reference failed, the first whole network takes its place.

    A removal or swap whose base failed is a design model. `plan.models` may be empty.
    """
    left = [_alone(model) if model.base_id in failed else model for model in plan.models]
    left = [model for model in left if model.model_id not in failed]
    if left and left[0].role != "reference":
        fit = [model for model in left if model.arch and model.role != "heldout"]
        if not fit:
            return replace(plan, models=())
        left.remove(fit[0])
        left.insert(0, replace(fit[0], role="reference", base_id="", removed_key=""))
    return replace(plan, models=tuple(left))


def _alone(model: PlanModel) -> PlanModel:
    return replace(model, role="design", base_id="", removed_key="")


def spares(
    plan: Plan, failed: Collection[str], lately: Sequence[PlanModel], expectation: Expectation
) -> list[PlanModel]:
    """As many new models as whole networks failed lately, as far as the space has some.

    Removals and swaps get none: what they tell of a block the joint fit has of the others.

    Args:
        plan: With the spares that there are already.
        failed: Ids of all its models that failed.
        lately: Those of them that have no spare yet.
        expectation: What blocks are expected to cost.
    """
    lost = Counter("heldout" if model.role == "heldout" else "design" for model in lately if model.arch)
    space = get_space(plan.space).with_classes(plan.classes)
    rng = random.Random(f"{plan.digest}:spares")
    avoided = _avoided(plan, failed)
    known = {model.model_id for model in plan.models}
    drawn = dict.fromkeys(space.sample(rng, plan.resolutions) for _ in range(DRAWS))
    fresh = [(arch, keys) for arch in drawn if not avoided & set(keys := arch.keys())]
    fresh = [(arch, keys) for arch, keys in fresh if model_id(keys) not in known]
    heldout, candidates = fresh[: lost["heldout"]], fresh[lost["heldout"] :]
    chosen = choose_design(
        features_of_plan(plan),
        expectation,
        measured=[model.blocks for model in plan.models if model.model_id not in failed],
        candidates=[keys for _, keys in candidates],
        count=min(lost["design"], len(candidates)),
    )
    designed = [candidates[index] for index in chosen]
    return [_model(arch, "design") for arch, _ in designed] + [_model(arch, "heldout") for arch, _ in heldout]


def _model(arch: Arch, role: Role) -> PlanModel:
    blocks = arch.keys()
    return PlanModel(model_id(blocks), arch.to_json(), blocks, role)


def _avoided(plan: Plan, failed: Collection[str]) -> set[str]:
    """Blocks that stand in several models that failed and in none of the others."""
    able = {key for model in plan.models if model.model_id not in failed for key in model.blocks}
    blamed = Counter(key for model in plan.models if model.model_id in failed for key in set(model.blocks))
    return {key for key, times in blamed.items() if times >= GIVEN_UP} - able
