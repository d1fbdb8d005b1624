"""`bench doctor`: what is installed, and what to do about the rest."""

from __future__ import annotations

import typer

from orchestrator.cli.output import Column, JsonOption, emit_rows
from orchestrator.tasks.doctor import Need, doctor


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor")(doctor_command)


def doctor_command(as_json: JsonOption = False) -> None:
    """Packages, tools and agents, what each is needed for, and what keeps phones from being seen."""
    columns = [
        Column("name", "name"),
        Column("found", "found"),
        Column("for", "needed for"),
        Column("next_step", "what to do"),
    ]
    emit_rows("", columns, [_row(need) for need in doctor()], as_json)


def _row(need: Need) -> dict[str, str]:
    return {
        "name": need.name,
        "found": need.present or "missing",
        "for": need.use,
        "next_step": "" if need.present else need.remedy,
    }
