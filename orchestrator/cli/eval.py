"""`bench eval`: accuracy of an architecture with inherited weights, or metrics of another task's network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.options import example, with_options
from orchestrator.cli.output import JsonOption, emit_facts
from orchestrator.cli.progress import shown_progress
from orchestrator.tasks.evaluation_options import EvalOptions

DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Image source (imagefolder:DIR, cifar10:FILE). Use it if the images have moved since training.",
    ),
]
OutsideOption = Annotated[
    bool, typer.Option("--outside", help="Allow networks that the supernet was not trained on.")
]
OnOption = Annotated[str, typer.Option("--on", help="Where networks are evaluated: auto, cpu, cuda or mps.")]
SupernetOption = Annotated[Path, typer.Option("--supernet", help="Folder of a trained supernet.")]

_EXAMPLE = example(
    "bench eval winner.json --supernet RUN",
    "bench eval winner.json --supernet RUN --precision int8 --calibration cifar10:DIR",
    "bench eval --supernet DETECTOR",
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("eval", epilog=_EXAMPLE)(with_options(eval_command))


def eval_command(options: EvalOptions, as_json: JsonOption = False) -> None:
    """Evaluate one architecture with weights inherited from a supernet, in PyTorch or as it is exported.

    Of a training for detection or segmentation: mAP or mIoU of its network on the validation images.
    """
    from orchestrator.tasks.evaluate import evaluate  # imports torch

    with shown_progress() as progress:
        evaluation = evaluate(options, progress)
    emit_facts("", evaluation.facts, as_json, percent=tuple(evaluation.metrics))
