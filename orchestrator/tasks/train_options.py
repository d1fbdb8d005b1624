"""Options of `bench train`, one class for each of its commands."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from luts.format.errors import UsageError
from orchestrator.tasks.options import (
    REQUIRED,
    advanced_option,
    network_option,
    option,
    output_option,
    training_option,
)
from orchestrator.tasks.parsing import parse_fraction
from search.spaces import load_arch

INIT = "Initial weights: supernet:DIR, or of one network FILE.safetensors or timm:NAME[:FILE]."
IMAGES = "Image source: imagefolder:DIR, cifar10:DIR or FILE.npz, npz:FILE, or digits."

_of_recipe = partial(training_option, shown="the recipe's")
_teacher = partial(option, panel="Teacher")


def _load(text: str, _flag: str) -> Any:
    return load_arch(text)


def _text(text: str, _flag: str) -> str:
    return text


@dataclass(frozen=True, kw_only=True)
class TrainingRunOptions:
    """What every training has; None leaves a hyper-parameter to the recipe."""

    output: Path = output_option(
        REQUIRED, "Folder of the run; an unfinished run there resumes.", flag="--output -o"
    )
    epochs: int | None = _of_recipe(None, "Number of epochs.", minimum=1)
    batch_size: int | None = _of_recipe(None, "Images of an optimizer step.", minimum=2)
    learning_rate: float | None = _of_recipe(None, "Peak learning rate.")
    clip_norm: float | None = _of_recipe(None, "Largest norm of the gradients; 0 for no limit.")
    seed: int | None = advanced_option(None, "Random seed of the run.", minimum=0, shown="the recipe's")


@dataclass(frozen=True, kw_only=True)
class TrainingDeviceOptions:
    """Where a model is trained."""

    on: str = advanced_option("auto", "Where to train: auto, cpu, cuda or mps.")
    workers: int = advanced_option(0, "Processes that prepare images.", minimum=0, maximum=256)


@dataclass(frozen=True, kw_only=True)
class ClassifierOptions(TrainingRunOptions, TrainingDeviceOptions):
    """`bench train`: a supernet, or with `arch` one network."""

    data: str = training_option(REQUIRED, IMAGES)
    space: Any = network_option(
        None, "Search space of the supernet.", parse=_text, shown="the space of --arch"
    )
    arch: Any = network_option(
        None,
        "Train only this network: a name, a JSON file, timm:NAME or timm:NAME@PX.",
        flag="--arch --model",
        parse=_load,
    )
    init: str | None = network_option(None, INIT, shown="random")
    classes: int | None = network_option(
        None, "With --init: a new classifier for this many classes.", minimum=1
    )
    freeze: int | None = network_option(
        None, "First stages, including the stem, whose weights are frozen.", minimum=0
    )
    recipe: Any = option("default", "Recipe: a name, or a file FILE.toml.", parse=_text, shown="default")
    sampler: str | None = _of_recipe(None, "Subnets of a step: uniform, sandwich, balanced or exits.")
    teacher: str | None = _teacher(
        None,
        "Network to learn from: timm:NAME[:CHECKPOINT]; several for a recipe with terms, with commas between.",
    )
    distill: str | None = _teacher(None, "Distillation: none, soft or hard.", shown="the recipe's")
    alpha: float | None = _teacher(
        None,
        "Fraction of the teacher's term in the loss, such as 50%.",
        parse=parse_fraction,
        shown="the recipe's",
    )
    tau: float | None = _teacher(None, "Temperature of soft distillation.", shown="the recipe's")
    teacher_resolution: int | None = _teacher(
        None, "Pixels of the images that the teacher was trained on.", minimum=1, maximum=4096
    )
    teacher_labels: Path | None = option(
        None, "Folder of stored teacher logits, created and completed as needed.", panel="Teacher"
    )
    precision: str | None = advanced_option(
        None, "Of the forward and backward pass: fp32, bf16 or fp16.", shown="the recipe's"
    )
    micro_batches: int | None = advanced_option(
        None, "Parts of a batch, shared by the processes of torchrun.", minimum=1, shown="the recipe's"
    )
    compiled: bool = advanced_option(
        False, "Compile modules with torch.compile, for long runs on GPUs.", flag="--compile"
    )

    def __post_init__(self) -> None:
        """Raise UsageError for options that need others."""
        if self.classes is not None and self.init is None:
            raise UsageError(
                "--classes is for a new classifier on initial weights; add --init", code="missing_option"
            )
        needs_teacher = (self.alpha, self.tau, self.teacher_labels, self.teacher_resolution)
        if self.teacher is None and (
            self.distill not in (None, "none") or any(value is not None for value in needs_teacher)
        ):
            raise UsageError(
                "--distill, --alpha, --tau, --teacher-labels and --teacher-resolution need --teacher; add it",
                code="missing_option",
            )


@dataclass(frozen=True, kw_only=True)
class DenseOptions(TrainingRunOptions, TrainingDeviceOptions):
    """`bench train detection` and `bench train segmentation`; each command sets its own `task`."""

    task: Literal["detection", "segmentation"] = "detection"
    data: str = training_option(REQUIRED, "Annotated images: coco:DIR or voc:DIR.")
    arch: Any = network_option(
        REQUIRED,
        "Backbone: a name, a JSON file, timm:NAME or timm:NAME@PX.",
        flag="--arch --model",
        parse=_load,
    )
    head: str = network_option("", "Head of the network, such as deeplab.", shown="the task's first")
    classes: int | None = network_option(None, "Expected number of categories of the images.", minimum=1)
    init: str | None = network_option(None, INIT, shown="random")
    init_data: str | None = network_option(
        None, "Image source of the --init supernet, where its images have moved."
    )
    backbone_rate: float | None = training_option(
        None, "Learning rate of the backbone as a fraction of the head's.", shown="0.3"
    )
    freeze_backbone: bool = network_option(False, "Train the head alone.")
    warmup_epochs: float | None = training_option(None, "Epochs of linear warm-up.", shown="1")
    augmented: bool = training_option(
        True, "Crop, scale and mirror training images.", flag="--augment/--no-augment"
    )


@dataclass(frozen=True, kw_only=True)
class QatOptions(TrainingRunOptions):
    """`bench train qat`: quantisation-aware fine-tuning of one network."""

    data: str = training_option(REQUIRED, IMAGES)
    arch: Any = network_option(
        REQUIRED, "Network to fine-tune: a name, or a JSON file.", flag="--arch --model", parse=_load
    )
    init: str = network_option(REQUIRED, "Its trained weights: supernet:DIR or FILE.safetensors.")
    recipe: Any = option("default", "Recipe: a name, or a file FILE.toml.", parse=_text, shown="default")
