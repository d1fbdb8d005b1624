"""`bench profile`: measure a space on a device and write its LUT."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from luts.errors import UsageError
from luts.lut import Lut
from orchestrator.cli.exports import model_files
from orchestrator.cli.lut import emit_entries, provenance
from orchestrator.cli.options import (
    AgentOption,
    AllowOption,
    AppOption,
    BackendOption,
    BudgetOption,
    DeviceOption,
    PrecisionOption,
    RuntimeOption,
    ThreadsOption,
    WorkersOption,
    parse_access,
    parse_budget,
    parse_name,
    parse_variant,
)
from orchestrator.cli.output import JsonOption, emit_facts, emit_json, progress_bar, say
from orchestrator.cli.planning import choose_plan, expectation_like, known_expectation, show_plan
from orchestrator.cli.spaces import parse_resolutions
from orchestrator.devices.discover import resolve
from orchestrator.export.cache import ArtifactCache
from orchestrator.measure.policy import Policy
from orchestrator.measure.profile import finish_profile, lut_of, prediction_width_of, run_label, subject_of
from orchestrator.measure.runs import Run, find_run
from orchestrator.measure.session import Measurement, check_runtime, default_threads, measure
from orchestrator.paths import lut_store, runs_root
from orchestrator.simulate.compare import compare, write_truth
from orchestrator.simulate.device import scenario_of
from orchestrator.simulate.scenario import Scenario
from orchestrator.simulate.truth import Truth
from search.spaces import get_space


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("profile")(profile_command)


def profile_command(
    device: DeviceOption,
    space: Annotated[str, typer.Option(help="Search space to profile.")],
    runtime: RuntimeOption = "executorch",
    backend: BackendOption = None,
    precision: PrecisionOption = None,
    threads: ThreadsOption = None,
    budget: BudgetOption = "15m",
    resolution: Annotated[
        str | None, typer.Option(help="Input sizes, e.g. 192,256; the space's default.")
    ] = None,
    classes: Annotated[
        int | None, typer.Option(min=1, help="Of the classifier; the space's default.")
    ] = None,
    models: Annotated[
        int | None, typer.Option(min=1, help="Whole models in all; as many as fit the budget.")
    ] = None,
    design: Annotated[
        int | None, typer.Option(min=0, help="Design models; one for three block keys.")
    ] = None,
    heldout: Annotated[
        int | None, typer.Option(min=0, help="Models held out; a fifth of all, at least 10.")
    ] = None,
    removals: Annotated[
        str | None, typer.Option(help="all, reference or none: whose blocks are removed or swapped.")
    ] = None,
    like: Annotated[
        str | None, typer.Option(help="LUT of a similar device: latencies to expect, for the plan.")
    ] = None,
    narrow: Annotated[
        float | None, typer.Option(min=0, help="Stop at predictions within this, percent; 1.5.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of plan and schedule.")] = 0,
    plan_only: Annotated[
        bool, typer.Option("--plan-only", help="Say what would be measured, and stop.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew where a run was not finished.")] = False,
    reuse: Annotated[
        bool, typer.Option("--reuse", help="Keep the LUT of an equal run that was finished.")
    ] = False,
    name: Annotated[
        str | None, typer.Option(help="Of the device in the LUT, where its own would not tell it apart.")
    ] = None,
    run_folder: Annotated[Path | None, typer.Option("--run", help="Folder of the run's journal.")] = None,
    luts: Annotated[Path | None, typer.Option("--luts", help="Where the LUT is written.")] = None,
    agent: AgentOption = "python",
    allow: AllowOption = None,
    app: AppOption = None,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure every block of a space on a device and write a new version of its LUT.

    A run that was cut off goes on where it was: give the same command again.
    """
    variant = parse_variant(device, runtime, backend, precision, threads)
    if name is not None:
        parse_name(name)
    budget_s = parse_budget(budget)
    policy = Policy.of(variant.is_simulated)
    if narrow is not None:
        policy = replace(policy, heldout_half_width=narrow / 100)
    searched = get_space(space)
    store = lut_store(luts)
    expectation = expectation_like(store, like)
    plan = choose_plan(
        searched.with_classes(classes) if classes else searched,
        policy,
        budget_s,
        resolutions=parse_resolutions(resolution),
        seed=seed,
        models=models,
        design=design,
        heldout=heldout,
        removals=removals,
        expectation=expectation,
    )
    if plan_only:
        expectation = known_expectation(store, device, variant, expectation)
        show_plan(plan, expectation, policy, variant, ArtifactCache(), as_json)
        return
    found = resolve(device, parse_access(agent, allow, app))
    with found:
        if threads is None and device != "host":
            variant = default_threads(found, variant)
        label = run_label(name or found.name, plan, variant)
        run = Run(run_folder) if run_folder else find_run(runs_root(), label, fresh=fresh, reuse=reuse)
        if run.result is not None:
            if not reuse:
                raise UsageError(
                    f"{run.folder} is finished ({run.result}); add --reuse, or choose another folder"
                )
            _report(run.result, as_json)
            return
        with found.connect() as client:
            check_runtime(found.name, client.hello(), variant)
        say(f"{len(plan.models)} models for {len(plan.covered_keys())} blocks of {space}, run {run.folder}")
        specs = {model.model_id: variant.export_spec(model.blocks) for model in plan.models}
        files = model_files(variant, specs, workers)
        with progress_bar() as progress:
            measurement = measure(
                found,
                variant,
                subject_of(plan, files),
                run.journal,
                policy,
                budget_s=budget_s,
                progress=progress,
                prediction_width=prediction_width_of(plan, files),
            )
    lut = lut_of(plan, files, measurement, run, name or found.name)
    path = finish_profile(lut, run, store)
    say(f"{measurement.batches_kept} batches kept, {measurement.batches_rejected} repeated")
    say(_why_it_ended(measurement, policy))
    if scenario := scenario_of(device):
        _tell_truth(scenario, variant.threads, lut, run)
    _report(str(path), as_json)


def _tell_truth(scenario: Scenario, threads: int, lut: Lut, run: Run) -> None:
    """What no real device can tell: how close the LUT came."""
    found = compare(lut, Truth(scenario.costs, threads))
    path = run.folder / "truth.json"
    write_truth(path, scenario, threads, {model.model_id: model.blocks for model in lut.models}, found)
    heldout = "" if found.heldout_mape is None else f", held-out MAPE {100 * found.heldout_mape:.2f} %"
    say(
        f"SIMULATED, truth known ({path}): {100 * found.covered:.0f} % of {found.entries} entries' intervals "
        f"hold it, entries off by {100 * found.entry_error:.1f} %{heldout}"
    )


def _report(path: str, as_json: bool) -> None:
    lut = lut_store().load(path)
    entries = sorted(lut.entries, key=lambda e: (-e.ms, e.key))
    if as_json:
        rows = [entry.model_dump() for entry in entries]
        emit_json({"path": path, "meta": lut.meta.model_dump(), "entries": rows})
        return
    emit_facts(path, dict(provenance(lut)), False)
    emit_entries(entries)


def _why_it_ended(measurement: Measurement, policy: Policy) -> str:
    width = measurement.prediction_half_width
    within = "" if width is None else f", held-out networks are predicted within {100 * width:.2f} %"
    reason = {
        "narrow": f"every model's interval is within {100 * policy.half_width:g} %",
        "predictions": f"predictions are within {100 * policy.heldout_half_width:g} %",
        "budget": "the budget is used up",
        "passes": f"all {policy.max_passes} passes are made",
    }[measurement.ending]
    return f"ended because {reason}{within}"
