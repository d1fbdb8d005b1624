"""`bench train`: supernets, and networks for other tasks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from luts.format.errors import UsageError
from orchestrator.cli.options import with_options
from orchestrator.cli.output import JsonOption, emit_facts
from orchestrator.cli.progress import shown_progress
from orchestrator.cli.train_dense import DenseOptions, DenseRun, train_dense_command
from orchestrator.tasks.parsing import parse_share
from search.spaces import load_arch

if TYPE_CHECKING:
    from search.supernet.recipe.recipe import Recipe


@dataclass(frozen=True)
class TeacherOptions:
    """The network to learn from."""

    teacher: Annotated[str | None, typer.Option(help="Network to learn from: timm:NAME[:CHECKPOINT].")] = None
    teacher_resolution: Annotated[
        int | None,
        typer.Option(min=1, max=4096, help="Pixels of the images that the teacher was trained on."),
    ] = None
    teacher_labels: Annotated[
        Path | None, typer.Option(help="Folder of the teacher's stored labels, made and completed as needed.")
    ] = None


@dataclass(frozen=True)
class RecipeOptions:
    """A recipe and what is to be otherwise than in it."""

    recipe: Annotated[str, typer.Option(help="Name of a recipe, or a file FILE.toml.")] = "default"
    distill: Annotated[
        str | None, typer.Option(help="none, soft or hard: how the teacher counts, instead of the recipe's.")
    ] = None
    alpha: Annotated[str | None, typer.Option(help="The teacher's share of the loss, e.g. 50%.")] = None
    tau: Annotated[float | None, typer.Option(help="Temperature of soft distillation.")] = None
    sampler: Annotated[
        str | None, typer.Option(help="uniform, sandwich or balanced: which subnets a step trains.")
    ] = None
    arch: Annotated[
        str | None,
        typer.Option(
            "--arch",
            "--model",
            help="Train this network alone: a name, a JSON file, timm:NAME or timm:NAME@PX.",
        ),
    ] = None
    seed: Annotated[int | None, typer.Option(min=0, help="Instead of the recipe's.")] = None
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.")] = None
    batch_size: Annotated[int | None, typer.Option(min=2, help="Instead of the recipe's.")] = None
    micro_batches: Annotated[
        int | None, typer.Option(min=1, help="Parts of a batch, shared by the processes of torchrun.")
    ] = None
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak, instead of the recipe's; may change when a run goes on.")
    ] = None
    clip_norm: Annotated[
        float | None,
        typer.Option(help="Largest norm of the gradients, 0 for none; may change when a run goes on."),
    ] = None
    precision: Annotated[str | None, typer.Option(help="fp32, bf16 or fp16, instead of the recipe's.")] = None
    freeze: Annotated[
        int | None, typer.Option(min=0, help="First stages, the stem among them, whose weights stand still.")
    ] = None

    def parse(self) -> Recipe:
        """The recipe that the options describe."""
        from search.supernet.recipe.recipe import changed, get_recipe

        names = ["seed", "epochs", "sampler", "batch_size", "micro_batches", "precision"]
        names += ["learning_rate", "clip_norm", "freeze"]
        changes = {name: getattr(self, name) for name in names}
        changes["arch"] = load_arch(self.arch).to_json() if self.arch else None
        alpha = None if self.alpha is None else parse_share(self.alpha, "--alpha")
        distillation = {"kind": self.distill, "alpha": alpha, "tau": self.tau}
        return changed(get_recipe(self.recipe), changes, distillation)


@dataclass(frozen=True)
class InitOptions:
    """The weights to begin with."""

    init: Annotated[
        str | None,
        typer.Option(
            help="Weights to begin with: supernet:DIR, or of one network FILE.safetensors or timm:NAME[:FILE]."
        ),
    ] = None
    classes: Annotated[
        int | None,
        typer.Option(min=1, help="With --init: a new classifier of so many classes, those of the images."),
    ] = None
    qat: Annotated[
        bool,
        typer.Option(
            "--qat",
            help="With --arch and --init: fine-tune with int8's rounding, for `bench export --weights "
            "FOLDER/weights.safetensors --precision int8 --calibration DATA`.",
        ),
    ] = False


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("train")(with_options(train_command))


def train_command(
    data: Annotated[
        str,
        typer.Option(
            help="imagefolder:DIR, cifar10:DIR or FILE.npz, npz:FILE, or digits; of --task coco:DIR or voc:DIR."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the checkpoint; an unfinished one goes on.")
    ],
    recipe: RecipeOptions,
    teacher: TeacherOptions,
    init: InitOptions,
    dense: DenseOptions,
    space: Annotated[
        str | None, typer.Option(help="Search space of the supernet; that of --arch without.")
    ] = None,
    on: Annotated[str, typer.Option("--on", help="auto, cpu, cuda or mps.")] = "auto",
    workers: Annotated[int, typer.Option(min=0, max=256, help="Processes that prepare images.")] = 0,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile modules with torch.compile: for long runs on GPUs.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a weight-shared supernet: one random subnet a step (Algorithm 1). Ctrl-C saves; repeat to go on.

    With --arch one network alone; --init goes on from weights, as a search's winner is fine-tuned. With --task
    detection or segmentation it gets such a head, and --init are the weights of its backbone.

    On many GPUs or nodes: torchrun --nproc-per-node N --no-python bench train ...; all share the output folder.
    """
    if dense.task is not None:
        foreign = _of_classifiers(recipe, teacher, init) | {
            "--space": space is not None,
            "--compile": compiled,
        }
        how = DenseRun(data, output, on, workers, as_json)
        train_dense_command(dense, how, recipe, init, foreign)
        return
    dense.refuse_without_task()
    _refuse_without_teacher(recipe, teacher)
    if init.classes is not None and init.init is None:
        raise UsageError("--classes is for a new classifier on given weights; add --init")
    chosen = recipe.parse()
    if init.qat:
        _train_quantized(data, output, chosen, init.init, taught=teacher.teacher is not None, as_json=as_json)
        return
    from orchestrator.tasks.train import train_supernet  # brings torch, which most commands can do without

    with shown_progress() as progress:
        trained = train_supernet(
            space,
            data,
            output,
            chosen,
            **vars(teacher),
            init=init.init,
            classes=init.classes,
            on=on,
            workers=workers,
            compiled=compiled,
            progress=progress,
        )
    if trained is None:
        return
    info, images = trained.info, trained.images
    facts = {
        "checkpoint": str(output),
        "space": info.space,
        "data": f"{info.source}: {len(images.split.train)} training, {len(images.split.search)} search, "
        f"{len(images.split.validation)} validation images, {images.classes} classes",
        "recipe": info.recipe.name,
        "init": info.init or "random weights",
        "scope": str(info.scope),
        "steps": info.step,
        "loss": info.loss,
        "held_out_top1": info.held_out_top1,
        "weights_sha256": info.weights_sha256,
        "seconds": round(trained.seconds, 1),
    }
    emit_facts("", facts, as_json, percent=("held_out_top1",))


