"""`bench runs`: past measurements."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from luts.format.table import write_table
from orchestrator.cli.options import with_options
from orchestrator.cli.output import TABLES, JsonOption, output_files, show
from orchestrator.cli.progress import shown_progress
from orchestrator.tasks.runs import RunLatencies, RunList, RunsOptions, read_runs
from orchestrator.tasks.sustained import SustainedRun

ROWS = {RunList: "runs", RunLatencies: "models", SustainedRun: "points"}
"""Field of the JSON document that a .csv file gets, by result."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("runs", help=RunsOptions.__doc__)(with_options(_runs))


def _runs(
    options: RunsOptions,
    output: Annotated[
        list[Path] | None,
        typer.Option("--output", "-o", help="Write the table to a .csv or everything to a .json file."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    files = output_files(output, TABLES)
    with shown_progress() as progress:
        result = read_runs(options, progress)
    for file in files:
        write_table(file, result.to_dict(), ROWS[type(result)])
    show(result, as_json)
