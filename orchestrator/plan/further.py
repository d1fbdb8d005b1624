"""Which networks to measure next, once some are measured.

The criterion is that of `design.py`, under the sources that have fitted the rows so far: those that they contradict
were dropped, and where none is left physics takes their place. How far entries stray from the sources stays at what
is usual: in a simulation strengths learned from 5 to 17 networks chose networks that predicted a tenth worse.
Held-out networks are among neither the rows nor the candidates.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import replace

from luts.estimate.expected import Expectation
from orchestrator.plan.design import choose_design
from orchestrator.plan.features import features_of_plan
from orchestrator.plan.plan import Plan, PlanModel, model_id
from search.spaces import get_space

AT_FIRST = 4
"""Design networks beside the reference before any is chosen anew: fewer hardly tell which sources fit."""

EACH_TIME = 3
"""Networks chosen at a time: one batch beside the reference."""

CANDIDATES = 600
"""Random architectures that they are chosen among."""


def begun(plan: Plan) -> tuple[Plan, int]:
    """The plan with its first design networks alone, and how many are left to choose."""
    design = [model for model in plan.models if model.role == "design"]
    later = {model.model_id for model in design[AT_FIRST:]}
    return replace(plan, models=tuple(m for m in plan.models if m.model_id not in later)), len(later)


def further(plan: Plan, expectation: Expectation, failed: Collection[str], count: int) -> list[PlanModel]:
    """New design networks in order of what they tell; fewer where the space has no more.

    Args:
        plan: All networks so far, held-out ones and those that failed among them.
        expectation: With the sources that are left.
        failed: Ids of networks that tell nothing.
        count: How many.
    """
    space = get_space(plan.space).with_classes(plan.classes)
    rng = random.Random(f"{plan.digest}:further")
    known = {model.model_id for model in plan.models}
    drawn = dict.fromkeys(space.sample(rng, plan.resolutions) for _ in range(CANDIDATES))
    archs = [(arch, keys) for arch in drawn if model_id(keys := arch.keys()) not in known]
    fitted = [m.blocks for m in plan.models if m.role != "heldout" and m.model_id not in failed]
    chosen = choose_design(
        features_of_plan(plan),
        expectation,
        measured=fitted,
        candidates=[keys for _, keys in archs],
        count=min(count, len(archs)),
    )
    return [PlanModel(model_id(archs[i][1]), archs[i][0].to_json(), archs[i][1], "design") for i in chosen]
