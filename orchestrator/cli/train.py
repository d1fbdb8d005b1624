"""`bench train`, `bench train detection`, `bench train segmentation`, `bench train qat`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import typer

from luts.format.table import Facts
from orchestrator.cli.options import example, with_options
from orchestrator.cli.output import JsonOption, show
from orchestrator.cli.progress import shown_progress
from orchestrator.tasks.train_options import ClassifierOptions, DenseOptions, QatOptions

_CLASSIFIER = example(
    "bench train --space autovit-nano --data imagefolder:DIR -o supernet",
    "bench train --arch winner.json --init supernet:supernet --data imagefolder:DIR --recipe finetune -o tuned",
)
_DETECTION = example(
    "bench train detection --arch mobilevit-xxs --init supernet:RUN --data coco:DIR -o detector"
)
_SEGMENTATION = example("bench train segmentation --arch mobilevit-xxs --data voc:DIR -o segmenter")
_QAT = example("bench train qat --arch winner.json --init supernet:RUN --data cifar10:DIR -o qat")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("train", epilog=_CLASSIFIER)(with_options(train_classifier_command))
    app.command("train detection", epilog=_DETECTION)(with_options(train_detection_command))
    app.command("train segmentation", epilog=_SEGMENTATION)(with_options(train_segmentation_command))
    app.command("train qat", epilog=_QAT)(with_options(train_qat_command))


def train_classifier_command(options: ClassifierOptions, as_json: JsonOption = False) -> None:
    """Train a weight-shared supernet (AutoViT's Algorithm 1), or with --arch one network, to classify images.

    Ctrl-C saves a checkpoint; repeat the command to resume. --init starts from trained weights, as to fine-tune the
    winner of a search. On several GPUs or nodes, which share the output folder:
    torchrun --nproc-per-node N --no-python bench train ...
    """
    from orchestrator.tasks.train import train_classifier  # imports torch

    _run(train_classifier, options, as_json)


def train_detection_command(options: DenseOptions, as_json: JsonOption = False) -> None:
    """Train a detector: a backbone with an SSD head. --init has the weights of the backbone.

    Ctrl-C saves a checkpoint; repeat the command to resume.
    """
    from orchestrator.tasks.train import train_dense

    _run(train_dense, replace(options, task="detection"), as_json)


def train_segmentation_command(options: DenseOptions, as_json: JsonOption = False) -> None:
    """Train a segmentation network: a backbone with such a head. --init has the weights of the backbone.

    Ctrl-C saves a checkpoint; repeat the command to resume.
    """
    from orchestrator.tasks.train import train_dense

    _run(train_dense, replace(options, task="segmentation"), as_json)


def train_qat_command(options: QatOptions, as_json: JsonOption = False) -> None:
    """Fine-tune a trained network with int8's rounding in the forward pass.

    For `bench export --weights FOLDER/weights.safetensors --precision int8 --calibration DATA`.
    """
    from orchestrator.tasks.train import train_qat

    _run(train_qat, options, as_json)


def _run(train: Any, options: Any, as_json: bool) -> None:
    with shown_progress() as progress:
        result = train(options, progress)
    if result is not None:
        show(Facts("", result.facts, result.percent), as_json)
