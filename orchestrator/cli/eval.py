"""`bench eval`: the accuracy that an architecture inherits from a supernet, or the figures of another task."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from luts.format.errors import UsageError
from orchestrator.cli.calibration import CalibrationOptions
from orchestrator.cli.options import Fp32Option, with_options
from orchestrator.cli.output import JsonOption, emit_facts
from orchestrator.cli.progress import shown_progress
from search.dense.training import is_dense_run

DataOption = Annotated[
    str | None, typer.Option("--data", help="As of `bench train`; where the images lie now.")
]
SupernetOption = Annotated[Path, typer.Option("--supernet", help="Folder of a trained supernet.")]
OutsideOption = Annotated[
    bool, typer.Option("--outside", help="Allow networks that the supernet was not trained on.")
]
OnOption = Annotated[str, typer.Option("--on", help="Where networks are evaluated: auto, cpu, cuda or mps.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("eval")(with_options(eval_command))


def eval_command(
    supernet: Annotated[
        Path, typer.Option("--supernet", help="Folder of a trained supernet, or of `bench train --task`.")
    ],
    arch: Annotated[
        str | None,
        typer.Option(
            "--arch",
            "--model",
            help="Architecture by name, or its JSON file (-: stdin); that of `train --arch`.",
        ),
    ] = None,
    data: DataOption = None,
    final: Annotated[bool, typer.Option("--final", help="On the validation set: once, at the end.")] = False,
    outside: OutsideOption = False,
    on: OnOption = "auto",
    runtime: Annotated[
        str,
        typer.Option(help="executorch, or coreml: its program is evaluated in PyTorch, with --precision."),
    ] = "executorch",
    precision: Annotated[
        str | None,
        typer.Option(
            help="fp32, fp16, int8, mixed: of the program as it is exported, not of the network in PyTorch."
        ),
    ] = None,
    fp32: Fp32Option = None,
    *,
    calibration: CalibrationOptions,
    as_json: JsonOption = False,
) -> None:
    """Accuracy of one architecture with weights inherited from a supernet, in PyTorch or as it is exported.

    Of a folder of `bench train --task` mAP or mIoU on the validation images; --arch is that of the training.
    """
    if is_dense_run(supernet):
        if arch or final or outside or fp32 or calibration.calibration:
            raise UsageError(
                f"{supernet} holds one network for a task; leave "
                "--arch, --final, --outside, --fp32 and --calibration out"
            )
        _eval_dense(supernet, data, precision or "", on, as_json)
        return
    from orchestrator.tasks.evaluate import evaluate  # brings torch, which most commands can do without
    from orchestrator.tasks.export import Lowering
    from orchestrator.tasks.exported_scores import as_exported

    if fp32 and not precision:
        raise UsageError("--fp32 is for --precision mixed; add it")
    if runtime != "executorch" and not precision:
        raise UsageError(f"--runtime {runtime} is of the exported network; add --precision")
    lowering = Lowering(runtime, precision=precision, fp32=tuple(fp32 or ())) if precision else None
    with shown_progress() as progress:
        evaluation = evaluate(
            arch,
            supernet,
            data,
            final=final,
            outside=outside,
            on=on,
            scored=as_exported(lowering, calibration.parse(), progress),
            progress=progress,
        )
    facts = {
        "arch": evaluation.arch.to_json(),
        "split": evaluation.split,
        "top1": evaluation.scores.top1,
        "top5": evaluation.scores.top5,
        "params": evaluation.arch.params(),
    }
    emit_facts("", facts, as_json, percent=("top1", "top5"))


def _eval_dense(run: Path, data: str | None, precision: str, on: str, as_json: bool) -> None:
    """mAP or mIoU of what was trained for a task."""
    from orchestrator.tasks.dense_scores import evaluate_dense

    with shown_progress() as progress:
        judged = evaluate_dense(run, data, precision=precision, on=on, progress=progress)
    figures = judged.figures.to_dict()
    facts = {
        "task": judged.info.task,
        "arch": judged.info.arch,
        "data": f"{len(judged.scenes.validation)} validation images of {judged.scenes.title}",
        "judged": judged.how,
        **figures,
        "params": judged.info.network.params(),
    }
    emit_facts("", facts, as_json, percent=tuple(figures))
