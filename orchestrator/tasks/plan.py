"""Which models a profile measures, and what that will take and tell."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, get_args

from luts.estimate.design import TYPICAL_DEVICE, ExpectedCosts, expected_from_lut
from luts.format.errors import InvalidArtifactError, UsageError, shorten
from luts.format.operators import OPERATORS
from luts.format.store import LutStore
from luts.format.table import Column, Facts, Table
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
from orchestrator.plan.operators import plan_operators
from orchestrator.plan.plan import MIN_MODELS, Plan, Policy, Removals, with_heads
from orchestrator.plan.sizing import Forecast, export_seconds, forecast, plan_for_budget, plan_of_size
from orchestrator.tasks.exported_plan import export_spec_of
from orchestrator.tasks.options import (
    ADVANCED,
    BUDGET,
    NETWORKS,
    OUTPUT,
    ExportOptions,
    StoreOptions,
    budget,
    option,
    pace_option,
    self_test_option,
)
from orchestrator.tasks.parsing import parse_heads, parse_name, parse_percent, parse_resolutions
from orchestrator.tasks.progress import Progress, silent
from orchestrator.tasks.sources import NO_SOURCES, Sources, find_sources
from orchestrator.tasks.target import Target
from search.spaces import get_space

PARTNERS_SHOWN = 3
"""Blocks named in a table that an entry is only known in a sum with."""


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """What a plan covers and how large it is; what is None is left to space and budget.

    With `heads`, other networks have `classes`, by default the space's if that is among them, else the most.
    `design`, `heldout` and `removals` are instead of `models`.
    """

    resolutions: tuple[int, ...] | None = option(
        None,
        "Input sizes, e.g. 192,256.",
        flag="--resolution",
        parse=parse_resolutions,
        shown="the space's",
        metavar="PIXELS",
        panel=NETWORKS,
    )
    classes: int | None = option(
        None, "Classes of the classifier.", minimum=1, shown="the space's", panel=NETWORKS
    )
    heads: tuple[int, ...] = option(
        (),
        "Also measure classifier heads for these class counts, e.g. 10,100 (adds a few networks each).",
        parse=parse_heads,
        metavar="COUNTS",
        panel=NETWORKS,
    )
    models: int | None = option(
        None, "Whole models in all.", minimum=1, shown="as fit the budget", panel=BUDGET
    )
    design: int | None = option(
        None, "Design models.", minimum=0, shown="one per three blocks", panel=ADVANCED
    )
    heldout: int | None = option(
        None, "Held-out models.", minimum=0, shown="a fifth, at least 10", panel=ADVANCED
    )
    removals: str | None = option(
        None,
        "all, reference or none: networks whose blocks are removed or swapped.",
        shown="all",
        metavar="WHICH",
        panel=ADVANCED,
    )
    like: str | None = option(
        None,
        "LUT of a similar device, for the latencies that the plan expects.",
        metavar="LUT",
        panel=ADVANCED,
    )
    seed: int = option(0, "Random seed of the plan and the schedule.", panel=ADVANCED)


def parse_narrow(text: str, flag: str = "--narrow") -> float:
    """Return the fraction of `1.5%`."""
    return parse_percent(text, flag) / 100


@dataclass(frozen=True, kw_only=True)
class ProfilingOptions(ExportOptions, StoreOptions):
    """When profiling ends, and what happens to earlier runs."""

    budget_s: float = budget("15m")
    narrow: float | None = option(
        None,
        "Stop once predictions are within this.",
        parse=parse_narrow,
        shown="1.5%",
        metavar="PERCENT",
        panel=BUDGET,
    )
    self_test: bool = self_test_option()
    pace_us: int = pace_option()
    fresh: bool = option(False, "Start over instead of resuming an unfinished run.", panel=ADVANCED)
    reuse: bool = option(False, "Reuse the LUT of an identical finished run.", panel=ADVANCED)

    def policy(self, variant: Variant) -> Policy:
        """Return how models of the variant are measured."""
        policy = Policy.of(variant.is_simulated, self.self_test, self.pace_us)
        return policy if self.narrow is None else replace(policy, heldout_half_width=self.narrow)


@dataclass(frozen=True, kw_only=True)
class ProfileRunOptions(ProfilingOptions):
    """Names for the output of a single-device profile."""

    name: str | None = option(
        None,
        "Device name to record in the LUT.",
        parse=parse_name,
        shown="the device's own",
        metavar="NAME",
        panel=OUTPUT,
    )
    run_folder: Path | None = option(
        None, "Folder of the run's journal.", flag="--run", shown="by what is measured", panel=OUTPUT
    )


@dataclass(frozen=True, kw_only=True)
class SpaceOptions:
    """The space whose blocks are measured, and by which networks."""

    space: str = option("autovit-xxs", "Search space, or operators.", metavar="SPACE", panel=NETWORKS)
    plan: PlanOptions = field(default_factory=PlanOptions)


@dataclass(frozen=True, kw_only=True)
class SpaceProfilingOptions(SpaceOptions, ProfilingOptions):
    """What is measured, and for how long."""

    def policy(self, variant: Variant) -> Policy:
        """Return how models of the variant are measured: hundreds of programs for operators, by fewest rounds."""
        policy = super().policy(variant)
        return replace(policy, max_rounds=policy.min_rounds) if self.space == OPERATORS else policy


@dataclass(frozen=True, kw_only=True)
class ProfileCommand(SpaceProfilingOptions, ProfileRunOptions):
    """Measure every block of a space on a device and write a new version of its LUT.

    Rerun the same command to resume an interrupted run.
    """

    target: Target
    sources: str | None = option(
        None,
        "LUT[,LUT...] of other devices to learn from; none: from scratch.",
        flag="--from",
        shown="the best at hand",
        metavar="LUTS",
        panel=NETWORKS,
    )


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

    COLUMNS: ClassVar = (
        Column("key", "block", key=True),
        Column("models", "models with it"),
        Column("shown", "removed or swapped", spare=1),
        Column("relative_se", "expected error", 0, percent=True),
        Column("identified", "identified"),
        Column("weak", "weak"),
        Column("partners", "only as a sum with", key=True, spare=2),
    )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document."""
        plan, forecast, cached = self.plan, self.forecast, self.cached
        return {
            "digest": plan.digest,
            "models": dict(Counter(model.role for model in plan.models)),
            "device_s": forecast.device_s,
            "device_most_s": forecast.most_s,
            "expected_latencies": forecast.source,
            "compiled_on_device": self.compiled,
            "compiling_s": self.compile_s,
            "exports_cached": cached,
            "exports_to_make": None if cached is None else len(plan.models) - cached,
            "exports_s": self.export_s,
            "blocks": [asdict(entry) for entry in forecast.entries],
        }

    def report(self) -> Iterator[Table | Facts]:
        """Yield the expected error of every entry, and the plan's size and times."""
        rows = [asdict(entry) for entry in self.forecast.entries]
        for row in rows:
            row["partners"] = shorten(row["partners"], PARTNERS_SHOWN)
        if rows:
            yield Table("", self.COLUMNS, rows)
        yield Facts("", self.facts())

    def facts(self) -> dict[str, Any]:
        """Return the plan's size and times, as named values."""
        models, forecast = self.plan.models, self.forecast
        roles = Counter(model.role for model in models)
        weak = sum(entry.weak for entry in forecast.entries)
        sums = sum(entry.identified == "sum" for entry in forecast.entries)
        unheld = sum(entry.identified == "prior" for entry in forecast.entries)
        facts = {
            "models": f"{len(models)}: " + ", ".join(f"{n} {role}" for role, n in roles.items()),
            "on the device": f"{_minutes(forecast.device_s)} to {_minutes(forecast.most_s)} minutes of measuring, "
            f"latencies from {forecast.source}",
            "entries": f"{len(forecast.entries)}: {weak} weak, {sums} known only as a sum with others, "
            f"{unheld} from the prior alone"
            if forecast.entries
            else "the operators of its models, known once they are exported",
        }
        if self.compiled:
            facts["first loads"] = (
                f"{self.compiled} models are compiled for the neural engine on the device, once each: "
                + _compiling(self)
            )
        if self.cached is not None and self.export_s is not None:
            missing = len(models) - self.cached
            time = f" in about {_minutes(self.export_s)} minutes" if missing else ""
            facts["export"] = f"{self.cached} models are there, {missing} to be made{time}"
        return facts


