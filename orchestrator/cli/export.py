"""`bench export`: networks, or the blocks of a space, as files that a phone runs."""

from __future__ import annotations

import typer

from orchestrator.cli.options import example, with_options
from orchestrator.cli.output import JsonOption, show
from orchestrator.cli.progress import shown_progress
from orchestrator.tasks.export import (
    ExportBlocksCommand,
    ExportCommand,
    ExportedModels,
    export_blocks,
    export_networks,
)


def register(app: typer.Typer) -> None:
    """Add `export` and `export blocks`."""
    text = example(
        "bench export autovit-xxs-paper -o net.pte",
        "bench export timm:mobilenetv3_small_100 --runtime coreml -o net.mlpackage",
    )
    app.command("export", epilog=text)(with_options(export_command))
    blocks = example("bench export blocks autovit-nano --runtime coreml -o blocks")
    app.command("export blocks", epilog=blocks)(with_options(blocks_command))


def export_command(options: ExportCommand, as_json: JsonOption = False) -> None:
    """Export networks and check them against PyTorch.

    Several networks in one call are faster than several calls: the toolchain is loaded once. bench export blocks
    exports every block of a space.
    """
    with shown_progress() as progress:
        artifacts = export_networks(options, progress)
    show(ExportedModels(artifacts, str(options.trained)), as_json)


def blocks_command(options: ExportBlocksCommand, as_json: JsonOption = False) -> None:
    """Export every block of a space on its own, as a model of batch 1."""
    with shown_progress() as progress:
        artifacts = export_blocks(options, progress)
    show(ExportedModels(artifacts, "random"), as_json)
