"""`bench native`: the Python agent's native calls, built on this machine."""

from __future__ import annotations

import typer

from orchestrator.cli.output import say
from orchestrator.tasks.native import build_native


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("native")(native_command)


def native_command() -> None:
    """Build the native calls with which the Python agent times; needs g++, takes up to a minute."""
    say("building, up to a minute")
    print(build_native())
