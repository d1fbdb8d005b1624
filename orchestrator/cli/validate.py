"""`bench validate`: a LUT's predictions against new measurements."""

from __future__ import annotations

import typer

from orchestrator.cli.options import add_command
from orchestrator.tasks.validate import validate


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(app, "validate", validate, "bench validate --lut pixel8/autovit-nano --device pixel8")
