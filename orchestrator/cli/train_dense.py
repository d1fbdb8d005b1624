"""`bench train --task`: networks with a head of detection or segmentation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from luts.format.errors import UsageError, unknown
from orchestrator.cli.output import emit_facts
from orchestrator.cli.progress import shown_progress
from search.spaces.registry import TASKS

if TYPE_CHECKING:
    from search.dense.training import DenseRecipe


@dataclass(frozen=True)
class DenseOptions:
    """What is trained besides classifiers."""

    task: Annotated[
        str | None,
        typer.Option(
            help="detection or segmentation: --arch with such a head, on --data coco:DIR or voc:DIR."
        ),
    ] = None
    head: Annotated[
        str, typer.Option(help="With --task: another of its heads, such as deeplab of segmentation.")
    ] = ""
    backbone_rate: Annotated[
        float | None,
        typer.Option(help="With --task: learning rate of the backbone, as a share of the head's."),
    ] = None
    freeze_backbone: Annotated[
        bool, typer.Option("--freeze-backbone", help="With --task: train the head alone.")
    ] = False
    init_data: Annotated[
        str | None,
        typer.Option(help="With --task and --init supernet:DIR: where the images of that training lie now."),
    ] = None

    def refuse_without_task(self) -> None:
        """`UsageError` where something is given that only a task gives a meaning."""
        if self.head or self.backbone_rate is not None or self.freeze_backbone or self.init_data:
            raise UsageError(
                "--head, --backbone-rate, --freeze-backbone and --init-data need a --task; add it"
            )


@dataclass(frozen=True)
class DenseRun:
    """Options that every training has."""

    data: str
    output: Path
    on: str
    workers: int
    as_json: bool


def train_dense_command(
    dense: DenseOptions, run: DenseRun, recipe: Any, init: Any, foreign: dict[str, bool]
) -> None:
    """Train one network for a task; `foreign`: options of other trainings, and whether they were given."""
    from orchestrator.tasks.train_dense import train_dense  # brings torch
    from search.dense.scenes import Task

    task = dense.task
    if task not in get_args(Task):
        raise UsageError(unknown("task", task or "", [name for name in TASKS if name != "classification"]))
    given = next((name for name, was in foreign.items() if was), None)
    if given is not None:
        raise UsageError(f"{given} is not for --task {task}; leave it out")
    if recipe.arch is None:
        raise UsageError(f"--task {task} trains one network; name its backbone with --arch")
    with shown_progress() as progress:
        trained = train_dense(
            cast("Task", task),
            recipe.arch,
            run.data,
            run.output,
            _recipe(dense, recipe),
            head=dense.head,
            classes=init.classes,
            init=init.init,
            init_data=dense.init_data,
            on=run.on,
            workers=run.workers,
            progress=progress,
        )
    info, scenes = trained.info, trained.scenes
    facts = {
        "run": str(run.output),
        "task": info.task,
        "arch": info.arch,
        "data": f"{scenes.title}: {len(scenes.train)} training, {len(scenes.validation)} validation images, "
        f"{len(scenes.classes)} categories",
        "init": info.init or "random weights",
        "steps": info.step,
        **info.figures,
        "weights": str(run.output / info.weights),
        "seconds": round(trained.seconds, 1),
    }
    emit_facts("", facts, run.as_json, percent=tuple(info.figures))


def _recipe(dense: DenseOptions, recipe: Any) -> DenseRecipe:
    from pydantic import ValidationError

    from luts.format.errors import first_problem
    from search.dense.training import DenseRecipe

    values = {
        name: getattr(recipe, name)
        for name in ("epochs", "batch_size", "learning_rate", "clip_norm", "seed")
        if getattr(recipe, name) is not None
    }
    if dense.backbone_rate is not None:
        values["backbone_rate"] = dense.backbone_rate
    try:
        return DenseRecipe(freeze=dense.freeze_backbone, **values)
    except ValidationError as error:
        raise UsageError(f"invalid options ({first_problem(error, 'recipe')})") from error
