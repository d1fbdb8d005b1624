"""Training: classifiers (a supernet or one network), detectors, segmentation networks, and int8 fine-tuning."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from pydantic import ValidationError
from safetensors.torch import save
from torch import nn

from luts.format.errors import UsageError, first_problem
from luts.format.files import check_folder, write_atomically, write_json
from orchestrator.export import ExportSpec
from orchestrator.export.lower.source import build_module
from orchestrator.tasks.progress import Note, Step, silent
from orchestrator.tasks.progress import Progress as Report
from orchestrator.tasks.supernets import check_scope, open_evaluator
from orchestrator.tasks.train_options import ClassifierOptions, DenseOptions, QatOptions
from orchestrator.tasks.trained import Trained, inherit
from orchestrator.winner.card import weighted
from search.dense.data import open_scenes
from search.dense.training import BackboneWeights, DenseInfo, DenseRecipe, DenseTask
from search.spaces import Arch, Space, arch_from_json, get_space
from search.spaces.registry import is_timm, timm_arch, with_task, without_task
from search.supernet.data.images import ImageBatch, ImageData, open_data
from search.supernet.data.sources import open_source
from search.supernet.model.supernet import choose_device, obstacle
from search.supernet.model.weights_file import read_weights
from search.supernet.recipe.recipe import Recipe, changed, get_recipe, only_arch
from search.supernet.recipe.schedule import TrainingSchedule
from search.supernet.train.checkpoint import CheckpointInfo
from search.supernet.train.init_weights import InitialWeights, parse_source
from search.supernet.train.logs import CLASSIFICATION_COLUMNS, Progress, TrainingPace, classification_row
from search.supernet.train.optimizer import Precision
from search.supernet.train.parallel import ComputeSettings, ProcessGroup, local_device, process_group
from search.supernet.train.supernet_task import SupernetTask
from search.supernet.train.teacher import Teacher, load_teachers, timm_weights
from search.supernet.train.trainer import Metrics, RunState, StepLoss, Task, Trainer

WEIGHTS_FILE = "weights.safetensors"


@dataclass(frozen=True)
class TrainResult:
    """A finished training.

    Attributes:
        folder: With the checkpoint, or the weights of int8 fine-tuning.
        info: Description of the checkpoint; None after int8 fine-tuning.
        facts: What the command prints, as in JSON; those in `percent` are fractions.
        weights: File of the weights, of one network.
    """

    folder: Path
    info: CheckpointInfo | DenseInfo | None
    facts: dict[str, Any]
    percent: tuple[str, ...] = ()
    weights: Path | None = None


def train_classifier(options: ClassifierOptions, progress: Report = silent) -> TrainResult | None:
    """Train a weight-shared supernet or one network to classify images, or resume an unfinished run.

    Returns None in every process of torchrun but the leading one, which alone reports `progress`.

    Raises:
        UsageError: options that do not fit each other, the images or the run in the folder.
        InvalidArtifactError: images, weights or the run are damaged.
        TrainingDivergedError: the loss is not finite.
    """
    started_s = time.monotonic()
    check_folder(options.output)
    recipe = recipe_of(options)
    if options.space is None and recipe.arch is None and options.init is not None and is_timm(options.init):
        recipe = changed(recipe, {"arch": timm_arch(":".join(options.init.split(":")[:2])).to_json()}, {})
    space = _space(options.space, recipe)
    if recipe.drop_path and is_timm(space.name):
        progress(
            Note(f"note: the recipe's drop_path has no effect on {space.name}, only on blocktime's blocks")
        )
    device = local_device(options.on)
    reason = obstacle(device) if options.compiled else None
    if reason:
        progress(Note(f"note: nothing is compiled ({reason}); the run goes on without --compile"))
    with process_group() as group:
        images = open_data(options.data, space, recipe)
        teachers: tuple[Teacher, ...] = ()
        if options.teacher:
            teachers = load_teachers(
                options.teacher, images.classes, options.teacher_resolution, options.teacher_labels
            )
        task = SupernetTask(
            space,
            images,
            recipe,
            options.output,
            teachers=teachers,
            initial=InitialWeights(options.init, options.classes) if options.init else None,
            compute=ComputeSettings(device, options.workers, options.compiled and reason is None),
            group=group,
        )
        trainer = Trainer(task)
        info = trainer.run(_reporter(trainer, progress if group.leads else silent))
    if not group.leads:
        return None
    facts = {
        "checkpoint": str(options.output),
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
        "seconds": round(time.monotonic() - started_s, 1),
    }
    return TrainResult(options.output, info, facts, ("held_out_top1",))


def recipe_of(options: ClassifierOptions | QatOptions) -> Recipe:
    """Return the recipe with the values that the options change."""
    recipe = get_recipe(options.recipe) if isinstance(options.recipe, str) else options.recipe
    names: tuple[str, ...] = ("seed", "epochs", "batch_size", "learning_rate", "clip_norm")
    distillation: dict[str, object] = {}
    if isinstance(options, ClassifierOptions):
        names += ("sampler", "micro_batches", "precision", "freeze")
        distillation = {"kind": options.distill, "alpha": options.alpha, "tau": options.tau}
    changes = {name: getattr(options, name) for name in names}
    changes["arch"] = options.arch.to_json() if options.arch is not None else None
    return changed(recipe, changes, distillation)


def _space(space: Space | str | None, recipe: Recipe) -> Space:
    if isinstance(space, Space):
        return space
    if space is not None:
        return get_space(space)
    if recipe.arch is None:
        raise UsageError(
            "nothing to train; add --space for a supernet, or --arch for one network", code="nothing_to_train"
        )
    return get_space(arch_from_json(recipe.arch).space)


def _reporter(
    trainer: Trainer[Any, Any], progress: Report, what: str = "training"
) -> Callable[[Progress], None]:
    """Report changes of the recipe once, then every step with its loss, speed and the last metrics."""
    started = False

    def report(state: Progress) -> None:
        nonlocal started
        if not started:
            for change in trainer.task.changes:
                progress(Note(f"note: {change}"))
            started = True
        if trainer.pace is not None:
            name, value = next(iter(trainer.task.figures.items()), ("", None))
            last = f", {name} {value or 0.0:.4f}" if name else ""
            progress(Step(what, state.step, state.steps, trainer.pace.line(state) + last))

    return report


def train_dense(options: DenseOptions, progress: Report = silent) -> TrainResult:
    """Train a detector or a segmentation network, or resume an unfinished run.

    A backbone with another head gets one of this task, for the images' classes.

    Raises:
        UsageError: options that do not fit each other; feature maps that are too small for the head.
        InvalidArtifactError: images, annotations, weights or the run are damaged.
        TrainingDivergedError: the loss is not finite.
    """
    check_folder(options.output)
    started_s = time.monotonic()
    task = options.task
    scenes = open_scenes(options.data, task)
    count = len(scenes.classes)
    if options.classes not in (None, count):
        raise UsageError(
            f"--classes {options.classes}: {options.data} has {count} categories; give --classes {count}",
            code="class_mismatch",
        )
    if scenes.empty:
        progress(
            Note(f"note: {scenes.empty} training images of {options.data} have no objects and are left out")
        )
    if not len(scenes.train):
        raise UsageError(
            f"{options.data}: no training images with objects; add some next to the validation images",
            code="no_training_images",
        )
    network = with_task(options.arch, task, count, options.head)
    initial = backbone_weights(options.init, network, options.init_data, progress) if options.init else None
    compute = ComputeSettings(choose_device(options.on), options.workers)
    recipe = _dense_recipe(options)
    trainer = Trainer(DenseTask(task, network, scenes, recipe, options.output, initial, compute))
    info = trainer.run(_reporter(trainer, progress))
    facts = {
        "run": str(options.output),
        "task": info.task,
        "arch": info.arch,
        "data": f"{scenes.title}: {len(scenes.train)} training, {len(scenes.validation)} validation images, "
        f"{count} categories",
        "init": info.init or "random weights",
        "steps": info.step,
        **info.figures,
        "weights": str(options.output / info.weights),
        "seconds": round(time.monotonic() - started_s, 1),
    }
    return TrainResult(options.output, info, facts, tuple(info.figures), options.output / info.weights)


def _dense_recipe(options: DenseOptions) -> DenseRecipe:
    names = ("epochs", "batch_size", "learning_rate", "clip_norm", "seed", "backbone_rate", "warmup_epochs")
    values = {name: value for name in names if (value := getattr(options, name)) is not None}
    try:
        return DenseRecipe(freeze=options.freeze_backbone, augmented=options.augmented, **values)
    except ValidationError as error:
        raise UsageError(
            f"invalid options ({first_problem(error, 'recipe')}); choose another value", code="invalid_recipe"
        ) from error


def backbone_weights(
    source: str, network: Arch, data: str | None = None, progress: Report = silent
) -> BackboneWeights:
    """Return the weights that `--init` names, for the backbone of a network with a task's head.

    For those of a supernet BN statistics are computed on its images; `data` is their source if they have moved.

    Raises:
        UsageError: no such source, or it has no weights of this backbone.
        InvalidArtifactError: the weights can't be read.
    """
    kind, place = parse_source(source)
    if kind == "timm":
        return BackboneWeights(source, timm_weights(place))
    if kind == "file":
        return BackboneWeights(source, read_weights(Path(place)))
    evaluator = open_evaluator(Path(place), data, progress=progress)
    plain = _as_trained(network, only_arch(evaluator.info.recipe, evaluator.supernet.space))
    plain = plain.with_classes(evaluator.data.classes)
    check_scope(plain, Path(place), evaluator.info)
    return BackboneWeights(source, evaluator.network(plain).cpu().state_dict())


def _as_trained(network: Arch, alone: Arch | None) -> Arch:
    """Return the classifier of a backbone; for one that was trained alone with its head, of timm also its size."""
    plain = without_task(network)
    if alone is None:
        return plain
    if is_timm(plain.space) and plain.space.partition("@")[0] == alone.space.partition("@")[0]:
        return alone
    if (plain.space, plain.stages) == (alone.space, alone.stages):
        return alone.with_resolution(plain.resolution)
    return plain


class QatTask(Task[ImageBatch, Path]):
    """Fine-tunes one trained network with int8's rounding in the forward pass (quantisation-aware training).

    It starts over each time, and writes the weights at the end alone.
    """

    recipe: Recipe
    log_columns = CLASSIFICATION_COLUMNS

    def __init__(
        self, network: nn.Module, arch: Arch, images: ImageData, recipe: Recipe, options: QatOptions
    ):
        """Capture the network with fake quantisation; raises BlocktimeError if that can't be done for training."""
        from orchestrator.export.lower.quantize import with_fake_quantization

        self.recipe, self.directory, self.options = recipe, options.output, options
        self.compute, self.group = ComputeSettings(), ProcessGroup()
        self.network, self.arch, self.data, self.loss = network, arch, images, 0.0
        self.schedule = TrainingSchedule(recipe, images.split.train, (arch.resolution,))
        self.steps_per_epoch = self.schedule.steps_per_epoch
        self.model = with_fake_quantization(network, next(self.batches([0]))[0])
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), betas=recipe.betas, weight_decay=recipe.weight_decay
        )
        self.precision = Precision("fp32", self.compute.device, self.model.parameters())

    def batches(self, numbers: Iterable[int]) -> Iterator[ImageBatch]:
        """Yield augmented images and labels of steps."""
        for step in numbers:
            part = self.schedule.part(step, 0)._replace(seed=self.recipe.seed * 1_000_003 + step)
            yield self.data.training_batch(part, self.recipe.augmentation)

    def start_step(self, step: int) -> None:
        """Do nothing: the captured graph is in training mode and has no other."""

    def losses(self, step: int, part: int, batch: ImageBatch) -> Iterator[StepLoss]:  # noqa: ARG002
        """Yield the cross-entropy of the labels."""
        images, labels = batch
        logits = self.model(images)
        loss = F.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)
        yield StepLoss(loss, (logits.argmax(1) == labels).sum())

    def metrics(self, state: RunState) -> Metrics:
        """Return the mean loss of the epoch; `bench eval --precision int8` evaluates the exported program."""
        self.loss = state.epoch_loss / self.steps_per_epoch
        return {"loss": self.loss}

    def log_row(self, progress: Progress, pace: TrainingPace, state: RunState) -> tuple[object, ...]:  # noqa: ARG002
        """Return a row of every step."""
        return classification_row(progress, pace, progress, self.arch.resolution)

    def save(self, state: RunState, metrics: Metrics) -> Path | None:
        """Write weights, architecture and `qat.json` after the last step."""
        if state.step < self.recipe.epochs * self.steps_per_epoch:
            return None
        from orchestrator.export.lower.quantize import weights_of

        write_atomically(self.read(), save(dict(weights_of(self.model, self.network))))
        write_json(self.directory / "arch.json", self.arch.to_document())
        document = {
            "init": self.options.init,
            "data": self.data.source.digest,
            "recipe": self.recipe.model_dump(mode="json"),
            "loss": metrics["loss"],
        }
        write_json(self.directory / "qat.json", document)
        return self.read()

    def read(self) -> Path:
        """Return the file of the weights."""
        return self.directory / WEIGHTS_FILE


