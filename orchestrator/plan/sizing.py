"""Which plan fits: a number of models, or the device time of a budget.

Removals and swaps isolate single blocks, at the price of predicting networks less well: in simulations with
known truth (`tests/unit/measure/test_plan.py`, and docs/lut.md) a design of 40 models predicts `autovit-xxs`
within 1.0 %, one of 80 within 0.6 %, removals alone within 2.2 and 1.6 %. So the plan has them if the whole
plan fits; otherwise all models are design models.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from luts.estimate.design import TYPICAL_DEVICE, ExpectedCosts, Identified, identify, partners
from luts.format.errors import UsageError
from luts.format.latency import WEAK_ENTRY_SHARE, WEAK_REFERENCE_SHARE
from orchestrator.agent.timing import STEADY_WINDOWS, WINDOW_NS
from orchestrator.export.artifacts.spec import ExportSpec
from orchestrator.plan.build import MIN_HELDOUT, heldout_count, make_plan, posterior_given
from orchestrator.plan.plan import Plan, Policy, features_of_plan
from search.spaces import Space

START_S = 10.0
"""Time until a worker has loaded torch and ExecuTorch: 6 to 15 s."""

BLOCK_S = 1.1
"""Time to lower a block in a network of `autovit-xxs`, 25.1 s for 23 of them (docs/benchmarks.md, Exports of
a plan).
"""

SPLICED_BLOCK_S = 0.066
"""The same for a network assembled from parts of others: 265 s for 175, the parts included."""

MIN_KNOWN = 3
"""Earlier exports needed to estimate the others' time by their median."""

PROGRAM_BLOCKS, PROGRAM_MS = 7, 9.0
"""Blocks that take as long to lower as a program of a table of operators, and its latency: means of the suite."""


def export_seconds(missing: Sequence[ExportSpec], known_s: Sequence[float], workers: int) -> float:
    """Return a rough estimate of the seconds for all exports by so many processes.

    It rests on this machine's own exports of the plan, `known_s`, else on typical ones.
    """
    if not missing:
        return 0.0
    busy = min(workers, len(missing))
    if len(known_s) >= MIN_KNOWN:
        return START_S + len(missing) * statistics.median(known_s) / busy
    # Without parts of others each worker begins with a whole network.
    first = busy if not known_s else 0
    each_s = [
        (len(spec.blocks) or PROGRAM_BLOCKS)
        * (SPLICED_BLOCK_S if spec.reusable and index >= first else BLOCK_S)
        for index, spec in enumerate(missing)
    ]
    return START_S + sum(each_s) / busy


LOAD_S = 0.2
"""Time to send the schedule, load and unload one model: 0.05 to 0.3 s on hosts and phones."""

ROUNDS_SHARE = 0.5
"""Typical position of a load's rounds between the fewest and the most."""


@dataclass(frozen=True)
class EntryForecast:
    """What a plan is expected to determine about one entry.

    Attributes:
        models: Number of fitted models with the block.
        shown: Whether a removal or a swap isolates it.
        relative_se: Standard error relative to the expected latency.
        identified: Whether the fit can separate the entry from others.
        weak: Whether its interval is wider than a quarter of itself and than a hundredth of the reference.
        partners: Entries that share a sum with it, only for weak ones.
    """

    key: str
    models: int
    shown: bool
    relative_se: float
    identified: Identified
    weak: bool
    partners: tuple[str, ...]


@dataclass(frozen=True)
class Forecast:
    """Expected device time of a plan (fewest and all passes), and its entries, the least certain first.

    `source` is that of the expected latencies.
    """

    source: str
    device_s: float
    most_s: float
    entries: tuple[EntryForecast, ...]


def device_seconds(models_ms: Sequence[float], policy: Policy, passes: int) -> float:
    """Return the time of `passes` over models of these latencies in ms, the reference first."""
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


