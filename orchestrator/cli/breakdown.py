"""`bench breakdown`: what the latency of networks is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from luts.format.errors import UsageError
from orchestrator.breakdown.attribution import Breakdown
from orchestrator.cli.options import example, with_options
from orchestrator.cli.output import JsonOption, emit_json, output_files, print_report, say, write_table
from orchestrator.cli.progress import shown_progress
from orchestrator.tasks.breakdown import BreakdownCommand, break_down, breakdown_report
from orchestrator.tasks.options import OUTPUT

PICTURES = (".svg", ".png", ".pdf")


def register(app: typer.Typer) -> None:
    """Add the command."""
    text = example("bench breakdown autovit-xxs-paper timm:deit_tiny_patch16_224 --device host -o bars.svg")
    app.command("breakdown", epilog=text)(with_options(breakdown_command))


def breakdown_command(
    options: BreakdownCommand,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            rich_help_panel=OUTPUT,
            help="Draw stacked bars into a .svg, .png or .pdf, or write a .json; repeatable.",
        ),
    ] = None,
    operators: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=OUTPUT,
            help="Draw the parts of attention, and operators against the roofline, into a .svg, .png or .pdf.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Attribute latency to kinds of operations: attention, MLP, convolution and so on."""
    files = output_files(output, (*PICTURES, ".json"))
    drawn = output_files([operators] if operators else None, PICTURES)
    if drawn and options.method == "removal":
        raise UsageError("--operators needs the event tracer; leave --method out", code="no_tracer")
    with shown_progress() as progress:
        result = break_down(options, progress)
    title = f"{options.target.device}, {result.variant.name}"
    for file in files:
        _write(file, result, title)
        say(f"written to {file}")
    for file in drawn:
        from orchestrator.report.draw import write_figure
        from orchestrator.report.figures import operators_figure

        write_figure(file, operators_figure(result.networks, title), "--operators")
        say(f"written to {file}")
    if as_json:
        emit_json(result.to_dict())
        return
    for network in result.networks:
        print_report(breakdown_report(network, title))


def _write(file: Path, result: Breakdown, title: str) -> None:
    if file.suffix == ".json":
        write_table(file, result.to_dict())
        return
    from orchestrator.report.draw import write_figure
    from orchestrator.report.figures import breakdown_figure

    simulated = ", SIMULATED" if result.device.simulated else ""
    write_figure(file, breakdown_figure(result.networks, f"{title}{simulated}"))
