"""Training one network with a head of detection or segmentation, on a trained backbone."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from luts.format.errors import UsageError
from luts.format.files import check_folder
from orchestrator.tasks.evaluate import check_scope, open_evaluator
from orchestrator.tasks.progress import Note, Progress, Step, silent
from search.dense.data import open_scenes
from search.dense.scenes import Scenes, Task
from search.dense.training import BackboneWeights, DenseInfo, DenseProgress, DenseRecipe, DenseTrainer
from search.spaces import Arch, load_arch
from search.spaces.registry import is_timm, with_task, without_task
from search.supernet.model.supernet import choose_device
from search.supernet.model.weights_file import read_weights
from search.supernet.recipe.recipe import only_arch
from search.supernet.train.step import ComputeSettings
from search.supernet.train.teacher import timm_weights


@dataclass(frozen=True)
class TrainedDense:
    """A run in `folder`, the images it was trained on, and how long this call took."""

    folder: Path
    info: DenseInfo
    scenes: Scenes
    seconds: float


def train_dense(
    task: Task,
    arch: Arch | str,
    data: str,
    output: Path,
    recipe: DenseRecipe | None = None,
    *,
    head: str = "",
    classes: int | None = None,
    init: str | None = None,
    init_data: str | None = None,
    on: str = "auto",
    workers: int = 0,
    progress: Progress = silent,
) -> TrainedDense:
    """Train a detector or a segmentation network, or go on with an unfinished run.

    Args:
        task: Which.
        arch: The backbone, or its name or JSON file; with a head of another task or number of classes it gets this
            task's, for the images' classes.
        data: `coco:DIR` or `voc:DIR`.
        output: Folder of the run.
        recipe: How; its defaults else.
        head: One of the task's heads; its default else.
        classes: How many the images are expected to have; any number else.
        init: Weights of the backbone: `supernet:DIR`, `FILE.safetensors`, or `timm:NAME[:FILE]`; random else.
        init_data: Where the images of that supernet lie now, whose BN statistics are taken on them.
        on: `auto`, `cpu`, `cuda` or `mps`.
        workers: Processes that prepare images.
        progress: Told of every step, and of images without objects.

    Raises:
        UsageError: what does not fit each other; maps of the backbone that are too small for the head.
        InvalidArtifactError: images, annotations, weights or the run are damaged.
    """
    check_folder(output)
    begun_s = time.monotonic()
    scenes = open_scenes(data, task)
    count = len(scenes.classes)
    if classes not in (None, count):
        raise UsageError(f"--classes {classes}: {data} has {count} categories; give --classes {count}")
    if scenes.empty:
        progress(Note(f"note: {scenes.empty} training images of {data} have no objects and are left out"))
    if not len(scenes.train):
        raise UsageError(
            f"{data}: no training images with objects; expected them beside the validation images"
        )
    network = with_task(load_arch(arch) if isinstance(arch, str) else arch, task, count, head)
    compute = ComputeSettings(choose_device(on), workers)
    initial = backbone_weights(init, network, init_data, progress) if init else None
    trainer = DenseTrainer(task, network, scenes, recipe or DenseRecipe(), output, initial, compute)
    info = trainer.run(_reporter(progress))
    return TrainedDense(output, info, scenes, time.monotonic() - begun_s)


def backbone_weights(
    source: str, network: Arch, data: str | None = None, progress: Progress = silent
) -> BackboneWeights:
    """The weights that `--init` names, for the backbone of a network with a task's head.

    Raises:
        UsageError: no such source, or it has no weights of this backbone.
        InvalidArtifactError: they can't be read.
    """
    kind, _, folder = source.partition(":")
    if kind == "timm":
        return BackboneWeights(source, timm_weights(source))
    if source.endswith(".safetensors"):
        return BackboneWeights(source, read_weights(Path(source)))
    if kind != "supernet" or not folder:
        raise UsageError(
            f"--init {source!r} are not weights; give supernet:DIR, FILE.safetensors or timm:NAME[:FILE]"
        )
    evaluator = open_evaluator(Path(folder), data, progress=progress)
    plain = _as_trained(network, only_arch(evaluator.info.recipe, evaluator.supernet.space))
    plain = plain.with_classes(evaluator.data.classes)
    check_scope(plain, Path(folder), evaluator.info)
    return BackboneWeights(source, evaluator.network(plain).cpu().state_dict())


def _as_trained(network: Arch, alone: Arch | None) -> Arch:
    """The classifier of a backbone, with the head, of timm's also the pixels, that it was trained with alone."""
    plain = without_task(network)
    if alone is None:
        return plain
    if is_timm(plain.space) and plain.space.partition("@")[0] == alone.space.partition("@")[0]:
        return alone
    if (plain.space, plain.stages) == (alone.space, alone.stages):
        return alone.with_resolution(plain.resolution)
    return plain


def _reporter(progress: Progress) -> Callable[[DenseProgress], None]:
    """Tells every step with its loss, and the figures of every epoch."""
    last = ""

    def report(state: DenseProgress) -> None:
        nonlocal last
        if state.figures is not None:
            name, share = next(iter(state.figures.to_dict().items()))
            last = f", {name} {share or 0.0:.4f}"
        text = f"epoch {state.epoch + 1} of {state.epochs}, loss {state.loss:.3f}{last}"
        progress(Step("training", state.step, state.steps, text))

    return report
