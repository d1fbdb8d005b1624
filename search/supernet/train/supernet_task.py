"""Classification with a weight-shared supernet or one network: Algorithm 1 of AutoViT as a task."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.provenance import code_version
from search.spaces import Arch, Space, get_space
from search.supernet.data.images import ImageBatch, ImageData, training_batches
from search.supernet.model.elastic import Slice
from search.supernet.model.supernet import CompiledModules, DropPath, Recorded, Supernet
from search.supernet.model.weights_file import tensors_digest
from search.supernet.recipe.recipe import Recipe, in_place_loss, only_arch, part_of, resolutions_of, scope_of
from search.supernet.recipe.samplers import Sampler, get_sampler
from search.supernet.recipe.schedule import TrainingSchedule
from search.supernet.recipe.terms import Signals
from search.supernet.train.checkpoint import (
    BEST,
    CHANGEABLE,
    INFO_FILE,
    CheckpointInfo,
    RecipeChange,
    check_same_run,
    load_weights,
    read_info,
    read_tensors,
    under,
    write_checkpoint,
)
from search.supernet.train.init_weights import InitialWeights
from search.supernet.train.logs import CLASSIFICATION_COLUMNS, Progress, TrainingPace, classification_row
from search.supernet.train.objective import Objective
from search.supernet.train.optimizer import (
    PlainSgd,
    Precision,
    SlicedAdamW,
    WeightAverage,
    frozen_parameters,
)
from search.supernet.train.parallel import ComputeSettings, ProcessGroup
from search.supernet.train.teacher import Teacher, TeacherLogits
from search.supernet.train.trainer import Metrics, RunState, StepLoss, Task

LOG_STEPS = 50
"""Steps between rows: 600,000 steps of the largest recipe make a file of one megabyte."""


class SupernetTask(Task[ImageBatch, CheckpointInfo]):
    """Trains the subnets that a sampler draws in each step, or one network alone, to classify images.

    Attributes:
        archs: Subnets of the current step.
    """

    recipe: Recipe
    model: Supernet
    log_columns = CLASSIFICATION_COLUMNS
    recipe_may_change = True

    def __init__(
        self,
        space: Space,
        data: ImageData,
        recipe: Recipe,
        directory: Path,
        *,
        teachers: Sequence[Teacher] = (),
        initial: InitialWeights | None = None,
        compute: ComputeSettings | None = None,
        group: ProcessGroup | None = None,
    ):
        """Build the supernet of `space`, which may have any number of classes, with its initial weights.

        Raises:
            UsageError: a batch is larger than the training set, the recipe has resolutions that the space does not
                have, its loss does not fit the teachers, or the initial weights have other classes.
            InvalidArtifactError: the initial weights can't be read or do not fit.
        """
        self.compute, self.group = compute or ComputeSettings(), group or ProcessGroup()
        self.data, self.recipe, self.directory, self.teachers = data, recipe, directory, tuple(teachers)
        self.schedule = TrainingSchedule(recipe, data.split.train, resolutions_of(recipe, space))
        self.steps_per_epoch = self.schedule.steps_per_epoch
        whole = space.with_classes(data.classes)
        self.model = Supernet(whole, recipe.seed, own_heads=recipe.sampler == "exits")
        self.model.to(self.compute.device)
        if self.compute.compiled:
            self.model.compiled = CompiledModules()
        only = only_arch(recipe, self.model.space)
        digest = initial.apply_to(self.model, data.source.classes, only) if initial else None
        parameters = dict(self.model.named_parameters())
        if recipe.optimizer == "sgd":
            self.optimizer = PlainSgd(parameters, recipe.momentum, recipe.weight_decay, recipe.nesterov)
        else:
            self.optimizer = SlicedAdamW(parameters, recipe.betas, weight_decay=recipe.weight_decay)
        self.average = WeightAverage(parameters, recipe.ema_decay) if recipe.ema_decay else None
        self.sampler: Sampler = get_sampler(
            recipe.sampler,
            part_of(recipe, self.model.space),
            randoms=recipe.sandwich_randoms,
            within=recipe.params_range,
            only=only,
            stage_weights=recipe.stage_weights,
            params_weights=recipe.params_weights,
        )
        self.frozen = frozen_parameters(self.model, recipe.freeze)
        for name in self.frozen:
            self.model.get_parameter(name).requires_grad_(False)
        self.objective: Objective | None = None
        if recipe.distillation.kind == "terms":
            (arch, *_) = self.sampler.draw(random.Random("probes"), self.schedule.resolutions[-1])
            self.objective = Objective(recipe, self.model, self.teachers, arch, self.sampler.in_place)
        elif len(self.teachers) > 1:
            raise UsageError(
                f"recipe {recipe.name} learns from one teacher, not from {len(self.teachers)}; give one, or a "
                "recipe with terms (docs/training.md)",
                code="option_does_not_apply",
            )
        self.precision = Precision(recipe.precision, self.compute.device, self.parameters())
        self.teacher_logits: dict[int, TeacherLogits] = {}
        taught = {1} if recipe.distillation.kind != "none" else set()
        if self.objective is not None:
            taught = self.objective.taught - self.objective.recording
        process = self.group.rank, self.group.size
        for number, teacher in enumerate(self.teachers, 1):
            if number in taught:
                self.teacher_logits[number] = TeacherLogits(teacher, recipe, data, self.schedule, process)
        self.fields = {
            "space": space.name,
            "space_digest": get_space(space.name).digest,
            "classes": data.source.classes,
            "recipe": recipe,
            "scope": scope_of(recipe, self.model.space),
            "steps_per_epoch": self.steps_per_epoch,
            "source": data.source.name,
            "data_digest": data.source.digest,
            "split_seed": data.seed,
            "split_fraction": data.fraction,
            "image_side": data.side,
            "teacher": ",".join(teacher.name for teacher in self.teachers) or None,
            "init": initial.source if initial else None,
            "init_sha256": digest,
        }
        self.archs: tuple[Arch, ...] = ()
        self.changes: tuple[RecipeChange, ...] = ()
        self._earlier: tuple[RecipeChange, ...] = ()

    def prepare(self) -> None:
        """Check the teachers and the images that the probes are evaluated on."""
        for teacher in self.teachers:
            teacher.check(self.data, self.schedule.resolutions[0])
            teacher.model.to(self.compute.device)
        if self.group.leads:
            self.data.check(probe_images(self.data))

    def batches(self, numbers: Iterable[int]) -> Iterator[ImageBatch]:
        """Yield micro-batches of augmented images and labels, on the device."""
        layout = torch.channels_last if self.recipe.channels_last else torch.contiguous_format
        device = self.compute.device
        for images, labels in training_batches(
            self.data, self.schedule, self.recipe, numbers, self.compute.workers
        ):
            yield images.to(device, memory_format=layout), labels.to(device)

    def start_step(self, step: int) -> None:
        """Sample the subnets of a step."""
        rng = random.Random(f"arch {self.recipe.seed} {step}")
        self.archs = self.sampler.draw(rng, self.schedule.resolution(step))
        if self.objective is not None:
            self.objective.start_step()

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the supernet's weights and the objective's learned tensors."""
        return itertools.chain(self.model.parameters(), self.objective.parameters() if self.objective else ())

    def losses(self, step: int, part: int, batch: ImageBatch) -> Iterator[StepLoss]:
        """Yield the loss of each subnet: of labels and teacher, or of the first subnet's logits in a sandwich."""
        recipe, (images, labels) = self.recipe, batch
        targets = labels if labels.ndim == 1 else labels.argmax(1)
        taught = [Recorded() for _ in self.teachers]
        for number, (teacher, recorded) in enumerate(zip(self.teachers, taught, strict=True), 1):
            if number in self.teacher_logits:
                recorded.logits = self.teacher_logits[number].logits(step, part, images)
            elif self.objective and number in self.objective.recording:
                recorded.logits = teacher.observe(images, recorded)
        given = Signals(
            logits=images,
            labels=labels,
            smoothing=recipe.label_smoothing,
            epoch=step / self.steps_per_epoch,
            epochs=recipe.epochs,
        )
        first: Tensor | None = None
        for arch in self.archs:
            example = first if self.sampler.in_place else None
            rate = self.recipe.drop_path if example is None else 0
            drop_path = DropPath(rate, f"{self.recipe.seed} {step} {part}") if rate else None
            seen = Recorded() if self.objective and self.objective.recording else None
            with self.precision.autocast():
                logits = self.model(images, arch, drop_path, seen).float()
            signals = replace(given, logits=logits, largest_logits=example)
            loss = self._loss(signals, images, arch, seen or Recorded(), taught)
            if first is None:
                first = logits.detach()
            yield StepLoss(loss / recipe.micro_batches, (logits.argmax(1) == targets).sum())

    def _loss(
        self, signals: Signals, images: Tensor, arch: Arch, seen: Recorded, taught: Sequence[Recorded]
    ) -> Tensor:
        """Return the loss of one subnet, of which `seen` is recorded."""
        objective, distillation = self.objective, self.recipe.distillation
        if signals.largest_logits is not None and not (objective and objective.in_place):
            return in_place_loss(signals.logits, signals.largest_logits)
        if objective is None:
            teacher_logits = taught[0].logits if taught else None
            return distillation.loss(signals.logits, signals.labels, teacher_logits, signals.smoothing)
        with self.precision.autocast():
            previous = objective.previous_logits(self.model, images, arch)
        signals = replace(signals, previous_logits=previous, features=seen.features, qkv=seen.qkv)
        meta = objective.meta_loss(self.model, images, arch, signals, taught)
        return objective.loss(signals, taught) + meta

    def complete_gradients(self) -> None:
        """Set zeros where the subnets' parameters have no gradients, so that processes send equally many."""
        moving = [self.model.get_parameter(source) for source in {part.source for part in self._moving()}]
        for parameter in itertools.chain(moving, self.objective.parameters() if self.objective else ()):
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)

    def update(self, step: int, learning_rate: float) -> None:  # noqa: ARG002
        """Move the subnets' slices of the weights."""
        self.optimizer.step(self._moving(), learning_rate)
        if self.objective is not None:
            self.objective.optimizer.step(self.objective.slices(), learning_rate)

    def finish_step(self, steps: int) -> None:
        """Update the averaged weights."""
        if self.average is not None:
            self.average.update(self.model.parameters(), steps)
        if self.objective is not None and steps % self.steps_per_epoch == 0:
            self.objective.finish_epoch(self.model)

    def images(self, step: int) -> int:
        """Return the number of images of a step."""
        return self.schedule.images(step)

    @property
    def inherited(self) -> dict[str, Tensor]:
        """The weights that subnets inherit: averaged ones where there are any."""
        if self.average is not None:
            return self.average.tensors
        return {name: value.detach() for name, value in self.model.named_parameters()}

    def describe(self) -> str:
        """Return the first subnet of the current step."""
        return f" with subnet {self.archs[0].to_json()}"

    def metrics(self, state: RunState) -> Metrics:  # noqa: ARG002
        """Return the mean held-out accuracy of a few fixed subnets."""
        archs = probes(self.sampler, self.schedule.resolutions[-1])
        return {"held_out_top1": held_out_top1(self.model, archs, self.inherited, self.data)}

    def log_row(self, progress: Progress, pace: TrainingPace, state: RunState) -> tuple[object, ...] | None:  # noqa: ARG002
        """Return a row every `LOG_STEPS` steps, and of the last step; losses are means over the steps before."""
        if progress.step % LOG_STEPS and progress.step != progress.steps:
            return None
        return classification_row(progress, pace, pace, self.schedule.resolution(progress.step - 1))

    def resume(self) -> RunState | None:
        """Load the last checkpoint; None without one. Raises UsageError for another run's."""
        if not (self.directory / INFO_FILE).exists():
            return None
        info = read_info(self.directory)
        self._check_same(info)
        tensors = read_tensors(self.directory, info, "supernet")
        load_weights(self.model, under("weights/", tensors), info)
        self.optimizer.load_state_tensors(under("optimizer/", tensors))
        if self.average is not None:
            self.average.load(under("average/", tensors))
        if self.objective is not None:
            self.objective.load_state_tensors(tensors, self.model)
        self.precision.load_state(info.scaler)
        self.changes, self._earlier = info.changes_to(self.recipe), info.changes
        return RunState(info.step, info.loss)

    def _check_same(self, info: CheckpointInfo) -> None:
        """Refuse another run's checkpoint; `CHANGEABLE` fields may differ until the run is finished."""
        space = self.model.space
        if (info.space, len(info.classes)) != (space.name, space.default_classes):
            raise InvalidArtifactError(
                f"{self.directory}: checkpoint of {info.space} with {len(info.classes)} classes, not of "
                f"{space.name} with {space.default_classes}; use another directory",
                code="different_run",
            )
        if info.space_digest != self.fields["space_digest"] and info.recipe.resolutions == "space":
            raise UsageError(
                f"{self.directory} has a run at the former resolutions of {info.space}; use another directory",
                code="different_run",
            )
        if not info.finished:
            now: dict[str, Any] = {field: getattr(self.recipe, field) for field in CHANGEABLE}
            info = info.model_copy(update={"recipe": info.recipe.model_copy(update=now)})
        check_same_run(self.directory, info, self.fields)

    def save(self, state: RunState, metrics: Metrics) -> CheckpointInfo | None:
        """Write this process's teacher logits and, in the leading process, the checkpoint and the best one."""
        for logits in self.teacher_logits.values():
            logits.flush()
        if not self.group.leads:
            return None
        fields = {
            **self.fields,
            **metrics,
            "step": state.step,
            "loss": state.loss,
            "scaler": self.precision.state(),
            "changes": (*self._earlier, *self.changes),
            "code": code_version(),
        }
        best = self.directory / BEST
        if not (best / INFO_FILE).exists() or (metrics["held_out_top1"] or 0.0) > (
            read_info(best).held_out_top1 or 0.0
        ):
            self._write(best, fields)
        return self._write(self.directory, fields)

    def _write(self, directory: Path, fields: Mapping[str, Any]) -> CheckpointInfo:
        tensors = {f"weights/{name}": value.detach() for name, value in self.model.named_parameters()}
        tensors |= {f"optimizer/{name}": value for name, value in self.optimizer.state_tensors().items()}
        if self.average is not None:
            tensors |= {f"average/{name}": value for name, value in self.average.tensors.items()}
        if self.objective is not None:
            tensors |= self.objective.state_tensors()
        own = {**fields, "weights_sha256": tensors_digest(self.inherited)}
        return write_checkpoint(directory, CheckpointInfo, own, {"supernet": tensors})

    def read(self) -> CheckpointInfo:
        """Return the description of the last checkpoint."""
        return read_info(self.directory)

    def _moving(self) -> Iterator[Slice]:
        """Yield the slices of the weights that the current step changes."""
        slices = (part for arch in self.archs for part in self.model.slices(arch))
        return (part for part in slices if part.source not in self.frozen)


