"""`bench sensitivity`: int8 sensitivity of a network's blocks, and what to keep in fp32."""

from __future__ import annotations

import typer

from luts.format.files import check_folder
from luts.format.table import Column
from orchestrator.cli.options import example, with_options
from orchestrator.cli.output import JsonOption, emit_json, emit_rows, tell
from orchestrator.cli.progress import shown_progress
from orchestrator.tasks.evaluation_options import SensitivityOptions

_EXAMPLE = example("bench sensitivity winner.json --supernet RUN --data cifar10:DIR -o mix.json")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("sensitivity", epilog=_EXAMPLE)(with_options(sensitivity_command))


def sensitivity_command(options: SensitivityOptions, as_json: JsonOption = False) -> None:
    """Measure each block's int8 sensitivity (top-1 and agreement with fp32).

    Then find the fewest blocks that must stay fp32. Int8 is simulated in PyTorch as the exporter quantises.
    """
    from orchestrator.tasks.sensitivity import measure_sensitivity  # imports torch

    if options.output is not None:
        check_folder(options.output.parent)
    with shown_progress() as progress:
        result = measure_sensitivity(options, progress=progress)
    if options.output is not None:
        result.recipe.write(options.output)
    if as_json:
        emit_json(result.to_dict())
        return
    rows = [row.to_dict() for row in result.rows]
    emit_rows(f"{options.images} {options.split} images of {options.data}", _COLUMNS, rows, False)
    fp32 = " ".join(result.recipe.fp32)
    tell(
        f"stays fp32: {fp32}"
        if fp32
        else f"int8 loses no more than {options.within:g} points of top-1: use it for the whole network"
    )
    tell("simulated in PyTorch on few images; bench eval --precision mixed evaluates the exported program")


_COLUMNS = [
    Column("what", "network"),
    Column("top1", "top-1", 2, percent=True),
    Column("top1_low", "95 % low", 2, percent=True, spare=3),
    Column("top1_high", "high", 2, percent=True, spare=3),
    Column("agreement", "same as fp32", 2, percent=True),
    Column("error", "error of logits", 4),
]
