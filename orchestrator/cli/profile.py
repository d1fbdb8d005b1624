"""`bench profile`: measure a space on a device and write its LUT."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

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
    parse_variant,
)
from orchestrator.cli.output import Column, JsonOption, emit_facts, emit_json, emit_rows, progress_bar, say
from orchestrator.cli.spaces import parse_resolutions
from orchestrator.devices.discover import resolve
from orchestrator.measure.plan import Plan, make_plan
from orchestrator.measure.policy import Policy
from orchestrator.measure.profile import finish_profile, lut_of, run_label, subject_of
from orchestrator.measure.runs import Run, find_run
from orchestrator.measure.session import check_runtime, default_threads, measure
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
    design: Annotated[int | None, typer.Option(min=0, help="Random models; one for five block keys.")] = None,
    heldout: Annotated[
        int | None, typer.Option(min=0, help="Models held out; a fifth of all, at least 10.")
    ] = None,
    removals: Annotated[str, typer.Option(help="all, reference or none: whose blocks are removed.")] = "all",
    seed: Annotated[int, typer.Option(help="Of plan and schedule.")] = 0,
    plan_only: Annotated[
        bool, typer.Option("--plan-only", help="Say what would be measured, and stop.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew where a run was not finished.")] = False,
    reuse: Annotated[
        bool, typer.Option("--reuse", help="Keep the LUT of an equal run that was finished.")
    ] = False,
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
    budget_s = parse_budget(budget)
    if removals not in ("all", "reference", "none"):
        raise UsageError(f"--removals {removals!r}: expected all, reference or none")
    searched = get_space(space)
    plan = make_plan(
        searched.with_classes(classes) if classes else searched,
        resolutions=parse_resolutions(resolution),
        seed=seed,
        design=design,
        heldout=heldout,
        removals=removals,  # type: ignore[arg-type]
    )
    if plan_only:
        _show_plan(plan, as_json)
        return
    found = resolve(device, parse_access(agent, allow, app))
    store = lut_store(luts)
    with found:
        if threads is None and device != "host":
            variant = default_threads(found, variant)
        label = run_label(found.name, plan, variant)
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
                Policy.of(variant.is_simulated),
                budget_s=budget_s,
                progress=progress,
            )
    lut = lut_of(plan, files, measurement, run, found.name)
    path = finish_profile(lut, run, store)
    say(f"{measurement.batches_kept} batches kept, {measurement.batches_rejected} repeated")
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


def _show_plan(plan: Plan, as_json: bool) -> None:
    space = get_space(plan.space)
    keys = [spec.key for spec in space.with_classes(plan.classes).block_specs(plan.resolutions)]
    seen = Counter(key for model in plan.models if model.role != "heldout" for key in set(model.blocks))
    rows: list[dict[str, Any]] = [
        {"key": key, "models": seen[key], "removed": any(m.removed_key == key for m in plan.models)}
        for key in sorted(keys, key=lambda key: (seen[key], key))
    ]
    roles = Counter(model.role for model in plan.models)
    if as_json:
        emit_json({"digest": plan.digest, "models": dict(roles), "blocks": rows})
        return
    columns = [
        Column("key", "block"),
        Column("models", "models with it"),
        Column("removed", "removal measured"),
    ]
    emit_rows("", columns, rows, False)
    print(f"{len(plan.models)} models: " + ", ".join(f"{n} {role}" for role, n in roles.items()))
