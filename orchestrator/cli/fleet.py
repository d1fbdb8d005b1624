"""`bench fleet`: a space profiled on many phones at once, on many hosts."""

from __future__ import annotations

import typer

from orchestrator.cli.lut_table import provenance
from orchestrator.cli.options import example, with_options
from orchestrator.cli.output import JsonOption, emit_facts, emit_json
from orchestrator.cli.profile import say_how
from orchestrator.cli.progress import shown_progress
from orchestrator.tasks.fleet import FleetCommand, FleetProfile, profile_fleet


def register(app: typer.Typer) -> None:
    """Add the command."""
    command = app.command(
        "fleet", epilog=example("bench fleet --devices pixel8=3,iphone13=1 --space autovit-xxs")
    )
    command(with_options(fleet_command))


def fleet_command(options: FleetCommand, as_json: JsonOption = False) -> None:
    """Profile a space on many phones at once: one LUT for each class of them.

    Hosts join with `ray start --address=... --resources='{"pixel8": 2}'`; without RAY_ADDRESS all units are on this
    machine. Rerun the same command to resume an interrupted run.
    """
    with shown_progress() as progress:
        profiled = profile_fleet(options, progress)
    _show(profiled, as_json)


def _show(profiled: list[FleetProfile], as_json: bool) -> None:
    for one in profiled:
        say_how(one.profile)
    if as_json:
        emit_json(
            [
                {
                    "class": one.name,
                    "path": str(one.profile.path),
                    "batches": dict(one.batches),
                    "meta": one.profile.lut.meta.model_dump(),
                }
                for one in profiled
            ]
        )
        return
    for one in profiled:
        batches = ", ".join(f"{serial} {count}" for serial, count in sorted(one.batches.items()))
        facts = {"class": one.name, "batches": batches, **provenance(one.profile.lut)}
        emit_facts(str(one.profile.path), facts, False)
