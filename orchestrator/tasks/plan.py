"""Which models a profile measures, and what that will take and tell."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from typing import get_args

from luts.estimate.design import TYPICAL_DEVICE, ExpectedCosts, expected_from_lut
from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.store import LutStore, lut_store
from orchestrator.agent.device import usable_cores
from orchestrator.devices.common.registry import known_phone
from orchestrator.devices.discover import kind_of
from orchestrator.export.artifacts.artifact import ArtifactCache
from orchestrator.export.artifacts.spec import Variant
from orchestrator.journal.conditions import first_loads_s
from orchestrator.journal.log import read_log
from orchestrator.journal.records import Header
from orchestrator.journal.runs import runs_root
from orchestrator.plan.build import make_plan
from orchestrator.plan.plan import MIN_MODELS, Plan, Policy, Removals, with_heads
from orchestrator.plan.sizing import Forecast, export_seconds, forecast, plan_for_budget, plan_of_size
from orchestrator.tasks.sources import Sources, find_sources
from orchestrator.tasks.target import Target
from search.spaces import get_space


@dataclass(frozen=True)
class PlanChoice:
    """What a plan covers and how large it is; what is None is left to space and budget.

    Attributes:
        resolutions: Input sizes; the space's default one.
        classes: Of the classifier; the space's default.
        models: Whole models in all; as many as fit the budget.
        design: Design models, instead of `models`; one for three block keys.
        heldout: Models held out, instead of `models`; a fifth of all, at least 10.
        removals: Whose blocks are removed or swapped, instead of `models`: `all`, `reference` or `none`.
        like: LUT of a similar device, whose latencies are expected.
        sources: Other LUTs to learn from, with commas between; `none`; by default the best at hand, on which the
            plan does not rest.
        seed: Of plan and schedule.
        heads: Numbers of classes whose classifiers are measured, with a few networks for each further one; the
            others have those of `classes`, by default the space's where that is among them, else the most.
    """

    resolutions: tuple[int, ...] | None = None
    classes: int | None = None
    models: int | None = None
    design: int | None = None
    heldout: int | None = None
    removals: str | None = None
    like: str | None = None
    seed: int = 0
    heads: tuple[int, ...] = ()
    sources: str | None = None


@dataclass(frozen=True)
class PlannedProfile:
    """A plan with its forecast.

    `cached` models need no export, the others about `export_s` (None: none does). `compiled` models are
    compiled for a neural engine when they are first loaded, which the forecast's times leave out: `compile_s` in
    all, by the median of `first_loads` that runs on such a device took; None where there were none yet.
    """

    plan: Plan
    forecast: Forecast
    cached: int | None
    export_s: float | None
    compiled: int = 0
    compile_s: float | None = None
    first_loads: int = 0


def plan_profile(
    space: str,
    target: Target | str,
    choice: PlanChoice | None = None,
    *,
    budget_s: float = 900.0,
    narrow: float | None = None,
    pace_us: int = 0,
    store: LutStore | None = None,
    workers: int | None = None,
) -> PlannedProfile:
    """What `profile` would measure with the same arguments; no device is asked, nor need it be attached.

    Times are by the newest LUT of the same device and variant, of any space, where there is one.

    Raises:
        UsageError: a space, variant or plan that there is not, or an agent.
        DeviceError: an unknown device.
    """
    target, store = Target.of(target), store or lut_store()
    variant = target.variant
    kind_of(target.device, target.access)
    policy = policy_of(variant, narrow, pace_us=pace_us)
    choice = choice or PlanChoice()
    sources = find_sources(
        store,
        choice.sources,
        space=space,
        device=target.device,
        variant=variant.name,
        simulated=variant.is_simulated,
    )
    plan, expectation = choose_plan(space, choice, policy, budget_s, store, sources)
    mine = [ref for ref in store.list() if (ref.device, ref.variant) == (target.device, variant.name)]
    if expectation is TYPICAL_DEVICE and mine:
        expectation = _expectation(store, str(mine[-1].path))
    compiled = len(plan.models) if variant.may_use_neural_engine else 0
    cached, export_s = _exports(plan, variant, workers)
    seen_s = _first_loads_s(target.device, variant) if compiled else []
    compile_s = compiled * statistics.median(seen_s) if seen_s else None
    return PlannedProfile(
        plan, forecast(plan, expectation, policy), cached, export_s, compiled, compile_s, len(seen_s)
    )


def _first_loads_s(device: str, variant: Variant) -> list[float]:
    """Of all runs here of such a phone, or of this machine, with the variant."""
    phone, times = known_phone(device), list[float]()
    for journal in sorted(runs_root().glob(f"*{variant.name}*/journal.jsonl")):
        try:
            records = read_log(journal)
        except InvalidArtifactError:
            continue
        header = records[0]
        assert isinstance(header, Header)
        of_device = (
            header.identity.device_model in phone.product_types
            if phone
            else f"{device}-" in journal.parent.name
        )
        if of_device and header.identity.variant == variant.name and not header.simulated:
            times += first_loads_s(records)
    return times


def policy_of(variant: Variant, narrow: float | None, self_test: bool = True, pace_us: int = 0) -> Policy:
    """The policy of a profile that ends at predictions within `narrow`, a share."""
    policy = Policy.of(variant.is_simulated, self_test, pace_us)
    return policy if narrow is None else replace(policy, heldout_half_width=narrow)


def choose_plan(
    space: str,
    choice: PlanChoice,
    policy: Policy,
    budget_s: float,
    store: LutStore,
    sources: Sources | None = None,
) -> tuple[Plan, ExpectedCosts]:
    """The plan of the given sizes, else of so many models, else the one that fits the budget; and what it expects.

    Raises:
        UsageError: sizes that contradict each other, or that the space does not have; an unknown space or LUT.
    """
    searched = get_space(space)
    classes = choice.classes
    if classes is None and choice.heads and searched.default_classes not in choice.heads:
        classes = max(choice.heads)
    if classes:
        searched = searched.with_classes(classes)
    expectation = _expectation(store, choice.like) if choice.like else TYPICAL_DEVICE
    if sources and sources.named:
        expectation = replace(expectation, sources=sources.priors())
    resolutions, seed = choice.resolutions, choice.seed
    sized = (choice.design, choice.heldout, choice.removals) != (None, None, None)
    if choice.models is not None and sized:
        raise UsageError("--models chooses what --design, --heldout and --removals say; give either")
    if choice.models is not None:
        plan = plan_of_size(
            searched, choice.models, resolutions=resolutions, seed=seed, expectation=expectation
        )
    elif not sized:
        plan = plan_for_budget(
            searched, budget_s, policy, resolutions=resolutions, seed=seed, expectation=expectation
        )
    else:
        removals: Removals | None = next(
            (known for known in get_args(Removals) if known == (choice.removals or "all")), None
        )
        if removals is None:
            raise UsageError(f"--removals {choice.removals!r}: expected all, reference or none")
        plan = make_plan(
            searched,
            resolutions=resolutions,
            seed=seed,
            design=choice.design,
            heldout=choice.heldout,
            removals=removals,
            expectation=expectation,
        )
    if len(plan.models) < MIN_MODELS:
        raise UsageError(
            f"a plan of {len(plan.models)} networks makes no LUT: a reference, one to fit and one to hold out are "
            f"{MIN_MODELS}; give a larger --design or --heldout"
        )
    return with_heads(plan, choice.heads), expectation


def _expectation(store: LutStore, name: str) -> ExpectedCosts:
    ref = store.resolve(name)
    return expected_from_lut(store.load(ref.path), str(ref))


def _exports(plan: Plan, variant: Variant, workers: int | None) -> tuple[int, float] | tuple[None, None]:
    """Models that are there, and seconds that the others take."""
    if variant.is_simulated:
        return None, None
    cache = ArtifactCache()
    specs = [variant.export_spec(model.blocks) for model in plan.models]
    there = {spec: artifact for spec in specs if (artifact := cache.get(spec)) is not None}
    missing = [spec for spec in specs if spec not in there]
    known_s = [artifact.report.export_s for artifact in there.values()]
    return len(there), export_seconds(missing, known_s, workers or usable_cores())
