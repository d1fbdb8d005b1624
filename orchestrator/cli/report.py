"""`bench report`: a LUT or a whole run as one HTML file."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from luts.errors import UsageError
from orchestrator.cli.output import say
from orchestrator.paths import lut_store


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("report")(report_command)


def report_command(
    lut: Annotated[str | None, typer.Option(help="LUT to report on.")] = None,
    run: Annotated[Path | None, typer.Option(help="Folder of a run, as `make demo` leaves it.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="HTML file; for a run, report.html in its folder.")
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    luts: Annotated[Path | None, typer.Option("--luts", help="A further folder of LUTs.")] = None,
) -> None:
    """A self-contained HTML report, pictures first."""
    # matplotlib takes most of a second to import, which no other command should pay
    from orchestrator.report.inputs import ReportInputs, read_named_lut, read_run
    from orchestrator.report.page import render, write_report

    store = lut_store(luts)
    if (lut is None) == (run is None):
        raise UsageError("give either --lut LUT or --run FOLDER")
    if lut is not None:
        ref = store.resolve(lut)
        inputs, path = ReportInputs(lut=read_named_lut(ref)), Path(f"report-{'-'.join(ref.parts)}.html")
    elif run is not None:
        inputs, path = read_run(run, store), run / "report.html"
    path = output or path
    write_report(path, render(inputs))
    print(path)
    if show and not webbrowser.open(path.resolve().as_uri()):
        say(f"no browser could be started; open {path} by hand")
