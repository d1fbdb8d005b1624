"""Training a supernet, in one process or in several that torchrun starts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from luts.format.errors import UsageError
from luts.format.files import check_folder
from orchestrator.tasks.progress import Note, Progress, Step, silent
from search.spaces import Space, arch_from_json, get_space
from search.spaces.registry import is_timm, timm_arch
from search.supernet.data.images import ImageData, open_data
from search.supernet.model.supernet import obstacle
from search.supernet.recipe.recipe import Recipe, changed, get_recipe
from search.supernet.train.checkpoint import CheckpointInfo, Initial
from search.supernet.train.logs import Progress as State
from search.supernet.train.step import ComputeSettings, local_device, process_group
from search.supernet.train.teacher import load_teacher
from search.supernet.train.trainer import Trainer


@dataclass(frozen=True)
class TrainedSupernet:
    """A checkpoint in `folder`, the images it was trained on, and how long this call took."""

    folder: Path
    info: CheckpointInfo
    images: ImageData
    seconds: float


def train_supernet(
    space: Space | str | None,
    data: str,
    output: Path,
    recipe: Recipe | str = "default",
    *,
    teacher: str | None = None,
    teacher_resolution: int | None = None,
    teacher_labels: Path | None = None,
    init: str | None = None,
    classes: int | None = None,
    on: str = "auto",
    workers: int = 0,
    compiled: bool = False,
    progress: Progress = silent,
) -> TrainedSupernet | None:
    """Train a weight-shared supernet, or go on with an unfinished one.

    Args:
        space: Whose networks share the weights, or its name; None for that of the recipe's one network.
        data: Text of the image source, such as `cifar10:DIR`.
        output: Folder of the checkpoint.
        recipe: How, or the name of a recipe or of its file; it may name one network that is trained alone.
        teacher: Network to learn from: `timm:NAME[:CHECKPOINT]`.
        teacher_resolution: Pixels of the images that the teacher was trained on.
        teacher_labels: Folder of the teacher's stored labels, made and completed as needed.
        init: Weights to begin with: `supernet:DIR`, or `FILE.safetensors` of the recipe's one network, or
            `timm:NAME[:FILE]`, which is the network too where nothing else is named.
        classes: Of a new classifier, as many as the images have; without, that of `init` stays.
        on: `auto`, `cpu`, `cuda` or `mps`.
        workers: Processes that prepare images.
        compiled: Compile modules where that can be done; a note says where it can't.
        progress: Told by the leading process alone.

    Returns:
        The supernet; None in every process of torchrun but the one that leads.
    """
    check_folder(output)
    recipe = get_recipe(recipe) if isinstance(recipe, str) else recipe
    if space is None and recipe.arch is None and init is not None and is_timm(init):
        recipe = changed(recipe, {"arch": timm_arch(":".join(init.split(":")[:2])).to_json()}, {})
    space = _space(space, recipe)
    if recipe.drop_path and is_timm(space.name):
        progress(
            Note(f"note: the recipe's drop_path leaves nothing out of {space.name}, it is for our blocks")
        )
    device = local_device(on)
    reason = obstacle(device) if compiled else None
    if reason:
        progress(Note(f"note: nothing is compiled ({reason}); the run goes on without --compile"))
    compute = ComputeSettings(device, workers, compiled and reason is None)
    begun_s = time.monotonic()
    with process_group() as group:
        images = open_data(data, space, recipe)
        taught_by = load_teacher(teacher, images.classes, teacher_resolution) if teacher else None
        trainer = Trainer(
            space,
            images,
            recipe,
            output,
            taught_by,
            teacher_labels,
            initial=Initial(init, classes) if init else None,
            compute=compute,
            group=group,
        )
        info = trainer.run(_reporter(trainer, progress if group.leads else silent))
    return TrainedSupernet(output, info, images, time.monotonic() - begun_s) if group.leads else None


def _space(space: Space | str | None, recipe: Recipe) -> Space:
    if isinstance(space, Space):
        return space
    if space is not None:
        return get_space(space)
    if recipe.arch is None:
        raise UsageError("nothing says what to train; add --space for a supernet, or --arch for one network")
    return get_space(arch_from_json(recipe.arch).space)


def _reporter(trainer: Trainer, progress: Progress) -> Callable[[State], None]:
    """Tells what changed in the recipe, then every step with its loss and speed."""
    told = False

    def report(state: State) -> None:
        nonlocal told
        for change in () if told else trainer.changes:
            progress(Note(f"note: {change}"))
        told = True
        if trainer.pace is not None:
            progress(Step("training", state.step, state.steps, trainer.pace.line(state)))

    return report
