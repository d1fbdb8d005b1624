"""`bench doctor`: check this machine, build the native timing functions, and manage the cache."""

from __future__ import annotations

import typer

from orchestrator.cli.options import add_command
from orchestrator.cli.output import say
from orchestrator.tasks.doctor import cache, check_machine
from orchestrator.tasks.native import build_native


def register(app: typer.Typer) -> None:
    """Add the commands."""
    add_command(app, "doctor", check_machine)
    app.command("doctor native")(native_command)
    add_command(app, "doctor cache", cache)


def native_command() -> None:
    """Build the native functions with which the Python agent times calls; needs g++, takes up to a minute."""
    say("building, up to a minute")
    print(build_native())
