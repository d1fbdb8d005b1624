"""Which plan fits: a number of models, or the device time of a budget.

Removals and swaps tell single blocks, at the price of telling predictions little: in simulations with known truth
(`tests/unit/measure/test_plan.py`, and docs/lut.md) a design of 40 models predicts `autovit-xxs` within 1.0 %, one
of 80 within 0.6 %, removals alone within 2.2 and 1.6 %. So they are there where the whole plan fits, and where it
does not all models are design models.
"""

from __future__ import annotations

from dataclasses import replace

from luts.estimate.expected import TYPICAL, Expectation
from luts.format.errors import UsageError
from orchestrator.plan.build import MIN_HELDOUT, heldout_count, make_plan
from orchestrator.plan.forecast import plan_seconds
from orchestrator.plan.plan import Plan
from orchestrator.plan.policy import Policy
from search.spaces import Space

FEWEST = 16
"""Models below which a LUT says little more than MACs do. A budget too small for them gets them all the same."""


def plan_of_size(
    space: Space,
    models: int,
    *,
    resolutions: tuple[int, ...] | None,
    seed: int,
    expectation: Expectation = TYPICAL,
) -> Plan:
    """The plan of so many models that predicts best: with removals and swaps if they leave room for a design.

    Raises:
        UsageError: fewer than three models.
    """
    if models < 3:
        raise UsageError(f"--models {models}: a reference, a model to fit and one to hold out are three")
    whole = make_plan(space, resolutions=resolutions, seed=seed, expectation=expectation)
    if len(whole.models) > models:
        return _designed(space, models, resolutions=resolutions, seed=seed, expectation=expectation)
    fitted = max(n for n in range(models) if n + heldout_count(n) <= models)
    spare = fitted - sum(model.role != "heldout" for model in whole.models)
    design = sum(model.role == "design" for model in whole.models) + max(spare, 0)
    heldout = (
        models - (len(whole.models) - sum(m.role in ("design", "heldout") for m in whole.models)) - design
    )
    return make_plan(
        space, resolutions=resolutions, seed=seed, design=design, heldout=heldout, expectation=expectation
    )


def plan_for_budget(
    space: Space,
    budget_s: float,
    policy: Policy,
    *,
    resolutions: tuple[int, ...] | None,
    seed: int,
    expectation: Expectation = TYPICAL,
) -> Plan:
    """The whole plan if its fewest passes fit into the budget, else as many design models as do."""
    whole = make_plan(space, resolutions=resolutions, seed=seed, expectation=expectation)
    if plan_seconds(whole, expectation, policy, policy.min_passes) <= budget_s:
        return whole
    most = len(whole.models) - 1
    largest = _designed(space, most, resolutions=resolutions, seed=seed, expectation=expectation)
    for models in range(most, FEWEST, -1):
        smaller = _first(largest, models)
        if plan_seconds(smaller, expectation, policy, policy.min_passes) <= budget_s:
            return smaller
    return _first(largest, min(FEWEST, most))


def _designed(
    space: Space, models: int, *, resolutions: tuple[int, ...] | None, seed: int, expectation: Expectation
) -> Plan:
    heldout = _heldout(models)
    return make_plan(
        space,
        resolutions=resolutions,
        seed=seed,
        design=models - 1 - heldout,
        heldout=heldout,
        removals="none",
        expectation=expectation,
    )


def _heldout(models: int) -> int:
    """A fifth, at least ten, but never more than a third of few models."""
    return max(1, min(max(round(models / 5), MIN_HELDOUT), models // 3))


def _first(plan: Plan, models: int) -> Plan:
    """The most useful part of a plan that is reference, design and held-out models."""
    heldout = _heldout(models)
    design = [model for model in plan.models if model.role == "design"][: models - 1 - heldout]
    spare = [model for model in plan.models if model.role == "heldout"][:heldout]
    return replace(plan, models=(plan.reference, *design, *spare))
