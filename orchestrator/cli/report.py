"""`bench report`: a LUT or a whole run as one HTML file."""

from __future__ import annotations

import webbrowser
from dataclasses import dataclass
from pathlib import Path

import typer

from luts.format.errors import UsageError
from orchestrator.cli.options import open_store, with_options
from orchestrator.cli.output import say
from orchestrator.tasks.options import StoreOptions, option


@dataclass(frozen=True, kw_only=True)
class ReportOptions(StoreOptions):
    """Options of `bench report`."""

    lut: str | None = option(None, "LUT to report on.")
    run: Path | None = option(
        None,
        "Folder that `bench search -o`, `bench train` or `make demo` wrote, or one with several trainings.",
    )
    output: Path | None = option(
        None, "HTML file.", flag="--output -o", shown="report.html in the run's folder"
    )
    show: bool = option(False, "Open it in the browser.", flag="--open")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("report")(with_options(report_command))


def report_command(options: ReportOptions) -> None:
    """Write a self-contained HTML report of a LUT or a run."""
    # matplotlib takes most of a second to import
    from orchestrator.tasks.report import report_lut, report_run

    store = open_store(options)
    if options.lut is not None and options.run is None:
        path = report_lut(options.lut, options.output, store)
    elif options.run is not None and options.lut is None:
        path = report_run(options.run, options.output, store)
    else:
        raise UsageError("give either --lut LUT or --run FOLDER", code="incomplete_options")
    print(path)
    if options.show and not webbrowser.open(path.resolve().as_uri()):
        say(f"no browser could be started; open {path} yourself")
