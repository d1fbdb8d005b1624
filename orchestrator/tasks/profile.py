"""A LUT of a space on a device: every block measured, or another device's LUT adapted by a few networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from luts.format.errors import UsageError
from luts.format.files import check_folder
from luts.format.lut import Lut
from luts.format.operators import OPERATORS
from luts.format.store import LutStore
from luts.format.table import Facts, Table
from orchestrator.devices.host import scenario_of
from orchestrator.export.artifacts.spec import Variant
from orchestrator.journal.runs import Run, find_run, runs_root
from orchestrator.measure.engine import EngineOptions
from orchestrator.measure.session import Measurement, measure
from orchestrator.plan.build import seed_design
from orchestrator.plan.plan import Plan, Policy, features_of_plan
from orchestrator.simulate.compare import GroundTruthComparison, compare_lut_with_truth, write_truth
from orchestrator.simulate.device import GroundTruth
from orchestrator.tasks.exported_plan import ExportedPlan, GrowingPlan, export_plan
from orchestrator.tasks.luts import LutView, provenance
from orchestrator.tasks.options import REQUIRED, StoreOptions, argument, budget_option
from orchestrator.tasks.plan import (
    PlanOptions,
    ProfileCommand,
    ProfileRunOptions,
    SpaceProfilingOptions,
    choose_plan,
)
from orchestrator.tasks.progress import Note, Progress, silent, steps
from orchestrator.tasks.sources import NO_SOURCES, Sources, covering, find_sources
from orchestrator.tasks.target import Target, lut_name
from search.spaces.scope import covered_space


@dataclass(frozen=True)
class Profile:
    """A LUT and how it came about.

    Attributes:
        path: The LUT's folder.
        lut: The LUT as it was written.
        folder: Folder of the run.
        measurement: The measurement; None if an identical run was finished before.
        truth: How close the LUT came to a simulated device's truth (`truth.json` in the run's folder).
    """

    path: Path
    lut: Lut
    folder: Path
    measurement: Measurement | None = None
    truth: GroundTruthComparison | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return path, provenance and entries."""
        view = LutView(str(self.path), self.lut).to_dict()
        return {"path": view["lut"], "meta": view["meta"], "entries": view["entries"]}

    def report(self) -> Iterator[Table | Facts | str]:
        """Yield provenance and entries."""
        yield Facts(str(self.path), provenance(self.lut))
        yield from LutView(str(self.path), self.lut).entries_report()


def profile(options: ProfileCommand, progress: Progress = silent) -> Profile:
    """Measure every block of a space on a device and write a new version of its LUT.

    An interrupted run resumes when this is called with the same options again.

    Raises:
        UsageError: an unknown space, variant or plan, or the run is finished and `reuse` is false.
        BlocktimeError: too few models can be exported.
        DeviceError: the device was not found, or was lost for good.
        MeasurementRejectedError: the journal belongs to another measurement, or the device is too noisy.
    """
    target, store, folder = options.target, open_lut_folder(options, progress), options.run_folder
    if folder is not None:
        check_folder(folder, "give another folder with --run")
    with target.found() as device:
        profiling = ProfilingRun(options, target, lut_name(device, options.name), store, progress)
        sources = find_sources(
            store,
            options.sources,
            space=options.space,
            device=profiling.device_name,
            variant=target.variant.name,
            simulated=target.variant.is_simulated,
        )
        profiling.prepare(lambda: target.variant_on(device), sources, folder=folder)
        exported = profiling.exported
        if exported is None:
            return profiling.finished()
        progress(Note(f"run {profiling.run.folder}"))
        if exported.sources.names:
            progress(Note(_learning(exported.sources)))
        growing = GrowingPlan(
            exported, profiling.room, profiling.variant, profiling.expectation, options.workers, progress
        )
        measurement = measure(
            device,
            profiling.variant,
            exported.model_set,
            profiling.run.journal,
            profiling.policy,
            EngineOptions(
                budget_s=options.budget_s,
                progress=steps(progress),
                prediction_half_width=growing.width,
                planner=growing if profiling.room else None,
            ),
            usage_of=[exported.plan.reference.model_id],
            trace=_programs_to_trace(exported.plan, profiling.variant),
        )
    return profiling.write(growing.exported, measurement)


