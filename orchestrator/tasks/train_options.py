"""Options of `bench train`, one class for each of its commands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from luts.format.errors import UsageError
from orchestrator.tasks.options import ADVANCED, NETWORKS, OUTPUT, REQUIRED, TRAINING, option
from orchestrator.tasks.parsing import parse_fraction
from search.spaces import load_arch

INIT = "Initial weights: supernet:DIR, or of one network FILE.safetensors or timm:NAME[:FILE]."
IMAGES = "Image source: imagefolder:DIR, cifar10:DIR or FILE.npz, npz:FILE, or digits."


def _load(text: str, _flag: str) -> Any:
    return load_arch(text)


def _text(text: str, _flag: str) -> str:
    return text


@dataclass(frozen=True, kw_only=True)
class TrainingRunOptions:
    """What every training has; None leaves a hyper-parameter to the recipe."""

    output: Path = option(
        REQUIRED, "Folder of the run; an unfinished run there resumes.", flag="--output -o", panel=OUTPUT
    )
    epochs: int | None = option(None, "Number of epochs.", minimum=1, shown="the recipe's", panel=TRAINING)
    batch_size: int | None = option(
        None, "Images of an optimizer step.", minimum=2, shown="the recipe's", panel=TRAINING
    )
    learning_rate: float | None = option(None, "Peak learning rate.", shown="the recipe's", panel=TRAINING)
    clip_norm: float | None = option(
        None, "Largest norm of the gradients; 0 for no limit.", shown="the recipe's", panel=TRAINING
    )
    seed: int | None = option(
        None, "Random seed of the run.", minimum=0, shown="the recipe's", panel=ADVANCED
    )


@dataclass(frozen=True, kw_only=True)
class TrainingDeviceOptions:
    """Where a model is trained."""

    on: str = option("auto", "Where to train: auto, cpu, cuda or mps.", panel=ADVANCED)
    workers: int = option(0, "Processes that prepare images.", minimum=0, maximum=256, panel=ADVANCED)


@dataclass(frozen=True, kw_only=True)
class ClassifierOptions(TrainingRunOptions, TrainingDeviceOptions):
    """`bench train`: a supernet, or with `arch` one network."""

    data: str = option(REQUIRED, IMAGES, panel=TRAINING)
    space: Any = option(
        None, "Search space of the supernet.", parse=_text, shown="the space of --arch", panel=NETWORKS
    )
    arch: Any = option(
        None,
        "Train only this network: a name, a JSON file, timm:NAME or timm:NAME@PX.",
        flag="--arch --model",
        parse=_load,
        panel=NETWORKS,
    )
    init: str | None = option(None, INIT, shown="random", panel=NETWORKS)
    classes: int | None = option(
        None, "With --init: a new classifier for this many classes.", minimum=1, panel=NETWORKS
    )
    freeze: int | None = option(
        None, "First stages, including the stem, whose weights are frozen.", minimum=0, panel=NETWORKS
    )
    recipe: Any = option("default", "Recipe: a name, or a file FILE.toml.", parse=_text, shown="default")
    sampler: str | None = option(
        None,
        "Subnets of a step: uniform, sandwich, balanced or exits.",
        shown="the recipe's",
        panel=TRAINING,
    )
    teacher: str | None = option(
        None,
        "Network to learn from: timm:NAME[:CHECKPOINT]; several for a recipe with terms, with commas between.",
        panel="Teacher",
    )
    distill: str | None = option(
        None, "Distillation: none, soft or hard.", shown="the recipe's", panel="Teacher"
    )
    alpha: float | None = option(
        None,
        "Fraction of the teacher's term in the loss, such as 50%.",
        parse=parse_fraction,
        shown="the recipe's",
        panel="Teacher",
    )
    tau: float | None = option(
        None, "Temperature of soft distillation.", shown="the recipe's", panel="Teacher"
    )
    teacher_resolution: int | None = option(
        None,
        "Pixels of the images that the teacher was trained on.",
        minimum=1,
        maximum=4096,
        panel="Teacher",
    )
    teacher_labels: Path | None = option(
        None, "Folder of stored teacher logits, created and completed as needed.", panel="Teacher"
    )
    precision: str | None = option(
        None, "Of the forward and backward pass: fp32, bf16 or fp16.", shown="the recipe's", panel=ADVANCED
    )
    micro_batches: int | None = option(
        None,
        "Parts of a batch, shared by the processes of torchrun.",
        minimum=1,
        shown="the recipe's",
        panel=ADVANCED,
    )
    compiled: bool = option(
        False,
        "Compile modules with torch.compile, for long runs on GPUs.",
        flag="--compile",
        panel=ADVANCED,
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
    data: str = option(REQUIRED, "Annotated images: coco:DIR or voc:DIR.", panel=TRAINING)
    arch: Any = option(
        REQUIRED,
        "Backbone: a name, a JSON file, timm:NAME or timm:NAME@PX.",
        flag="--arch --model",
        parse=_load,
        panel=NETWORKS,
    )
    head: str = option("", "Head of the network, such as deeplab.", shown="the task's first", panel=NETWORKS)
    classes: int | None = option(
        None, "Expected number of categories of the images.", minimum=1, panel=NETWORKS
    )
    init: str | None = option(None, INIT, shown="random", panel=NETWORKS)
    init_data: str | None = option(
        None, "Image source of the --init supernet, where its images have moved.", panel=NETWORKS
    )
    backbone_rate: float | None = option(
        None,
        "Learning rate of the backbone as a fraction of the head's.",
        shown="0.3",
        panel=TRAINING,
    )
    freeze_backbone: bool = option(False, "Train the head alone.", panel=NETWORKS)
    warmup_epochs: float | None = option(None, "Epochs of linear warm-up.", shown="1", panel=TRAINING)
    augmented: bool = option(
        True, "Crop, scale and mirror training images.", flag="--augment/--no-augment", panel=TRAINING
    )


@dataclass(frozen=True, kw_only=True)
class QatOptions(TrainingRunOptions):
    """`bench train qat`: quantisation-aware fine-tuning of one network."""

    data: str = option(REQUIRED, IMAGES, panel=TRAINING)
    arch: Any = option(
        REQUIRED,
        "Network to fine-tune: a name, or a JSON file.",
        flag="--arch --model",
        parse=_load,
        panel=NETWORKS,
    )
    init: str = option(REQUIRED, "Its trained weights: supernet:DIR or FILE.safetensors.", panel=NETWORKS)
    recipe: Any = option("default", "Recipe: a name, or a file FILE.toml.", parse=_text, shown="default")
