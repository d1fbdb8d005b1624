"""Every block of a space measured on a device: a new version of its LUT."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from luts.format.errors import UsageError
from luts.format.files import check_folder
from luts.format.lut import Lut
from luts.format.store import LutStore, lut_store
from orchestrator.devices.host import scenario_of
from orchestrator.export.artifacts.spec import Variant
from orchestrator.journal.runs import Run, find_run, runs_root
from orchestrator.measure.engine import EngineOptions
from orchestrator.measure.session import Measurement, measure
from orchestrator.plan.plan import Policy
from orchestrator.plan.sizing import seed_design
from orchestrator.simulate.compare import GroundTruthComparison, compare_lut_with_truth, write_truth
from orchestrator.simulate.device import GroundTruth
from orchestrator.tasks.exported_plan import export_plan
from orchestrator.tasks.further import FurtherNetworks
from orchestrator.tasks.plan import PlanChoice, choose_plan, policy_of
from orchestrator.tasks.profiled_lut import lut_of, run_label, space_keys, subject_of
from orchestrator.tasks.progress import Note, Progress, silent, steps
from orchestrator.tasks.sources import Sources, covering, find_sources
from orchestrator.tasks.target import Target, lut_name


@dataclass(frozen=True)
class Profile:
    """A LUT and how it came about.

    Attributes:
        path: The LUT's folder.
        lut: As it lies there.
        folder: The run's.
        policy: By which it was measured.
        measurement: None where an equal run was finished before.
        truth: Of a simulated device, how close the LUT came; `truth.json` in the run's folder.
    """

    path: Path
    lut: Lut
    folder: Path
    policy: Policy
    measurement: Measurement | None = None
    truth: GroundTruthComparison | None = None


def profile(
    space: str,
    target: Target | str,
    choice: PlanChoice | None = None,
    *,
    budget_s: float = 900.0,
    narrow: float | None = None,
    self_test: bool = True,
    pace_us: int = 0,
    name: str | None = None,
    run_folder: Path | None = None,
    fresh: bool = False,
    reuse: bool = False,
    store: LutStore | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> Profile:
    """Measure every block of a space on a device and write a new version of its LUT.

    A run that was cut off goes on where it was when it is called with the same arguments again.

    Args:
        space: Name of the space.
        target: The device; all else by default if it is its name alone.
        choice: What the plan covers and how large it is.
        budget_s: Seconds after which no further pass is begun.
        narrow: Half-width of predictions at which measuring ends, a share; 0.015 by default.
        self_test: Ask the device first what settle runs and the company of other models cost.
        pace_us: Microseconds between the starts of calls; back to back by default.
        name: Of the device in the LUT, where its own would not tell it apart.
        run_folder: Of the run's journal; by default found by what is measured.
        fresh: Begin anew where a run was not finished.
        reuse: Keep the LUT of an equal run that was finished.
        store: Where the LUT is written; the user's by default.
        workers: Exporting processes; all cores by default.
        progress: Told of every export and batch.

    Raises:
        UsageError: a space, variant or plan that there is not, or the run is finished and not to be reused.
        BlocktimeError: too few models can be exported.
        DeviceError: the device is not there, or was lost for good.
        MeasurementRejectedError: the journal belongs to another measurement, or the device is too noisy.
    """
    target, store = Target.of(target), store or lut_store()
    policy = policy_of(target.variant, narrow, self_test, pace_us)
    check_folder(store.roots[0], "give another folder with --luts or BLOCKTIME_LUTS")
    if run_folder is not None:
        check_folder(run_folder, "give another folder with --run")
    with target.found() as device:
        device_name, choice = lut_name(device, name), choice or PlanChoice()
        sources = find_sources(
            store,
            choice.sources,
            space=space,
            device=device_name,
            variant=target.variant.name,
            simulated=target.variant.is_simulated,
        )
        plan, expectation = choose_plan(space, choice, policy, budget_s, store, sources)
        sources = covering(sources, space_keys(plan))
        at_first, room = seed_design(plan) if sources.named else (plan, 0)

        def find(variant: Variant) -> Run:
            label = run_label(device_name, plan, variant, pace_us)
            return Run(run_folder) if run_folder else find_run(runs_root(), label, fresh=fresh, reuse=reuse)

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
            if not reuse:
                raise UsageError(
                    f"{run.folder} is finished ({run.result}); add --reuse, or choose another folder"
                )
            return Profile(Path(str(run.result)), store.load(str(run.result)), run.folder, policy)
        progress(Note(f"run {run.folder}"))
        if sources.names:
            progress(Note(_learning(sources)))
        networks = FurtherNetworks(exported, room, sources, variant, expectation, workers, progress)
        measurement = measure(
            device,
            variant,
            subject_of(exported.plan, exported.files),
            run.journal,
            policy,
            EngineOptions(
                budget_s=budget_s,
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


def _learning(sources: Sources) -> str:
    told = f"learning from {', '.join(sources.names)} too"
    return told if sources.named else f"{told}, the best LUT at hand; --from none makes one from scratch"


def compare_with_truth(device: str, threads: int, lut: Lut, run: Run) -> GroundTruthComparison | None:
    """What no real device can tell: how close the LUT came."""
    scenario = scenario_of(device)
    if scenario is None:
        return None
    comparison = compare_lut_with_truth(lut, GroundTruth(scenario.costs, threads))
    models = {model.model_id: model.blocks for model in lut.models}
    write_truth(run.folder / "truth.json", scenario, threads, models, comparison)
    return comparison