def _train_quantized(
    data: str, output: Path, recipe: Recipe, init: str | None, *, taught: bool, as_json: bool
) -> None:
    """Fine-tune one network for int8."""
    if init is None or taught:
        raise UsageError(
            "--qat goes on from trained weights, without a teacher; give --init and no --teacher"
        )
    from orchestrator.tasks.qat import train_quantized

    with shown_progress() as progress:
        tuned = train_quantized(data, output, recipe, init, progress=progress)
    facts = {
        "weights": str(tuned.weights),
        "arch": tuned.arch.to_json(),
        "steps": tuned.steps,
        "loss": tuned.loss,
        "seconds": round(tuned.seconds, 1),
    }
    emit_facts("", facts, as_json)


def _of_classifiers(recipe: RecipeOptions, teacher: TeacherOptions, init: InitOptions) -> dict[str, bool]:
    """Options that only classifiers are trained with, and whether they are given."""
    names = ("distill", "alpha", "tau", "sampler", "micro_batches", "precision", "freeze")
    given = {f"--{name.replace('_', '-')}": getattr(recipe, name) is not None for name in names}
    taught = {f"--{name.replace('_', '-')}": value is not None for name, value in vars(teacher).items()}
    return {"--recipe": recipe.recipe != "default", "--qat": init.qat} | given | taught


def _refuse_without_teacher(recipe: RecipeOptions, given: TeacherOptions) -> None:
    """`UsageError` where something is given that only a teacher gives a meaning."""
    taught = (recipe.alpha, recipe.tau, given.teacher_labels, given.teacher_resolution)
    if given.teacher is None and (
        recipe.distill not in (None, "none") or any(value is not None for value in taught)
    ):
        raise UsageError(
            "--distill, --alpha, --tau, --teacher-labels and --teacher-resolution need a teacher; add --teacher"
        )
