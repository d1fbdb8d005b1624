"""`bench sensitivity`: which blocks of a network lose its accuracy in int8, and what to keep in fp32."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from luts.format.errors import UsageError
from luts.format.files import check_folder
from luts.format.table import Column
from orchestrator.cli.eval import OutsideOption
from orchestrator.cli.options import NetworksOption, ResolutionOption, with_options
from orchestrator.cli.output import JsonOption, emit_json, emit_rows, tell
from orchestrator.cli.progress import shown_progress
from orchestrator.tasks.quantization import DEFAULT_IMAGES
from orchestrator.tasks.trained import Trained

_IMAGES = 500
"""Where the guess changes on one image in fifty, the standard error of the difference is 0.6 points."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("sensitivity")(with_options(sensitivity_command))


def sensitivity_command(
    *,
    data: Annotated[
        str,
        typer.Option(
            "--data", help="Images as of `bench train`: training images decide ranges, held-out ones judge."
        ),
    ],
    model: NetworksOption = None,
    weights: Annotated[Path | None, typer.Option(help="Its trained weights, FILE.safetensors.")] = None,
    supernet: Annotated[
        Path | None, typer.Option(help="Folder of a trained supernet, or of a `train --arch`.")
    ] = None,
    outside: OutsideOption = False,
    resolution: ResolutionOption = None,
    images: Annotated[int, typer.Option(min=1, help="Images it is judged on.")] = _IMAGES,
    split: Annotated[
        str, typer.Option(help="Of which part: search, which training holds out, validation or all.")
    ] = "search",
    classes: Annotated[
        str | None, typer.Option(help="Which output is which class, as of `bench compare`.")
    ] = None,
    calibration_images: Annotated[
        int, typer.Option(min=1, help="Training images that decide ranges.")
    ] = DEFAULT_IMAGES,
    within: Annotated[
        float, typer.Option(min=0, max=100, help="Points of top-1 that a mix may lose to fp32.")
    ] = 0.5,
    seed: Annotated[int, typer.Option(min=0, help="Of both choices of images.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File (.json) that --fp32 of other commands takes."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Each block of a trained network alone in int8, by top-1 and by how often the guess stays what it was in fp32;
    then the fewest that must stay fp32. Int8 is simulated in PyTorch as the exporter quantises."""
    from orchestrator.tasks.judge import Question  # brings torch
    from orchestrator.tasks.sensitivity import find_mix, summary

    if output is not None:
        if output.suffix != ".json":
            raise UsageError(f"--output {output}: what --fp32 takes is a .json file; name it so")
        check_folder(output.parent)
    with shown_progress() as progress:
        found = find_mix(
            model or (),
            Question(data, split, images, classes, seed=seed),
            trained=Trained(
                file=weights, supernet=supernet, data=data if supernet else None, outside=outside
            ),
            calibration_images=calibration_images,
            within=within / 100,
            resolution=resolution,
            progress=progress,
        )
    if output is not None:
        found.mix.write(output)
    if as_json:
        emit_json(summary(found))
        return
    rows = [row.to_dict() for row in found.rows]
    emit_rows(f"{images} {split} images of {data}", _COLUMNS, rows, False)
    kept = " ".join(found.mix.fp32)
    tell(
        f"stays fp32: {kept}"
        if kept
        else f"int8 loses no more than {within:g} points of top-1: use it as it is"
    )
    tell("simulated in PyTorch on few images; bench eval --precision mixed judges the exported program")


_COLUMNS = [
    Column("what", "network"),
    Column("top1", "top-1", 2, percent=True),
    Column("top1_low", "95 % low", 2, percent=True, spare=3),
    Column("top1_high", "high", 2, percent=True, spare=3),
    Column("agreement", "guess of fp32", 2, percent=True),
    Column("error", "error of logits", 4),
]