def _programs_to_trace(plan: Plan, variant: Variant) -> dict[str, tuple[str, ...]]:
    """Return the operators of programs, in fp32 on one thread; in int8 on two traces made predictions worse."""
    if (variant.precision, variant.threads) != ("fp32", 1):
        return {}
    return {model.model_id: model.blocks for model in plan.models if model.program}


def open_lut_folder(options: StoreOptions, progress: Progress) -> LutStore:
    """Return the LUTs, whose first folder can be written to."""
    store = options.open_store(progress, create=True)
    check_folder(store.roots[0], "give another folder with --luts or BLOCKTIME_LUTS")
    return store


class ProfilingRun:
    """A profile on its way to a LUT, on one device or on a fleet: planned and exported, then written.

    Attributes:
        exported: The models to measure; None if the run is finished already.
        room: How many more networks may be chosen while they are measured.
        expectation: Costs that the plan expects.
        variant: How models run.
        run: Folder of the journal.
    """

    def __init__(
        self,
        options: SpaceProfilingOptions,
        target: Target,
        device_name: str,
        store: LutStore,
        progress: Progress,
    ) -> None:
        """Begin for a device; `device_name` is its name in the LUT."""
        self._options, self._target, self.device_name = options, target, device_name
        self._store, self._progress = store, progress
        self.policy = options.policy(target.variant)

    def prepare(
        self,
        variant_on_device: Callable[[], Variant],
        sources: Sources = NO_SOURCES,
        *,
        folder: Path | None = None,
        prefix: str = "",
    ) -> None:
        """Choose the plan and export its models, unless it was measured before.

        Args:
            variant_on_device: Asks the device for its variant; called late, as it wakes up a phone.
            sources: LUTs to learn from.
            folder: The run's folder; by default it is found by what is measured.
            prefix: Beginning of the run's name.
        """
        options, target = self._options, self._target

        def find(variant: Variant) -> Run:
            if folder is not None:
                return Run(folder)
            label = prefix + run_label(self.device_name, plan, variant, options.pace_us)
            return find_run(runs_root(), label, fresh=options.fresh, reuse=options.reuse)

        plan, self.expectation = choose_plan(options, self.policy, options.budget_s, self._store, sources)
        sources = covering(sources, sorted(features_of_plan(plan)), options.workers, self._progress)
        grows = sources.named and plan.space != OPERATORS
        at_first, self.room = seed_design(plan) if grows else (plan, 0)
        run = find(target.variant) if target.is_settled else None
        exported = None
        if run is None or run.result is None:
            most = "at most " if self.room else ""
            blocks = len(plan.covered_keys()) or "the"  # operators are counted once they are exported
            self._progress(Note(f"{most}{len(plan.models)} models for {blocks} blocks of {options.space}"))
            exported = export_plan(
                at_first, target.variant, self.expectation, options.workers, self._progress, sources
            )
        self.variant = variant_on_device()
        self.run = run or find(self.variant)
        self.exported = exported if self.run.result is None else None

    def finished(self) -> Profile:
        """Return the profile of a run that was finished before; raise UsageError unless it may be reused."""
        run = self.run
        if not self._options.reuse:
            raise UsageError(
                f"{run.folder} is finished ({run.result}); add --reuse, or choose another folder with --run",
                code="finished_run",
            )
        return Profile(Path(str(run.result)), self._store.load(str(run.result)), run.folder)

    def write(self, exported: ExportedPlan, measurement: Measurement) -> Profile:
        """Write the LUT, and say how measuring went."""
        lut = exported.lut(measurement, self.device_name)
        path = self._store.write_once(lut)
        self.run.finish(str(path))
        self._progress(
            Note(f"{measurement.batches_kept} batches kept, {measurement.batches_rejected} repeated")
        )
        self._progress(Note(why_it_ended(measurement, self.policy)))
        truth = self._compare_with_truth(lut)
        return Profile(path, self._store.load(path), self.run.folder, measurement, truth)

    def _compare_with_truth(self, lut: Lut) -> GroundTruthComparison | None:
        """Compare a simulated device's LUT with its truth, which no real device can tell; None for a real one."""
        scenario = scenario_of(self._target.device)
        if scenario is None:
            return None
        truth = compare_lut_with_truth(lut, GroundTruth(scenario.costs, self.variant.threads))
        models = {model.model_id: model.blocks for model in lut.models}
        file = self.run.folder / "truth.json"
        write_truth(file, scenario, self.variant.threads, models, truth)
        heldout = "" if truth.heldout_mape is None else f", held-out MAPE {100 * truth.heldout_mape:.2f} %"
        self._progress(
            Note(
                f"SIMULATED, truth known ({file}): {100 * truth.covered:.0f} % of {truth.entries} entries' "
                f"intervals hold it, entries off by {100 * truth.entry_error:.1f} %{heldout}"
            )
        )
        return truth


