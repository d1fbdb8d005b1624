"""`bench report`: a LUT or a whole run as one HTML file."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from luts.format.errors import UsageError
from orchestrator.cli.lut_store import LutsOption, open_store
from orchestrator.cli.output import say


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("report")(report_command)


def report_command(
    lut: Annotated[str | None, typer.Option(help="LUT to report on.")] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            help="Folder that `bench search -o`, `bench train` or `make demo` wrote, or one with several trainings."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="HTML file.", show_default="report.html in the run's folder"),
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    luts: LutsOption = None,
) -> None:
    """Write a self-contained HTML report of a LUT or a run."""
    # matplotlib takes most of a second to import
    from orchestrator.tasks.report import report_lut, report_run

    store = open_store(luts)
    if lut is not None and run is None:
        path = report_lut(lut, output, store)
    elif run is not None and lut is None:
        path = report_run(run, output, store)
    else:
        raise UsageError("give either --lut LUT or --run FOLDER", code="incomplete_options")
    print(path)
    if show and not webbrowser.open(path.resolve().as_uri()):
        say(f"no browser could be started; open {path} yourself")
