"""Algorithm 1 of AutoViT: randomly sampled subnets a step, and only their weights move."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from luts.errors import BlocktimeError, InvalidArtifactError, UsageError
from search.code_version import code_version
from search.spaces import Arch, Space
from search.supernet.batches import Batch, training_batches
from search.supernet.checkpoint import (
    BEST,
    CheckpointInfo,
    Digests,
    TrainingState,
    read_info,
    resume,
    same_run,
    save_checkpoint,
    space_digest,
)
from search.supernet.compiled import CompiledModules
from search.supernet.data import ImageData
from search.supernet.distill import in_place
from search.supernet.distributed import Group
from search.supernet.drop_path import DropPath
from search.supernet.ema import WeightAverage
from search.supernet.interrupt import deferred_interrupt
from search.supernet.logs import CsvLog
from search.supernet.memory import keep_freed_memory
from search.supernet.optimizer import SlicedAdamW, gradient_norm
from search.supernet.precision import Precision
from search.supernet.probe import held_out_top1, probe_images, probes
from search.supernet.progress import Meter, Pace, Progress
from search.supernet.recipe import Recipe
from search.supernet.recipe_scope import only_arch, resolutions_of
from search.supernet.samplers import get_sampler
from search.supernet.schedule import Schedule
from search.supernet.supernet import Supernet
from search.supernet.taught import Answers
from search.supernet.teacher import Teacher


class TrainingDivergedError(BlocktimeError):
    """The loss or a gradient is not finite; the last checkpoint is from before."""


@dataclasses.dataclass(frozen=True)
class Engine:
    """What a run is computed with; unlike the recipe it may change when a run goes on.

    Attributes:
        device: Where the supernet lies.
        workers: Processes that prepare batches ahead of time; 0 for none.
        compiled: Whether torch.compile makes the supernet's modules (`search.supernet.compiled`).
    """

    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))
    workers: int = 0
    compiled: bool = False


class Trainer:
    """One run in one directory; `run()` goes on from the checkpoint there, bit by bit as if never stopped.

    Every random number follows from the recipe's seed and the step, so a checkpoint needs no generator state.
    """

    def __init__(
        self,
        space: Space,
        data: ImageData,
        recipe: Recipe,
        directory: Path,
        teacher: Teacher | None = None,
        labels: Path | None = None,
        *,
        engine: Engine | None = None,
        group: Group | None = None,
    ):
        """`space` with whatever number of classes.

        `labels`: folder of stored labels of the teacher; `group`: the processes that share the run's batches.

        Raises:
            UsageError: a batch is larger than the training set, the recipe has foreign resolutions, or too few
                micro-batches for all processes.
        """
        self.engine, self.group = engine or Engine(), group or Group()
        self.schedule = Schedule(recipe, data.split.train, resolutions_of(recipe, space))
        if recipe.micro_batches % self.group.size:
            raise UsageError(
                f"{self.group.size} processes can't share a batch in {recipe.micro_batches} parts; "
                f"set micro_batches to a multiple of {self.group.size}"
            )
        self.data, self.recipe, self.directory, self.teacher = data, recipe, directory, teacher
        self.supernet = Supernet(space.with_classes(data.classes), recipe.seed).to(self.engine.device)
        if self.engine.compiled:
            self.supernet.compiled = CompiledModules()
        parameters = dict(self.supernet.named_parameters())
        self.optimizer = SlicedAdamW(parameters, recipe.betas, weight_decay=recipe.weight_decay)
        average = WeightAverage(parameters, recipe.ema_decay) if recipe.ema_decay else None
        self.state = TrainingState(self.supernet, self.optimizer, average)
        self.precision = Precision(recipe.precision, self.engine.device, parameters.values())
        self.sampler = get_sampler(
            recipe.sampler,
            self.supernet.space,
            randoms=recipe.sandwich_randoms,
            within=recipe.params_range,
            only=only_arch(recipe, self.supernet.space),
        )
        self.answers: Answers | None = None
        if teacher is not None and recipe.distillation.kind != "none":
            self.answers = Answers(teacher, recipe, data, self.schedule, self.group, labels)
        self.step = 0
        self.pace: Pace | None = None
        self._loss: float | None = None
        self._stopping = False
        self._batches: Iterator[Batch] | None = None

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.schedule.steps

    def run(self, on_progress: Callable[[Progress], None] | None = None) -> CheckpointInfo:
        """Train to the end, or to Ctrl-C, which saves a checkpoint after the step it falls in.

        Raises:
            KeyboardInterrupt: after Ctrl-C, once the checkpoint is written.
            TrainingDivergedError: names step and subnet.
            RankLostError: another process of the run is gone.
            InvalidArtifactError: the directory's checkpoint is damaged, or an image is, once the steps are saved.
            UsageError: the checkpoint is of another run.
            StorageError: checkpoint or log can't be written.
        """
        if self.engine.device.type == "cpu":
            keep_freed_memory()
        info = self._resume() if (self.directory / "checkpoint.json").exists() else None
        self.group.agree("the step to go on from", self.step)
        if self.teacher is not None:
            self.teacher.check(self.data, self.schedule.resolutions[0])
            self.teacher.model.to(self.engine.device)
        if info is not None and info.finished:
            return info
        if self.group.leads:
            self.data.check(probe_images(self.data))
        begun = self.step
        log = CsvLog(self.directory / "log.csv", self.step) if self.group.leads else None
        meter = Meter()
        with deferred_interrupt() as interrupted:
            while self.step < self.steps:
                try:
                    progress = self.train_step(stop=interrupted.is_set())
                except InvalidArtifactError:
                    if self.group.size == 1 and self.step > begun:
                        self._save()
                    raise
                self.pace = meter.note(progress)
                if log is not None:
                    log.note(progress, self.pace)
                if on_progress is not None:
                    on_progress(progress)
                stopping = self._stopping or (self.group.size == 1 and interrupted.is_set())
                due = self.step % (self.recipe.save_epochs * self.schedule.steps_per_epoch) == 0
                if due or self.step == self.steps or stopping:
                    if self.answers is not None:
                        self.answers.flush()
                    if self.group.leads:
                        info = self._save()
                if stopping:
                    raise KeyboardInterrupt
        self.group.agree("the end", self.step)
        return info or read_info(self.directory)

    def train_step(self, stop: bool = False) -> Progress:
        """One step of Algorithm 1: sample, forward, backward, update the subnets' slices.

        `stop`: tell all processes that this one was asked to stop.
        """
        recipe, schedule = self.recipe, self.schedule
        archs = self._sample_archs(schedule.resolution(self.step))
        self.optimizer.zero_grad()
        seen = torch.zeros(3, device=self.engine.device)
        for part in self._parts():
            images, labels = self._next_batch()
            taught = None if self.answers is None else self.answers.logits(self.step, part, images)
            loss, logits = self._backward(archs, part, images, labels, taught)
            right = labels if labels.ndim == 1 else labels.argmax(1)
            seen[0] += loss
            seen[1] += (logits.argmax(1) == right).sum()
        seen[2] = float(stop)
        used = [p.grad for p in self.supernet.parameters() if p.grad is not None]
        self.group.sum([*used, seen])
        loss_, right_answers, stops = seen.tolist()
        learning_rate = recipe.learning_rate_at(self.step, schedule.steps_per_epoch)
        self._update(archs, learning_rate, loss_)
        self._loss = loss_
        epoch, count = self.step // schedule.steps_per_epoch, schedule.images(self.step)
        self.step += 1
        self._stopping = self.group.size > 1 and stops > 0
        if self.state.average is not None:
            self.state.average.update(self.supernet.parameters(), self.step)
        return Progress(
            self.step,
            self.steps,
            epoch,
            recipe.epochs,
            count,
            loss_,
            right_answers / count,
            learning_rate,
            archs[0],
        )

    def _backward(
        self, archs: tuple[Arch, ...], part: int, images: Tensor, labels: Tensor, taught: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Add up the gradients of a micro-batch's subnets; its share of the loss, and logits, of the first."""
        recipe = self.recipe
        first: tuple[Tensor, Tensor] | None = None
        for arch in archs:
            example = first[1] if first is not None and self.sampler.in_place else None
            drop_path = self._drop_path(part) if example is None else None
            with self.precision.autocast():
                logits = self.supernet(images, arch, drop_path).float()
            if example is not None:
                loss = in_place(logits, example)
            else:
                loss = recipe.distillation.loss(logits, labels, taught, recipe.label_smoothing)
            loss = loss / recipe.micro_batches
            torch.autograd.backward(self.precision.scaled(loss))
            first = first or (loss.detach(), logits.detach())
        if first is None:
            raise ValueError("a step has at least one subnet")
        return first

    def _update(self, archs: tuple[Arch, ...], learning_rate: float, loss: float) -> None:
        """Clip the gradients and move the subnets' slices; `TrainingDivergedError` where they are not finite."""
        self.precision.unscale()
        norm = gradient_norm(self.supernet.parameters())
        if not (math.isfinite(loss) and (norm.isfinite() or self.precision.scales)):
            raise TrainingDivergedError(
                f"training diverged at step {self.step} (loss {loss:g}, gradient norm {norm.item():g}) "
                f"with subnet {archs[0].to_json()}; {self.directory} keeps the checkpoint from before; "
                "use a lower learning_rate and another folder"
            )
        if 0 < self.recipe.clip_norm < norm:
            for parameter in self.supernet.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(self.recipe.clip_norm / norm)
        slices = (part for arch in archs for part in self.supernet.slices(arch))
        self.precision.update(lambda: self.optimizer.step(slices, learning_rate))

    def _drop_path(self, part: int) -> DropPath | None:
        rate = self.recipe.drop_path
        return DropPath(rate, f"{self.recipe.seed} {self.step} {part}") if rate else None

    def _sample_archs(self, resolution: int) -> tuple[Arch, ...]:
        return self.sampler.draw(random.Random(f"arch {self.recipe.seed} {self.step}"), resolution)

    def _next_batch(self) -> Batch:
        """The next micro-batch of this process."""
        if self._batches is None:
            self._batches = training_batches(
                self.data, self.schedule, self.recipe, self._numbers(), self.engine.workers
            )
        images, labels = next(self._batches)
        layout = torch.channels_last if self.recipe.channels_last else torch.contiguous_format
        device = self.engine.device
        return images.to(device, memory_format=layout), labels.to(device)

    def _parts(self) -> range:
        """The micro-batches of each step that are this process's: an equal share."""
        share = self.recipe.micro_batches // self.group.size
        return range(self.group.rank * share, (self.group.rank + 1) * share)

    def _numbers(self) -> Iterator[int]:
        """All micro-batches of this process from here to the end."""
        for step in range(self.step, self.steps):
            for part in self._parts():
                yield step * self.recipe.micro_batches + part

    def _save(self) -> CheckpointInfo:
        """Write the checkpoint, and the best one before it where this is better than that."""
        best, resolution = self.directory / BEST, self.schedule.resolutions[-1]
        archs = probes(self.sampler, resolution)
        top1 = held_out_top1(self.supernet, archs, self.state.inherited, self.data)
        describe = lambda digests: self._describe(digests, top1)  # noqa: E731
        if not (best / "checkpoint.json").exists() or top1 > (read_info(best).held_out_top1 or 0.0):
            save_checkpoint(best, self.state, describe)
        return save_checkpoint(self.directory, self.state, describe)

    def _resume(self) -> CheckpointInfo:
        info = resume(self.directory, self.state)
        mine = self._describe(Digests(info.weights_sha256, info.tensors, info.tensors_sha256), None)
        same_run(self.directory, info, mine)
        self.precision.load_state(info.scaler)
        self.step, self._loss = info.step, info.loss
        return info

    def _describe(self, digests: Digests, held_out_top1: float | None) -> CheckpointInfo:
        space, data = self.supernet.space, self.data
        return CheckpointInfo(
            space=space.name,
            space_digest=space_digest(space),
            classes=data.source.classes,
            recipe=self.recipe,
            step=self.step,
            steps_per_epoch=self.schedule.steps_per_epoch,
            loss=self._loss,
            source=data.source.name,
            data_digest=data.source.digest,
            split_seed=data.seed,
            split_fraction=data.fraction,
            image_side=data.side,
            teacher=self.teacher.name if self.teacher else None,
            held_out_top1=held_out_top1,
            scaler=self.precision.state(),
            code=code_version(),
            weights_sha256=digests.weights_sha256,
            tensors=digests.tensors,
            tensors_sha256=digests.tensors_sha256,
        )