def run_label(device_name: str, plan: Plan, variant: Variant, pace_us: int) -> str:
    """Return the name of a profile's runs, those at one pace."""
    paced = f"-every{pace_us}us" if pace_us else ""
    return f"{device_name}-{plan.space}-{variant.name}-{plan.digest[:8]}{paced}"


def _learning(sources: Sources) -> str:
    text = f"learning from {', '.join(sources.names)} too"
    return text if sources.named else f"{text}, the best LUT at hand; --from none makes one from scratch"


def why_it_ended(measurement: Measurement, policy: Policy) -> str:
    """Return why no further pass was made."""
    width = measurement.prediction_half_width
    within = "" if width is None else f", held-out networks are predicted within {100 * width:.2f} %"
    reason = {
        "narrow": f"every model's interval is within {100 * policy.half_width:g} %",
        "predictions": f"predictions are within {100 * policy.heldout_half_width:g} %",
        "budget": "the time limit is reached",
        "passes": f"all {policy.max_passes} passes are done",
    }[measurement.ending]
    return f"ended because {reason}{within}"


FEWEST = 3
"""Fewest networks that determine a device's speed, and whether the LUT fits it at all."""

HELDOUT_EACH = 3
"""One network is held out for so many that are fitted."""


@dataclass(frozen=True, kw_only=True)
class AdaptCommand(ProfileRunOptions):
    """Adapt another device's LUT: measure a few networks, and learn the rest from the LUT.

    Same as bench profile --from LUT with a plan of a few networks of the LUT's space, resolutions and classes.
    """

    lut: str = argument(REQUIRED, "LUT to adapt: folder, or parts of device/space/variant.", metavar="LUT")
    target: Target
    networks: int = budget_option(
        5, "Networks to fit; a third as many more are held out.", flag="-n", minimum=FEWEST
    )


def adapt(options: AdaptCommand, progress: Progress = silent) -> Profile:
    """Make a LUT of a device from another device's LUT and a few measured networks.

    Raises:
        UsageError: fewer than three networks; others as `profile`.
    """
    networks, store = options.networks, options.open_store(progress, create=True)
    if networks < FEWEST:
        raise UsageError(
            f"-n {options.networks}: at least {FEWEST} networks are needed to determine a device's speed",
            code="too_few_networks",
        )
    found = store.resolve(options.lut)
    covered = covered_space(store.load(found))
    plan = PlanOptions(
        resolutions=covered.resolutions,
        classes=covered.default_classes,
        design=networks - 1,
        heldout=max(1, networks // HELDOUT_EACH),
        removals="none",
    )
    run = {field.name: getattr(options, field.name) for field in fields(ProfileRunOptions)}
    command = ProfileCommand(
        **run, space=covered.name, target=options.target, plan=plan, sources=str(found.path)
    )
    return profile(command, progress)
