"""Which networks to measure next, once some are measured: by what the fit has learned so far, not by what is usual.

The criterion is that of `design.py`. What the networks before have changed is which sources are left, how far
entries stray from them, and so where predictions are still wide. Held-out networks are among neither the rows nor
the candidates.
"""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np

from luts.estimate.posterior import Posterior, most_useful_first
from orchestrator.plan.design import TARGETS
from orchestrator.plan.plan import Plan, PlanModel, model_id
from search.spaces import get_space

AT_FIRST = 4
"""Design networks beside the reference before any is chosen anew: fewer tell a fit's strengths nothing."""

EACH_TIME = 3
"""Networks chosen at a time: one batch beside the reference."""

CANDIDATES = 600
"""Random architectures that they are chosen among."""


def begun(plan: Plan) -> tuple[Plan, int]:
    """The plan with its first design networks alone, and how many are left to choose."""
    design = [model for model in plan.models if model.role == "design"]
    later = {model.model_id for model in design[AT_FIRST:]}
    return replace(plan, models=tuple(m for m in plan.models if m.model_id not in later)), len(later)


def further(plan: Plan, posterior: Posterior, count: int) -> list[PlanModel]:
    """New design networks in order of what they tell; fewer where the space has no more.

    Args:
        plan: All networks so far, held-out ones and those that failed among them.
        posterior: After those that were measured; it learns the chosen ones.
        count: How many.
    """
    space = get_space(plan.space).with_classes(plan.classes)
    rng = random.Random(f"{plan.digest}:further")
    known = {model.model_id for model in plan.models}
    drawn = dict.fromkeys(space.sample(rng, plan.resolutions) for _ in range(CANDIDATES))
    archs = [(arch, keys) for arch in drawn if model_id(keys := arch.keys()) not in known]
    if not archs:
        return []
    rows = np.stack([posterior.row(keys) for _, keys in archs])
    chosen = most_useful_first(posterior, rows, rows[:TARGETS], min(count, len(archs)))
    return [PlanModel(model_id(archs[i][1]), archs[i][0].to_json(), archs[i][1], "design") for i in chosen]
