"""`bench profile`: measure a space on a device and write its LUT."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.amounts import parse_budget, parse_pace, parse_percent
from orchestrator.cli.lut_store import open_store
from orchestrator.cli.lut_table import emit_entries, provenance
from orchestrator.cli.options import (
    AccessOptions,
    BudgetOption,
    DeviceOption,
    PaceOption,
    SelfTestOption,
    VariantOptions,
    WorkersOption,
    parse_name,
    target_of,
    with_blocks,
)
from orchestrator.cli.output import JsonOption, emit_facts, emit_json, say, shown_progress
from orchestrator.cli.plan import show_plan
from orchestrator.cli.plan_options import PlanOptions
from orchestrator.measure.session import Measurement
from orchestrator.plan.policy import Policy
from orchestrator.simulate.compare import Comparison
from orchestrator.tasks.plan import plan_profile
from orchestrator.tasks.profile import Profile, profile


@dataclass(frozen=True)
class RunOptions:
    """Which run it is."""

    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew where a run was not finished.")] = False
    reuse: Annotated[
        bool, typer.Option("--reuse", help="Keep the LUT of an equal run that was finished.")
    ] = False
    name: Annotated[
        str | None, typer.Option(help="Of the device in the LUT, where its own would not tell it apart.")
    ] = None
    run_folder: Annotated[Path | None, typer.Option("--run", help="Folder of the run's journal.")] = None


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("profile")(with_blocks(profile_command))


def profile_command(
    device: DeviceOption,
    *,
    space: Annotated[str, typer.Option(help="Search space to profile.")] = "autovit-xxs",
    variant: VariantOptions,
    budget: BudgetOption = "15m",
    plan: PlanOptions,
    sources: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="LUT[,LUT...] of other devices to learn from too, or best: the best of the space at hand.",
        ),
    ] = None,
    narrow: Annotated[str | None, typer.Option(help="Stop at predictions within this; 1.5%.")] = None,
    plan_only: Annotated[
        bool, typer.Option("--plan-only", help="Say what would be measured, and stop.")
    ] = False,
    run: RunOptions,
    luts: Annotated[Path | None, typer.Option("--luts", help="Where the LUT is written.")] = None,
    access: AccessOptions,
    self_test: SelfTestOption = True,
    pace: PaceOption = None,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure every block of a space on a device and write a new version of its LUT.

    A run that was cut off goes on where it was: give the same command again.
    """
    target, budget_s = target_of(device, variant, access), parse_budget(budget)
    store = open_store(luts, made=True)
    if run.name is not None:
        parse_name(run.name)
    width = None if narrow is None else parse_percent(narrow, "--narrow") / 100
    pace_us, choice = parse_pace(pace), replace(plan.choice, sources=sources)
    if plan_only:
        planned = plan_profile(
            space,
            target,
            choice,
            budget_s=budget_s,
            narrow=width,
            pace_us=pace_us,
            store=store,
            workers=workers,
        )
        show_plan(planned, as_json)
        return
    with shown_progress() as progress:
        profiled = profile(
            space,
            target,
            choice,
            budget_s=budget_s,
            narrow=width,
            self_test=self_test,
            pace_us=pace_us,
            name=run.name,
            run_folder=run.run_folder,
            fresh=run.fresh,
            reuse=run.reuse,
            store=store,
            workers=workers,
            progress=progress,
        )
    show_profile(profiled, as_json)


def say_how(profiled: Profile) -> None:
    """How measuring went."""
    if measurement := profiled.measurement:
        say(f"{measurement.batches_kept} batches kept, {measurement.batches_rejected} repeated")
        say(_why_it_ended(measurement, profiled.policy))
    if profiled.truth:
        say(_truth(profiled.truth, profiled.folder / "truth.json"))


def show_profile(profiled: Profile, as_json: bool) -> None:
    """How measuring went, and the LUT."""
    say_how(profiled)
    path, lut = str(profiled.path), profiled.lut
    entries = sorted(lut.entries, key=lambda e: (-e.ms, e.key))
    if as_json:
        rows = [entry.model_dump() for entry in entries]
        emit_json({"path": path, "meta": lut.meta.model_dump(), "entries": rows})
        return
    emit_facts(path, dict(provenance(lut)), False)
    emit_entries(entries)


def _truth(truth: Comparison, path: Path) -> str:
    heldout = "" if truth.heldout_mape is None else f", held-out MAPE {100 * truth.heldout_mape:.2f} %"
    return (
        f"SIMULATED, truth known ({path}): {100 * truth.covered:.0f} % of {truth.entries} entries' intervals "
        f"hold it, entries off by {100 * truth.entry_error:.1f} %{heldout}"
    )


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
