"""Every block of a space measured on a device: a new version of its LUT."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from luts.format.errors import UsageError
from luts.format.files import check_folder
from luts.format.lut import Lut
from luts.format.store import LutStore
from orchestrator.devices.host import scenario_of
from orchestrator.export.artifacts.spec import Variant
from orchestrator.journal.runs import Run, find_run, runs_root
from orchestrator.measure.engine import EngineOptions
from orchestrator.measure.session import Measurement, measure
from orchestrator.plan.plan import Policy
from orchestrator.plan.sizing import seed_design
from orchestrator.simulate.compare import GroundTruthComparison, compare_lut_with_truth, write_truth
from orchestrator.simulate.device import GroundTruth
from orchestrator.tasks.exported_plan import GrowingPlan, export_plan
from orchestrator.tasks.plan import ProfileCommand, choose_plan, policy_of
from orchestrator.tasks.profiled_lut import lut_of, run_label, space_keys, subject_of
from orchestrator.tasks.progress import Note, Progress, silent, steps
from orchestrator.tasks.sources import Sources, covering, find_sources
from orchestrator.tasks.target import lut_name


@dataclass(frozen=True)
class Profile:
    """A LUT and how it came about.

    Attributes:
        path: The LUT's folder.
        lut: The LUT as it was written.
        folder: Folder of the run.
        policy: Policy of the measurement.
        measurement: The measurement; None if an identical run was finished before.
        truth: How close the LUT came to a simulated device's truth (`truth.json` in the run's folder).
    """

    path: Path
    lut: Lut
    folder: Path
    policy: Policy
    measurement: Measurement | None = None
    truth: GroundTruthComparison | None = None


def profile(options: ProfileCommand, progress: Progress = silent) -> Profile:
    """Measure every block of a space on a device and write a new version of its LUT.

    An interrupted run resumes when this is called with the same options again.

    Raises:
        UsageError: an unknown space, variant or plan, or the run is finished and `reuse` is false.
        BlocktimeError: too few models can be exported.
        DeviceError: the device was not found, or was lost for good.
        MeasurementRejectedError: the journal belongs to another measurement, or the device is too noisy.
    """
    target, store, space = options.target, options.open_store(progress, create=True), options.space
    pace_us, run_folder, workers = options.pace_us, options.run_folder, options.workers
    policy = policy_of(target.variant, options.narrow, options.self_test, pace_us)
    check_folder(store.roots[0], "give another folder with --luts or BLOCKTIME_LUTS")
    if run_folder is not None:
        check_folder(run_folder, "give another folder with --run")
    with target.found() as device:
        device_name = lut_name(device, options.name)
        sources = find_sources(
            store,
            options.sources,
            space=space,
            device=device_name,
            variant=target.variant.name,
            simulated=target.variant.is_simulated,
        )
        plan, expectation = choose_plan(space, options.plan, policy, options.budget_s, store, sources)
        sources = covering(sources, space_keys(plan))
        at_first, room = seed_design(plan) if sources.named else (plan, 0)

        def find(variant: Variant) -> Run:
            label = run_label(device_name, plan, variant, pace_us)
            return (
                Run(run_folder)
                if run_folder
                else find_run(runs_root(), label, fresh=options.fresh, reuse=options.reuse)
            )

        run = find(target.variant) if target.is_settled else None
        exported = None
        if run is None or run.result is None:
            most = "at most " if room else ""
            progress(
                Note(f"{most}{len(plan.models)} models for {len(plan.covered_keys())} blocks of {space}")
            )
            exported = export_plan(at_first, target.variant, expectation, workers, progress)
        variant = target.variant_on(device)
        run = run or find(variant)
        if exported is None or run.result is not None:
            return _finished(run, options.reuse, store, policy)
        progress(Note(f"run {run.folder}"))
        if sources.names:
            progress(Note(_learning(sources)))
        networks = GrowingPlan(exported, room, sources, variant, expectation, workers, progress)
        measurement = measure(
            device,
            variant,
            subject_of(exported.plan, exported.files),
            run.journal,
            policy,
            EngineOptions(
                budget_s=options.budget_s,
                progress=steps(progress),
                prediction_half_width=networks.width,
                planner=networks if room else None,
            ),
            usage_of=[exported.plan.reference.model_id],
        )
    lut = lut_of(
        networks.plan, networks.files, measurement, device_name, networks.unexported, sources=sources
    )
    path = store.write(lut)
    run.finish(str(path))
    truth = compare_with_truth(target.device, variant.threads, lut, run)
    return Profile(path, store.load(path), run.folder, policy, measurement, truth)


def _finished(run: Run, reuse: bool, store: LutStore, policy: Policy) -> Profile:
    """Return the profile of a finished run; raise UsageError unless it may be reused."""
    if not reuse:
        raise UsageError(
            f"{run.folder} is finished ({run.result}); add --reuse, or choose another folder with --run",
            code="finished_run",
        )
    return Profile(Path(str(run.result)), store.load(str(run.result)), run.folder, policy)


def _learning(sources: Sources) -> str:
    text = f"learning from {', '.join(sources.names)} too"
    return text if sources.named else f"{text}, the best LUT at hand; --from none makes one from scratch"


def compare_with_truth(device: str, threads: int, lut: Lut, run: Run) -> GroundTruthComparison | None:
    """Compare a simulated device's LUT with its truth, which no real device can tell; None for a real one."""
    scenario = scenario_of(device)
    if scenario is None:
        return None
    comparison = compare_lut_with_truth(lut, GroundTruth(scenario.costs, threads))
    models = {model.model_id: model.blocks for model in lut.models}
    write_truth(run.folder / "truth.json", scenario, threads, models, comparison)
    return comparison
