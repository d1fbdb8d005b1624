"""`bench profile`: measure a space on a device and write its LUT."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.lut_table import emit_entries, provenance
from orchestrator.cli.options import example, with_options
from orchestrator.cli.output import JsonOption, emit_facts, emit_json, say, show
from orchestrator.cli.progress import shown_progress
from orchestrator.measure.session import Measurement
from orchestrator.plan.plan import Policy
from orchestrator.simulate.compare import GroundTruthComparison
from orchestrator.tasks.options import OUTPUT
from orchestrator.tasks.plan import ProfileCommand, plan_profile
from orchestrator.tasks.profile import Profile, profile


def register(app: typer.Typer) -> None:
    """Add the command."""
    text = example(
        "bench profile --device pixel8 --space autovit-xxs",
        "bench profile --device simulated --space autovit-nano --plan-only",
    )
    app.command("profile", epilog=text)(with_options(profile_command))


def profile_command(
    options: ProfileCommand,
    plan_only: Annotated[
        bool,
        typer.Option("--plan-only", help="Print what would be measured, and stop.", rich_help_panel=OUTPUT),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure every block of a space on a device and write a new version of its LUT.

    Rerun the same command to resume an interrupted run.
    """
    if plan_only:
        planned = plan_profile(options)
        show(planned, as_json)
        if not as_json:
            emit_facts("", planned.facts(), False)
        return
    with shown_progress() as progress:
        profiled = profile(options, progress)
    show_profile(profiled, as_json)


def say_how(profiled: Profile) -> None:
    """Print how measuring went."""
    if measurement := profiled.measurement:
        say(f"{measurement.batches_kept} batches kept, {measurement.batches_rejected} repeated")
        say(why_it_ended(measurement, profiled.policy))
    if profiled.truth:
        say(_truth(profiled.truth, profiled.folder / "truth.json"))


def show_profile(profiled: Profile, as_json: bool) -> None:
    """Print how measuring went, and the LUT."""
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
