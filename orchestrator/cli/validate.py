"""`bench validate`: a LUT's predictions against new measurements."""

from __future__ import annotations

import typer

from orchestrator.cli.options import example, with_options
from orchestrator.cli.output import JsonOption, show
from orchestrator.cli.progress import shown_progress
from orchestrator.tasks.validate import ValidateCommand, validate


def register(app: typer.Typer) -> None:
    """Add the command."""
    command = app.command(
        "validate", epilog=example("bench validate --lut pixel8/autovit-nano --device pixel8")
    )
    command(with_options(validate_command))


def validate_command(options: ValidateCommand, as_json: JsonOption = False) -> None:
    """Compare predicted and measured latency of random architectures that the LUT has not seen."""
    with shown_progress() as progress:
        result = validate(options, progress)
    show(result, as_json)
