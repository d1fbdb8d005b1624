"""`bench blocks`: token mixers compared on a device, ranked at equal width and resolution."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.options import example, with_options
from orchestrator.cli.output import JsonOption, output_files, show, write_table
from orchestrator.cli.progress import shown_progress
from orchestrator.tasks.blocks import BlocksCommand, compare_mixers
from orchestrator.tasks.options import OUTPUT


def register(app: typer.Typer) -> None:
    """Add the command."""
    command = app.command(
        "blocks", epilog=example("bench blocks --device host --resolution 16,32 -o blocks.png")
    )
    command(with_options(blocks_command))


def blocks_command(
    options: BlocksCommand,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            rich_help_panel=OUTPUT,
            help="A .png to draw or a .json to write; repeatable.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Rank token mixers, and ViT layers that drop tokens, by latency at equal width and resolution.

    The latency is what one more copy costs in a network: chains of one and of three copies are measured together,
    and their difference is the cost of two.
    """
    files = output_files(output, (".png", ".json"))
    with shown_progress() as progress:
        result = compare_mixers(options, progress)
    for path in files:
        if path.suffix == ".json":
            write_table(path, result.to_dict())
            continue
        from orchestrator.report.draw import write_figure
        from orchestrator.report.figures import blocks_figure

        write_figure(path, blocks_figure(result.to_dict()["blocks"], result.title))
    show(result, as_json)
