"""Which plan the options of `bench profile` mean, and what `--plan-only` says of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, get_args

from luts.errors import UsageError
from luts.estimate.expected import TYPICAL, Expectation, expectation_of
from luts.store import LutStore
from orchestrator.cli.output import Column, emit_facts, emit_json, emit_rows
from orchestrator.cores import usable_cores
from orchestrator.export.cache import ArtifactCache
from orchestrator.measure.forecast import Forecast, forecast
from orchestrator.measure.plan import Plan, Removals, Role, make_plan
from orchestrator.measure.policy import Policy
from orchestrator.measure.sizing import plan_for_budget, plan_of_size
from orchestrator.variant import Variant
from search.spaces import Space

PARTNERS_SHOWN = 3


def choose_plan(
    space: Space,
    policy: Policy,
    budget_s: float,
    *,
    resolutions: tuple[int, ...] | None,
    seed: int,
    models: int | None,
    design: int | None,
    heldout: int | None,
    removals: str | None,
    expectation: Expectation,
) -> Plan:
    """The plan of the given sizes, else of so many models, else the one that fits the budget.

    Raises:
        UsageError: sizes that contradict each other, or that the space does not have.
    """
    sized = [design, heldout, removals] != [None] * 3
    if models is not None and sized:
        raise UsageError("--models chooses what --design, --heldout and --removals say; give either")
    if models is not None:
        return plan_of_size(space, models, resolutions=resolutions, seed=seed, expectation=expectation)
    if not sized:
        return plan_for_budget(
            space, budget_s, policy, resolutions=resolutions, seed=seed, expectation=expectation
        )
    if removals not in (None, *get_args(Removals)):
        raise UsageError(f"--removals {removals!r}: expected all, reference or none")
    return make_plan(
        space,
        resolutions=resolutions,
        seed=seed,
        design=design,
        heldout=heldout,
        removals=removals or "all",  # type: ignore[arg-type]
        expectation=expectation,
    )


def expectation_like(store: LutStore, like: str | None) -> Expectation:
    """What `--like` says of latencies, else an assumption."""
    if like is None:
        return TYPICAL
    ref = store.resolve(like)
    return expectation_of(store.load(ref.path), str(ref))


def known_expectation(store: LutStore, device: str, variant: Variant, chosen: Expectation) -> Expectation:
    """The newest LUT of the same device and variant, of any space, tells times better than an assumption."""
    mine = [ref for ref in store.list() if (ref.device, ref.variant) == (device, variant.name)]
    if chosen is not TYPICAL or not mine:
        return chosen
    return expectation_of(store.load(mine[-1].path), str(mine[-1]))


def show_plan(
    plan: Plan,
    expectation: Expectation,
    policy: Policy,
    variant: Variant,
    cache: ArtifactCache,
    as_json: bool,
) -> None:
    """Models by role, time, and what will be known of every entry, the worst first."""
    told = forecast(plan, expectation, policy)
    cached = _cached(plan, variant, cache)
    roles = Counter(model.role for model in plan.models)
    rows: list[dict[str, Any]] = [asdict(entry) for entry in told.entries]
    if as_json:
        document = {
            "digest": plan.digest,
            "models": dict(roles),
            "device_s": told.device_s,
            "device_most_s": told.most_s,
            "expected_latencies": told.source,
            "exports_cached": cached,
            "exports_to_make": None if cached is None else len(plan.models) - cached,
            "blocks": rows,
        }
        emit_json(document)
        return
    for row in rows:
        row["partners"] = _few(row["partners"])
    columns = [
        Column("key", "block"),
        Column("models", "models with it"),
        Column("shown", "removed or swapped"),
        Column("relative_se", "expected error", 0, percent=True),
        Column("identified", "known"),
        Column("weak", "weak"),
        Column("partners", "only as a sum with"),
    ]
    emit_rows("", columns, rows, False)
    emit_facts("", _facts(plan, told, cached, roles), False)


def _cached(plan: Plan, variant: Variant, cache: ArtifactCache) -> int | None:
    """Models that need no export; None where nothing is ever exported."""
    if variant.is_simulated:
        return None
    return sum(cache.get(variant.export_spec(model.blocks)) is not None for model in plan.models)


def _facts(plan: Plan, told: Forecast, cached: int | None, roles: Mapping[Role, int]) -> dict[str, Any]:
    weak = sum(entry.weak for entry in told.entries)
    sums = sum(entry.identified == "sum" for entry in told.entries)
    unheld = sum(entry.identified == "prior" for entry in told.entries)
    facts = {
        "models": f"{len(plan.models)}: " + ", ".join(f"{n} {role}" for role, n in roles.items()),
        "on the device": f"{_minutes(told.device_s)} to {_minutes(told.most_s)} minutes of measuring, "
        f"latencies from {told.source}",
        "entries": f"{len(told.entries)}: {weak} weak, {sums} known only as a sum with others, {unheld} from the "
        "prior alone",
    }
    if cached is not None:
        facts["export"] = (
            f"{cached} models are there, {len(plan.models) - cached} to be made by {usable_cores()} cores"
        )
    return facts


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f}" if seconds >= 600 else f"{seconds / 60:.1f}"


def _few(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - PARTNERS_SHOWN} more" if len(names) > PARTNERS_SHOWN else ""
    return ", ".join(names[:PARTNERS_SHOWN]) + more
