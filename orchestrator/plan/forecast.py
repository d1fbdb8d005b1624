"""What a plan will take and tell, before anything is built: device time, and how well each entry will be known."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from luts.estimate.expected import Expectation
from luts.estimate.identify import Identified, identify, partners
from luts.format.latency import WEAK_ENTRY_SHARE, WEAK_REFERENCE_SHARE
from orchestrator.agent.ramp import STEADY_WINDOWS, WINDOW_NS
from orchestrator.plan.design import posterior_after
from orchestrator.plan.features import features_of_plan
from orchestrator.plan.plan import Plan
from orchestrator.plan.policy import Policy

LOAD_S = 0.2
"""Sending the schedule, loading and unloading one model: 0.05 to 0.3 s on hosts and phones alike."""

ROUNDS_SHARE = 0.5
"""How far between the fewest and the most rounds a load goes, as a rule."""


@dataclass(frozen=True)
class EntryForecast:
    """What a plan tells of one entry. `relative_se` is of the expected latency; `models` hold the block and are
    fitted; `shown`: a removal or a swap is about it; `weak`: its interval is wider than a quarter of itself and
    than a hundredth of the reference; `partners` share a sum with it, named for weak ones alone."""

    key: str
    models: int
    shown: bool
    relative_se: float
    identified: Identified
    weak: bool
    partners: tuple[str, ...]


@dataclass(frozen=True)
class Forecast:
    """`device_s`: the fewest passes; `most_s`: all of them. `source` says where expected latencies come from."""

    source: str
    device_s: float
    most_s: float
    entries: tuple[EntryForecast, ...]


def device_seconds(models_ms: Sequence[float], policy: Policy, passes: int) -> float:
    """Time of `passes` over models of these latencies, the reference first, which every batch loads twice."""
    rounds = policy.min_rounds + ROUNDS_SHARE * (policy.max_rounds - policy.min_rounds)
    runs = rounds * (1 + policy.settle_runs)
    reference, others = models_ms[0], models_ms[1:]
    batches = max(1, math.ceil(len(others) / policy.batch_models))
    loads = [*others, *[reference] * (2 * batches)]
    one_pass_s = sum(
        LOAD_S + (policy.warmup * ms + runs * max(ms, policy.pace_us / 1e3)) / 1e3 for ms in loads
    )
    if policy.warmup_ms:
        window_s = max(WINDOW_NS / 1e9, sum(loads) / batches / 1e3)
        warmup_s = min((STEADY_WINDOWS + 1) * window_s, policy.warmup_ms / 1e3)
        one_pass_s += batches * math.ceil(rounds / policy.chunk_rounds) * warmup_s
    return passes * one_pass_s


def plan_seconds(plan: Plan, expectation: Expectation, policy: Policy, passes: int) -> float:
    """Device time of a plan."""
    expected = expectation.ms(features_of_plan(plan))
    models_ms = [expectation.base_ms + sum(expected[key] for key in model.blocks) for model in plan.models]
    return device_seconds(models_ms, policy, passes)


def forecast(plan: Plan, expectation: Expectation, policy: Policy) -> Forecast:
    """Time that a plan takes, and what it is expected to tell."""
    features = features_of_plan(plan)
    fitted = [model.blocks for model in plan.models if model.role != "heldout"]
    typical = [model.blocks for model in plan.models if model.arch]
    posterior = posterior_after(features, expectation, measured=fitted, typical=typical)
    relative_se = dict(zip(posterior.keys, posterior.relative_se().tolist(), strict=True))
    expected = expectation.ms(features)
    least_ms = WEAK_REFERENCE_SHARE * posterior.model_ms(plan.reference.blocks)
    half = {key: 1.96 * se for key, se in relative_se.items()}
    weak = {key for key in half if half[key] > WEAK_ENTRY_SHARE and half[key] * expected[key] > least_ms}
    known = identify(list(features), fitted)
    together = partners(sorted(weak), fitted)
    shown = _shown(plan)
    return Forecast(
        expectation.source,
        plan_seconds(plan, expectation, policy, policy.min_passes),
        plan_seconds(plan, expectation, policy, policy.max_passes),
        tuple(
            EntryForecast(
                key,
                sum(key in blocks for blocks in fitted),
                key in shown,
                relative_se[key],
                known[key],
                key in weak,
                together.get(key, ()),
            )
            for key in sorted(features, key=lambda key: (-relative_se[key], key))
        ),
    )


def _shown(plan: Plan) -> set[str]:
    blocks = {model.model_id: Counter(model.blocks) for model in plan.models}
    pairs = [(blocks[model.model_id], blocks[model.base_id]) for model in plan.models if model.base_id]
    return {key for mine, base in pairs for key in (mine - base) | (base - mine)}
