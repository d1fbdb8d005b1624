"""`bench export`, `bench eval`, `bench compare`, `bench sensitivity`: networks with weights, and their accuracy."""

from __future__ import annotations

import typer

from luts.format.table import Facts, Result
from orchestrator.cli.options import add_command
from orchestrator.tasks.evaluation_options import CompareOptions, EvalOptions, SensitivityOptions
from orchestrator.tasks.export import (
    ExportBlocksCommand,
    ExportCommand,
    ExportedModels,
    export_blocks,
    export_networks,
)
from orchestrator.tasks.progress import Progress


def register(app: typer.Typer) -> None:
    """Add the commands."""
    add_command(
        app,
        "export",
        _export,
        "bench export autovit-xxs-paper -o net.pte",
        "bench export timm:mobilenetv3_small_100 --runtime coreml -o net.mlpackage",
    )
    blocks = "bench export blocks autovit-nano --runtime coreml -o blocks"
    add_command(app, "export blocks", _export_blocks, blocks)
    add_command(
        app,
        "eval",
        _evaluate,
        "bench eval winner.json --supernet RUN",
        "bench eval winner.json --supernet RUN --precision int8 --calibration cifar10:DIR",
        "bench eval --supernet DETECTOR",
    )
    add_command(
        app,
        "compare",
        _compare,
        "bench compare winner.json timm:mobilenetv3_small_100 --supernet RUN --data imagefolder:DIR --device host",
        "bench compare mobilevit-xxs:DETECTOR --data coco:DIR --device host",
    )
    mix = "bench sensitivity winner.json --supernet RUN --data cifar10:DIR -o mix.json"
    add_command(app, "sensitivity", _sensitivity, mix)


def _export(options: ExportCommand, progress: Progress) -> ExportedModels:
    return ExportedModels(export_networks(options, progress), str(options.trained))


def _export_blocks(options: ExportBlocksCommand, progress: Progress) -> ExportedModels:
    return ExportedModels(export_blocks(options, progress), "random")


def _evaluate(options: EvalOptions, progress: Progress) -> Facts:
    from orchestrator.tasks.evaluate import evaluate  # imports torch

    evaluation = evaluate(options, progress)
    return Facts("", evaluation.facts, tuple(evaluation.metrics))


def _compare(options: CompareOptions, progress: Progress) -> Result:
    from orchestrator.tasks.compare import compare_networks  # imports torch

    return compare_networks(options, progress)


def _sensitivity(options: SensitivityOptions, progress: Progress) -> Result:
    from orchestrator.tasks.sensitivity import measure_sensitivity  # imports torch

    return measure_sensitivity(options, progress=progress)