def _compiling(planned: PlannedProfile) -> str:
    if planned.compile_s is None:
        return (
            "seconds to minutes per model, in addition to measuring; known after a first run on such a device"
        )
    return (
        f"about {_minutes(planned.compile_s)} minutes in addition to measuring, by {planned.first_loads} first "
        "loads of earlier runs"
    )


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f}" if seconds >= 600 else f"{seconds / 60:.1f}"


def plan_profile(options: ProfileCommand, progress: Progress = silent) -> PlannedProfile:
    """Return what `profile` would measure with the same options; the device need not be attached.

    Times follow the newest LUT of the same device and variant, of any space, if there is one.

    Raises:
        UsageError: an unknown space, variant, plan or agent, or an option that only a measurement has.
        DeviceError: an unknown device.
    """
    for flag, given in (
        ("--fresh", options.fresh),
        ("--reuse", options.reuse),
        ("--name", options.name),
        ("--run", options.run_folder),
    ):
        if given:
            raise UsageError(
                f"{flag} is about the measurement, which --plan-only does not make; leave one of them out",
                code="nothing_measured",
            )
    target, store = options.target, options.open_store(progress, create=True)
    variant = target.variant
    kind_of(target.device, target.access)
    policy = options.policy(variant)
    sources = find_sources(
        store,
        options.sources,
        space=options.space,
        device=target.device,
        variant=variant.name,
        simulated=variant.is_simulated,
    )
    plan, expectation = choose_plan(options, policy, options.budget_s, store, sources)
    mine = [ref for ref in store.list() if (ref.device, ref.variant) == (target.device, variant.name)]
    if expectation is TYPICAL_DEVICE and mine:
        expectation = _expectation(store, str(mine[-1].path))
    compiled = len(plan.models) if variant.may_use_neural_engine else 0
    cached, export_s = _exports(plan, variant, options.workers)
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