def plan_seconds(plan: Plan, expectation: ExpectedCosts, policy: Policy, passes: int) -> float:
    """Return the device time of a plan in seconds."""
    expected = expectation.ms(features_of_plan(plan))
    models_ms = [expectation.base_ms + sum(expected[key] for key in model.blocks) for model in plan.models]
    return device_seconds(models_ms, policy, passes)


def forecast(plan: Plan, expectation: ExpectedCosts, policy: Policy) -> Forecast:
    """Return the time that a plan takes, and what it is expected to determine."""
    features = features_of_plan(plan)
    if not features:  # operators, which are known once their programs are exported
        models_ms, passes = [PROGRAM_MS] * len(plan.models), (policy.min_passes, policy.max_passes)
        device_s, most_s = (device_seconds(models_ms, policy, number) for number in passes)
        return Forecast(f"programs of {PROGRAM_MS:g} ms", device_s, most_s, ())
    fitted = [model.blocks for model in plan.models if model.role != "heldout"]
    typical = [model.blocks for model in plan.models if model.arch]
    posterior = posterior_given(features, expectation, measured=fitted, typical=typical)
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


MIN_USEFUL_MODELS = 16
"""Fewest models of a plan for a budget: with fewer a LUT adds little to MACs. A smaller budget is exceeded."""


def plan_of_size(
    space: Space,
    models: int,
    *,
    resolutions: tuple[int, ...] | None,
    seed: int,
    expectation: ExpectedCosts = TYPICAL_DEVICE,
) -> Plan:
    """Return the plan of so many models that predicts best; with removals and swaps if there is room.

    Raises UsageError: fewer than three models.
    """
    if models < 3:
        raise UsageError(
            f"--models {models}: at least 3 are needed, a reference, one to fit and one to hold out",
            code="too_few_models",
        )
    make = functools.partial(make_plan, space, resolutions=resolutions, seed=seed, expectation=expectation)
    whole = make()
    if len(whole.models) > models:
        return _make_designed(make, models)
    fitted = max(n for n in range(models) if n + heldout_count(n) <= models)
    spare = fitted - sum(model.role != "heldout" for model in whole.models)
    design = sum(model.role == "design" for model in whole.models) + max(spare, 0)
    heldout = (
        models - (len(whole.models) - sum(m.role in ("design", "heldout") for m in whole.models)) - design
    )
    return make(design=design, heldout=heldout)


def plan_for_budget(
    space: Space,
    budget_s: float,
    policy: Policy,
    *,
    resolutions: tuple[int, ...] | None,
    seed: int,
    expectation: ExpectedCosts = TYPICAL_DEVICE,
) -> Plan:
    """Return the whole plan if its fewest passes fit into the budget, else as many design models as do."""
    make = functools.partial(make_plan, space, resolutions=resolutions, seed=seed, expectation=expectation)
    whole = make()
    if plan_seconds(whole, expectation, policy, policy.min_passes) <= budget_s:
        return whole
    most = len(whole.models) - 1
    largest = _make_designed(make, most)
    for models in range(most, MIN_USEFUL_MODELS, -1):
        smaller = _first(largest, models)
        if plan_seconds(smaller, expectation, policy, policy.min_passes) <= budget_s:
            return smaller
    return _first(largest, min(MIN_USEFUL_MODELS, most))


def _make_designed(make: Callable[..., Plan], models: int) -> Plan:
    heldout = _heldout(models)
    return make(design=models - 1 - heldout, heldout=heldout, removals="none")


def _heldout(models: int) -> int:
    """Return a fifth, at least ten, but at most a third of few models."""
    return max(1, min(max(round(models / 5), MIN_HELDOUT), models // 3))


def _first(plan: Plan, models: int) -> Plan:
    """Return the most useful part of a plan that consists of reference, design and held-out models."""
    heldout = _heldout(models)
    design = [model for model in plan.models if model.role == "design"][: models - 1 - heldout]
    spare = [model for model in plan.models if model.role == "heldout"][:heldout]
    return replace(plan, models=(plan.reference, *design, *spare))