PROBES = 4
"""Number of subnets: enough that `best` does not depend on one of them."""

PROBE_IMAGES = 512
"""Images of the search split; their accuracy has a standard error of 2 %, shared by all checkpoints."""

PROBE_BATCH = 128


def probes(sampler: Sampler, resolution: int) -> list[Arch]:
    """Return a few subnets that a run trains, always the same ones."""
    rng = random.Random("probes")
    drawn = itertools.chain.from_iterable(sampler.draw(rng, resolution) for _ in range(PROBES))
    return list(dict.fromkeys(itertools.islice(drawn, PROBES)))


def probe_images(data: ImageData) -> np.ndarray:
    """Return the indices of the images that the probes are evaluated on, in random order, always the same.

    In the order of a source that is sorted by class, BN would see batches of two or three classes.
    """
    chosen = data.split.search[:: max(1, len(data.split.search) // PROBE_IMAGES)]
    return np.random.default_rng(0).permutation(chosen)


@torch.no_grad()
def held_out_top1(
    supernet: Supernet, archs: Sequence[Arch], weights: Mapping[str, Tensor], data: ImageData
) -> float:
    """Return the mean top-1 accuracy of subnets with `weights`; BN normalises by the batch as in training."""
    hits = images_seen = 0
    device = next(iter(weights.values())).device
    for images, labels in data.batches(probe_images(data), archs[0].resolution, PROBE_BATCH):
        if len(images) == 1 and images_seen:  # BN of a map of one pixel needs two images
            continue
        for arch in archs:
            logits = functional_call(supernet, dict(weights), (images.to(device), arch))
            hits += int((logits.argmax(1).cpu() == labels).sum())
            images_seen += len(labels)
    return hits / images_seen
