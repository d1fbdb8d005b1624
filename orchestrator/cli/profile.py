"""`bench profile`: measure a space on a device and write its LUT."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.lut_table import emit_entries, provenance
from orchestrator.cli.options import AccessOptions, DeviceOption, VariantOptions, target_of, with_options
from orchestrator.cli.output import JsonOption, emit_facts, emit_json, say
from orchestrator.cli.plan import show_plan
from orchestrator.cli.plan_options import PlanOptions
from orchestrator.cli.progress import shown_progress
from orchestrator.cli.run_options import ProfilingOptions, RunOptions
from orchestrator.measure.session import Measurement
from orchestrator.plan.plan import Policy
from orchestrator.simulate.compare import GroundTruthComparison
from orchestrator.tasks.plan import plan_profile
from orchestrator.tasks.profile import Profile, profile

_PLANNED = ("budget_s", "narrow", "pace_us", "store", "workers")
"""Options that decide a plan; the others are of its execution."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("profile")(with_options(profile_command))


def profile_command(
    device: DeviceOption,
    *,
    space: Annotated[str, typer.Option(help="Search space to profile.")] = "autovit-xxs",
    variant: VariantOptions,
    plan: PlanOptions,
    sources: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="LUT[,LUT...] of other devices to learn from too; none: from scratch; the best at hand.",
        ),
    ] = None,
    plan_only: Annotated[
        bool, typer.Option("--plan-only", help="Say what would be measured, and stop.")
    ] = False,
    profiling: ProfilingOptions,
    run: RunOptions,
    access: AccessOptions,
    as_json: JsonOption = False,
) -> None:
    """Measure every block of a space on a device and write a new version of its LUT.

    A run that was cut off goes on where it was: give the same command again.
    """
    target, choice = target_of(device, variant, access), replace(plan.choice, sources=sources)
    asked = profiling.parse()
    if plan_only:
        planned = plan_profile(space, target, choice, **{name: asked[name] for name in _PLANNED})
        show_plan(planned, as_json)
        return
    with shown_progress() as progress:
        profiled = profile(space, target, choice, **asked, **run.parse(), progress=progress)
    show_profile(profiled, as_json)


def say_how(profiled: Profile) -> None:
    """How measuring went."""
    if measurement := profiled.measurement:
        say(f"{measurement.batches_kept} batches kept, {measurement.batches_rejected} repeated")
        say(why_it_ended(measurement, profiled.policy))
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


def _truth(truth: GroundTruthComparison, path: Path) -> str:
    heldout = "" if truth.heldout_mape is None else f", held-out MAPE {100 * truth.heldout_mape:.2f} %"
    return (
        f"SIMULATED, truth known ({path}): {100 * truth.covered:.0f} % of {truth.entries} entries' intervals "
        f"hold it, entries off by {100 * truth.entry_error:.1f} %{heldout}"
    )


def why_it_ended(measurement: Measurement, policy: Policy) -> str:
    """Why no further pass was made."""
    width = measurement.prediction_half_width
    within = "" if width is None else f", held-out networks are predicted within {100 * width:.2f} %"
    reason = {
        "narrow": f"every model's interval is within {100 * policy.half_width:g} %",
        "predictions": f"predictions are within {100 * policy.heldout_half_width:g} %",
        "budget": "the budget is used up",
        "passes": f"all {policy.max_passes} passes are made",
    }[measurement.ending]
    return f"ended because {reason}{within}"
