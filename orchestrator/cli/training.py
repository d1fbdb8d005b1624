"""`bench train` and `bench eval`: supernets and the accuracy that subnets inherit."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.output import JsonOption, emit_facts, progress_bar, say
from search.spaces import get_space, load_arch

if TYPE_CHECKING:
    from search.supernet.evaluate import InheritedAccuracy

DataOption = Annotated[
    str | None, typer.Option("--data", help="imagefolder:DIR, cifar10:DIR, npz:FILE or digits; as trained.")
]
SupernetOption = Annotated[Path, typer.Option("--supernet", help="Folder of a trained supernet.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("train")(train_command)
    app.command("eval")(eval_command)


def train_command(
    space: Annotated[str, typer.Option(help="Search space of the supernet.")],
    data: Annotated[str, typer.Option(help="imagefolder:DIR, cifar10:DIR, npz:FILE or digits.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder of the checkpoint; an unfinished one goes on.")
    ],
    recipe: Annotated[str, typer.Option(help="Name of a recipe.")] = "default",
    teacher: Annotated[
        str | None, typer.Option(help="Network to learn from: timm:NAME[:CHECKPOINT].")
    ] = None,
    distill: Annotated[
        str | None, typer.Option(help="none, soft or hard: how the teacher counts, instead of the recipe's.")
    ] = None,
    alpha: Annotated[float | None, typer.Option(help="The teacher's share of the loss.")] = None,
    tau: Annotated[float | None, typer.Option(help="Temperature of soft distillation.")] = None,
    teacher_labels: Annotated[
        Path | None, typer.Option(help="Folder of the teacher's stored labels, made and completed as needed.")
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(help="uniform, sandwich or balanced: which subnets a step trains.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Instead of the recipe's.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train a weight-shared supernet: one random subnet a step (Algorithm 1). Ctrl-C saves; repeat to go on."""
    from search.supernet.recipe import get_recipe
    from search.supernet.teacher import load_teacher
    from search.supernet.train import Progress, Trainer, open_data

    taught = {"kind": distill, "alpha": alpha, "tau": tau}
    changes = {"seed": seed, "epochs": epochs, "sampler": sampler}
    chosen = get_recipe(recipe).changed(changes, taught)
    images = open_data(data, get_space(space), chosen)
    found = load_teacher(teacher, images.classes) if teacher else None
    trainer = Trainer(get_space(space), images, chosen, output, found, teacher_labels)
    begun_s = time.monotonic()
    with progress_bar() as progress:

        def watch(state: Progress) -> None:
            progress(f"epoch {state.epoch + 1} of {state.epochs}", state.step, state.steps)

        info = trainer.run(watch)
    facts = {
        "checkpoint": str(output),
        "space": info.space,
        "data": f"{info.source}: {len(images.split.train)} training, {len(images.split.search)} search, "
        f"{len(images.split.validation)} validation images, {images.classes} classes",
        "recipe": info.recipe.name,
        "steps": info.step,
        "loss": info.loss,
        "weights_sha256": info.weights_sha256,
        "seconds": round(time.monotonic() - begun_s, 1),
    }
    emit_facts("", facts, as_json)


def eval_command(
    arch: Annotated[str, typer.Option(help="Named architecture or JSON file.")],
    supernet: SupernetOption,
    data: DataOption = None,
    final: Annotated[bool, typer.Option("--final", help="On the validation set: once, at the end.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Accuracy of one architecture with weights inherited from a supernet."""
    found = load_arch(arch)
    evaluator = open_evaluator(supernet, data, final=final)
    found = found.with_classes(evaluator.data.classes)
    scores = evaluator.scores(found)
    facts = {
        "arch": found.to_json(),
        "split": "validation" if final else "search",
        "top1": scores.top1,
        "top5": scores.top5,
        "params": found.params(),
    }
    emit_facts("", facts, as_json)


def open_evaluator(supernet: Path, data: str | None, *, final: bool = False) -> InheritedAccuracy:
    """Inherited accuracies of a trained supernet, on the images that it was trained on unless told otherwise."""
    from search.supernet.checkpoint import load_supernet
    from search.supernet.evaluate import InheritedAccuracy, reopen_data

    network, info = load_supernet(supernet)
    if not info.finished:
        say(f"note: {supernet} is not trained to its end yet ({info.step} steps)")
    return InheritedAccuracy(network, info, reopen_data(info, data), final=final)