def choose_plan(
    options: SpaceOptions, policy: Policy, budget_s: float, store: LutStore, sources: Sources = NO_SOURCES
) -> tuple[Plan, ExpectedCosts]:
    """Return the plan of the given sizes, model count or time limit, with the costs it expects.

    Raises:
        UsageError: sizes that contradict each other, or that the space does not have; an unknown space or LUT.
    """
    if options.space == OPERATORS:
        return _plan_operators(options.plan), TYPICAL_DEVICE
    searched, choice = get_space(options.space), options.plan
    classes = choice.classes
    if classes is None and choice.heads and searched.default_classes not in choice.heads:
        classes = max(choice.heads)
    if classes:
        searched = searched.with_classes(classes)
    expectation = _expectation(store, choice.like) if choice.like else TYPICAL_DEVICE
    if sources.named:
        expectation = replace(expectation, sources=sources.priors())
    resolutions, seed = choice.resolutions, choice.seed
    sized = (choice.design, choice.heldout, choice.removals) != (None, None, None)
    if choice.models is not None and sized:
        raise UsageError(
            "--models sets --design, --heldout and --removals; use either it or them",
            code="conflicting_options",
        )
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
            raise UsageError(
                f"--removals {choice.removals!r}: expected all, reference or none", code="invalid_value"
            )
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
            f"{MIN_MODELS}; give a larger --design or --heldout",
            code="small_plan",
        )
    return with_heads(plan, choice.heads), expectation


def _plan_operators(choice: PlanOptions) -> Plan:
    if choice != PlanOptions(design=choice.design, models=choice.models, seed=choice.seed):
        raise UsageError("operators take --design, --models and --seed alone", code="option_does_not_apply")
    return plan_operators(choice.seed, choice.design, choice.models)


def _expectation(store: LutStore, name: str) -> ExpectedCosts:
    ref = store.resolve(name)
    return expected_from_lut(store.load(ref.path), str(ref))


def _exports(plan: Plan, variant: Variant, workers: int | None) -> tuple[int, float] | tuple[None, None]:
    """Models that are there, and seconds that the others take."""
    if variant.is_simulated:
        return None, None
    cache = ArtifactCache()
    specs = [export_spec_of(model, variant) for model in plan.models]
    there = {spec: artifact for spec in specs if (artifact := cache.get(spec)) is not None}
    missing = [spec for spec in specs if spec not in there]
    known_s = [artifact.report.export_s for artifact in there.values()]
    return len(there), export_seconds(missing, known_s, workers or usable_cores())
