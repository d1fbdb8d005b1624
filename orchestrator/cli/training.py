"""`bench train` and `bench eval`: supernets and the accuracy that subnets inherit."""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from luts.errors import UsageError
from orchestrator.cli.output import JsonOption, emit_facts, progress_bar, say
from search.spaces import get_space, load_arch

if TYPE_CHECKING:
    from search.supernet.evaluate import InheritedAccuracy

DataOption = Annotated[
    str | None, typer.Option("--data", help="As of `bench train`; where the images lie now.")
]
REFRESH_S = 10.0
"""Seconds between lines about speed and loss: few enough for a log file, often enough for an eye."""

SupernetOption = Annotated[Path, typer.Option("--supernet", help="Folder of a trained supernet.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("train")(train_command)
    app.command("eval")(eval_command)


def train_command(
    space: Annotated[str, typer.Option(help="Search space of the supernet.")],
    data: Annotated[str, typer.Option(help="imagefolder:DIR, cifar10:DIR or FILE.npz, npz:FILE, or digits.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder of the checkpoint; an unfinished one goes on.")
    ],
    recipe: Annotated[str, typer.Option(help="Name of a recipe, or a file FILE.toml.")] = "default",
    teacher: Annotated[
        str | None, typer.Option(help="Network to learn from: timm:NAME[:CHECKPOINT].")
    ] = None,
    teacher_resolution: Annotated[
        int | None,
        typer.Option(min=1, max=4096, help="Pixels of the images that the teacher was trained on."),
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
    arch: Annotated[
        str | None, typer.Option(help="Train this network of the space alone: a name or a JSON file.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Instead of the recipe's.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Instead of the recipe's.")] = None,
    micro_batches: Annotated[
        int | None, typer.Option(min=1, help="Parts of a batch, shared by the processes of torchrun.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32, bf16 or fp16, instead of the recipe's.")
    ] = None,
    on: Annotated[str, typer.Option("--on", help="auto, cpu or cuda.")] = "auto",
    workers: Annotated[int, typer.Option(min=0, max=256, help="Processes that prepare images.")] = 0,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile modules with torch.compile: for long runs on GPUs.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a weight-shared supernet: one random subnet a step (Algorithm 1). Ctrl-C saves; repeat to go on.

    On many GPUs or nodes: torchrun --nproc-per-node N --no-python bench train ...; all share the output folder.
    """
    from search.supernet.compiled import obstacle
    from search.supernet.distributed import local_device, process_group
    from search.supernet.progress import Progress
    from search.supernet.recipe_files import changed, get_recipe
    from search.supernet.recipe_scope import open_data
    from search.supernet.teacher import load_teacher
    from search.supernet.train import Engine, Trainer

    options = {
        "seed": seed,
        "epochs": epochs,
        "sampler": sampler,
        "arch": load_arch(arch).to_json() if arch else None,
        "batch_size": batch_size,
        "micro_batches": micro_batches,
        "precision": precision,
    }
    if teacher is None:
        _refuse_without_teacher(distill not in (None, "none"), alpha, tau, teacher_labels, teacher_resolution)
    chosen = changed(get_recipe(recipe), options, {"kind": distill, "alpha": alpha, "tau": tau})
    device = local_device(on)
    reason = obstacle(device) if compiled else None
    if reason:
        say(f"note: nothing is compiled ({reason}); the run goes on without --compile")
    engine = Engine(device, workers, compiled and reason is None)
    begun_s = time.monotonic()
    with process_group() as group:
        images = open_data(data, get_space(space), chosen)
        found = load_teacher(teacher, images.classes, teacher_resolution) if teacher else None
        trainer = Trainer(
            get_space(space), images, chosen, output, found, teacher_labels, engine=engine, group=group
        )
        with progress_bar() if group.leads else nullcontext() as progress:
            line, said_s = "", 0.0

            def watch(state: Progress) -> None:
                nonlocal line, said_s
                now_s = time.monotonic()
                if progress is None or trainer.pace is None:
                    return
                if not line or now_s - said_s >= REFRESH_S:
                    line, said_s = trainer.pace.line(state), now_s
                progress(line, state.step, state.steps)

            info = trainer.run(watch)
    if not group.leads:
        return
    facts = {
        "checkpoint": str(output),
        "space": info.space,
        "data": f"{info.source}: {len(images.split.train)} training, {len(images.split.search)} search, "
        f"{len(images.split.validation)} validation images, {images.classes} classes",
        "recipe": info.recipe.name,
        "steps": info.step,
        "loss": info.loss,
        "held_out_top1": info.held_out_top1,
        "weights_sha256": info.weights_sha256,
        "seconds": round(time.monotonic() - begun_s, 1),
    }
    emit_facts("", facts, as_json)


def _refuse_without_teacher(*given: object) -> None:
    """`given`: what only a teacher gives a meaning, None or False where it was left out."""
    if any(value is not None and value is not False for value in given):
        raise UsageError(
            "--distill, --alpha, --tau, --teacher-labels and --teacher-resolution need a teacher; add --teacher"
        )


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
    if final:
        from search.supernet.final import FinalScore, record_final

        weights = evaluator.info.weights_sha256
        score = FinalScore(arch=found.to_json(), weights_sha256=weights, top1=scores.top1, top5=scores.top5)
        if others := record_final(supernet, score):
            say(
                f"note: the validation set has judged {others} other architectures of this supernet before; "
                "choose none of them by it, the search split is for that"
            )


def open_evaluator(supernet: Path, data: str | None, *, final: bool = False) -> InheritedAccuracy:
    """Inherited accuracies of a trained supernet, on the images that it was trained on unless told otherwise."""
    from search.supernet.checkpoint import load_supernet
    from search.supernet.evaluate import InheritedAccuracy, reopen_data

    network, info = load_supernet(supernet)
    if not info.finished:
        say(f"note: {supernet} is not trained to its end yet ({info.step} steps)")
    return InheritedAccuracy(network, info, reopen_data(info, data), final=final)