def train_qat(options: QatOptions, progress: Report = silent) -> TrainResult:
    """Fine-tune one trained network for int8; the weights are for `bench export --weights`.

    Of the recipe, epochs, batch size, learning rates, weight decay, label smoothing, gradient limits, augmentation
    and seed count.

    Raises:
        UsageError: no such weights, fewer images than a batch, or a recipe that mixes images.
        InvalidArtifactError: weights that do not fit the network with the images' classes; names a tensor.
        BlocktimeError: the network can't be captured for training, or the loss is not finite.
    """
    started_s = time.monotonic()
    recipe = recipe_of(options)
    recipe = recipe.model_copy(update={"micro_batches": 1, "augmentation_epochs": 0, "multi_scale": False})
    if recipe.augmentation.mixes:
        raise UsageError(
            "int8 fine-tuning does not support Mixup and CutMix; choose another --recipe, such as finetune",
            code="unsupported_augmentation",
        )
    check_folder(options.output)
    arch = arch_from_json(cast(str, recipe.arch))
    images = ImageData(open_source(options.data), fraction=recipe.held_out, largest_side=arch.resolution)
    arch, network = _trained_network(arch.with_classes(images.classes), options.init, progress)
    task = QatTask(network, arch, images, recipe, options)
    trainer = Trainer(task)
    weights = trainer.run(_reporter(trainer, progress, "fine-tuning for int8"))
    facts = {
        "weights": str(weights),
        "arch": arch.to_json(),
        "steps": trainer.steps,
        "loss": task.loss,
        "seconds": round(time.monotonic() - started_s, 1),
    }
    return TrainResult(options.output, None, facts, weights=weights)


def _trained_network(arch: Arch, init: str, progress: Report) -> tuple[Arch, nn.Module]:
    """Return a network with its trained weights."""
    kind, place = parse_source(init)
    with tempfile.TemporaryDirectory() as scratch:
        if kind == "supernet":
            given = Trained(supernet=Path(place))
            ((arch, file),) = inherit({"network": arch}, None, given, Path(scratch), progress).values()
        elif kind == "file":
            file = Path(place)
        else:
            raise UsageError(
                f"--init {init}: int8 fine-tuning takes supernet:DIR or FILE.safetensors; give one of them",
                code="unknown_weights_source",
            )
        return arch, build_module(weighted(ExportSpec(arch.keys()), file))[0]
