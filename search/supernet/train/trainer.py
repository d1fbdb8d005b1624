"""Algorithm 1 of AutoViT, step after step, saved and logged: one process of a run, or all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor

from luts.format.errors import InvalidArtifactError
from search.spaces import Space
from search.supernet.data.images import Batch, ImageData, training_batches
from search.supernet.model.supernet import CompiledModules, Supernet
from search.supernet.recipe.recipe import Recipe, only_arch, part_of, resolutions_of
from search.supernet.recipe.samplers import get_sampler
from search.supernet.recipe.schedule import Schedule
from search.supernet.train.checkpoint import (
    Change,
    CheckpointInfo,
    Initial,
    RunFolder,
    TrainingState,
    changes_in,
    fields_of_run,
    only_training,
    read_info,
)
from search.supernet.train.interrupt import deferred_interrupt
from search.supernet.train.logs import CsvLog, Meter, Pace, Progress, held_out_top1, probe_images, probes
from search.supernet.train.optimizer import (
    Optimizer,
    PlainSgd,
    Precision,
    SlicedAdamW,
    WeightAverage,
    frozen_parameters,
)
from search.supernet.train.step import ComputeSettings, Group, SubnetStep, keep_freed_memory
from search.supernet.train.teacher import Teacher, TeacherLogits


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
        initial: Initial | None = None,
        compute: ComputeSettings | None = None,
        group: Group | None = None,
    ):
        """`space` with whatever number of classes.

        `labels`: folder of stored labels of the teacher; `initial`: the weights to begin with; `group`: the
        processes that share the run's batches.

        Raises:
            UsageError: a batch is larger than the training set, the recipe has foreign resolutions, too few
                micro-batches for all processes, or initial weights of other classes.
            InvalidArtifactError: initial weights that can't be read or do not fit.
        """
        self.compute, self.group = compute or ComputeSettings(), group or Group()
        self.schedule = Schedule(recipe, data.split.train, resolutions_of(recipe, space))
        self.parts = self.group.share(recipe.micro_batches)
        self.data, self.recipe, self.directory, self.teacher = data, recipe, directory, teacher
        supernet = self._supernet(space)
        only = only_arch(recipe, supernet.space)
        begun_with = initial.put_into(supernet, data.source.classes, only) if initial else None
        self.state = self._initial_state(supernet)
        self.precision = Precision(recipe.precision, self.compute.device, self.supernet.parameters())
        self.sampler = get_sampler(
            recipe.sampler,
            part_of(recipe, self.supernet.space),
            randoms=recipe.sandwich_randoms,
            within=recipe.params_range,
            only=only,
            stage_weights=recipe.stage_weights,
            params_weights=recipe.params_weights,
        )
        frozen = frozen_parameters(supernet, recipe.freeze)
        for name in frozen:
            supernet.get_parameter(name).requires_grad_(False)
        self.subnet_step = SubnetStep(recipe, self.state, self.sampler, self.precision, directory, frozen)
        self.teacher_logits: TeacherLogits | None = None
        if teacher is not None and recipe.distillation.kind != "none":
            process = self.group.rank, self.group.size
            self.teacher_logits = TeacherLogits(teacher, recipe, data, self.schedule, labels, process)
        fields = fields_of_run(
            space, recipe, data, self.schedule.steps_per_epoch, teacher.name if teacher else None
        )
        fields |= {"init": initial.source if initial else None, "init_sha256": begun_with}
        self.folder = RunFolder(directory, self.state, fields)
        self.step = 0
        self.pace: Pace | None = None
        self.changes: tuple[Change, ...] = ()
        self._earlier: tuple[Change, ...] = ()
        self._loss: float | None = None
        self._stopping = False
        self._batches: Iterator[Batch] | None = None

    @property
    def supernet(self) -> Supernet:
        return self.state.supernet

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
            InvalidArtifactError: the directory's checkpoint is damaged, or an image is that this or another process
                needs, once the steps before are saved.
            UsageError: the checkpoint is of another run.
            StorageError: checkpoint or log can't be written.
            BusyFolderError: another process trains in the directory.
        """
        with only_training(self.directory) if self.group.leads else nullcontext():
            return self._run(on_progress)

    def _run(self, on_progress: Callable[[Progress], None] | None) -> CheckpointInfo:
        if self.compute.device.type == "cpu":
            keep_freed_memory()
        info = self._resume()
        self.group.agree("the step to go on from", self.step)
        if self.teacher is not None:
            self.teacher.check(self.data, self.schedule.resolutions[0])
            self.teacher.model.to(self.compute.device)
        if info is not None and info.finished:
            return info
        if self.group.leads:
            self.data.check(probe_images(self.data))
        log = CsvLog(self.directory / "log.csv", self.step) if self.group.leads else None
        begun, meter = self.step, Meter()
        with deferred_interrupt() as interrupted:
            while self.step < self.steps:
                try:
                    progress = self.train_step(stop=interrupted.is_set())
                except InvalidArtifactError:
                    if self.step > begun:
                        self._save()
                    self.group.agree("the step that an image is missing for", self.step)
                    raise
                self.pace = meter.note(progress)
                if log is not None:
                    log.note(progress, self.pace)
                if on_progress is not None:
                    on_progress(progress)
                stopping = self._stopping or (self.group.size == 1 and interrupted.is_set())
                if stopping or self._save_is_due():
                    info = self._save()
                if stopping:
                    raise KeyboardInterrupt
        self.group.agree("the end", self.step)
        return info or read_info(self.directory)

    def train_step(self, stop: bool = False) -> Progress:
        """One step of Algorithm 1: sample, forward, backward, update the subnets' slices.

        `stop`: tell all processes that this one was asked to stop.
        """
        step, schedule = self.step, self.schedule
        archs = self.subnet_step.sample(step, schedule.resolution(step))
        self.state.optimizer.zero_grad()
        seen = torch.zeros(4, device=self.compute.device)
        damage: InvalidArtifactError | None = None
        try:
            for part in self.parts:
                images, labels = batch = self._next_batch()
                teacher_logits = self._logits_of_teacher(part, images)
                loss, logits = self.subnet_step.backward(archs, step, part, batch, teacher_logits)
                right = labels if labels.ndim == 1 else labels.argmax(1)
                seen[0] += loss
                seen[1] += (logits.argmax(1) == right).sum()
        except (
            InvalidArtifactError
        ) as error:  # told to the others where they wait for this process's gradients
            damage = error
            self.subnet_step.complete_gradients(archs)
        seen[2], seen[3] = float(stop), float(damage is not None)
        self.group.sum([*(p.grad for p in self.supernet.parameters() if p.grad is not None), seen])
        loss_sum, hits, stops, damaged = seen.tolist()
        if damaged:
            raise damage or InvalidArtifactError(
                f"another process can't read its images of step {step}; its message names what is damaged"
            )
        self._loss = loss_sum
        learning_rate = self.recipe.learning_rate_at(step, schedule.steps_per_epoch)
        self.subnet_step.update(archs, step, learning_rate, self._loss)
        self.step += 1
        self._stopping = self.group.size > 1 and stops > 0
        if self.state.average is not None:
            self.state.average.update(self.supernet.parameters(), self.step)
        return Progress(
            step=self.step,
            steps=self.steps,
            epoch=step // schedule.steps_per_epoch,
            epochs=self.recipe.epochs,
            images=schedule.images(step),
            loss=self._loss,
            accuracy=hits / schedule.images(step),
            learning_rate=learning_rate,
            arch=archs[0],
        )

    def _supernet(self, space: Space) -> Supernet:
        supernet = Supernet(space.with_classes(self.data.classes), self.recipe.seed).to(self.compute.device)
        if self.compute.compiled:
            supernet.compiled = CompiledModules()
        return supernet

    def _initial_state(self, supernet: Supernet) -> TrainingState:
        recipe = self.recipe
        parameters = dict(supernet.named_parameters())
        optimizer: Optimizer
        if recipe.optimizer == "sgd":
            optimizer = PlainSgd(parameters, recipe.momentum, recipe.weight_decay, recipe.nesterov)
        else:
            optimizer = SlicedAdamW(parameters, recipe.betas, weight_decay=recipe.weight_decay)
        average = WeightAverage(parameters, recipe.ema_decay) if recipe.ema_decay else None
        return TrainingState(supernet, optimizer, average)

    def _next_batch(self) -> Batch:
        """The next micro-batch of this process."""
        count = self.recipe.micro_batches
        if self._batches is None:
            numbers = (step * count + part for step in range(self.step, self.steps) for part in self.parts)
            self._batches = training_batches(
                self.data, self.schedule, self.recipe, numbers, self.compute.workers
            )
        images, labels = next(self._batches)
        layout = torch.channels_last if self.recipe.channels_last else torch.contiguous_format
        device = self.compute.device
        return images.to(device, memory_format=layout), labels.to(device)

    def _logits_of_teacher(self, part: int, images: Tensor) -> Tensor | None:
        return None if self.teacher_logits is None else self.teacher_logits.logits(self.step, part, images)

    def _resume(self) -> CheckpointInfo | None:
        info = self.folder.resume()
        if info is not None:
            self.precision.load_state(info.scaler)
            self.step, self._loss = info.step, info.loss
            self.changes = changes_in(info, self.recipe)
            self._earlier = info.changes
        return info

    def _save_is_due(self) -> bool:
        steps = self.recipe.save_epochs * self.schedule.steps_per_epoch
        return self.step % steps == 0 or self.step == self.steps

    def _save(self) -> CheckpointInfo | None:
        """Write this process's labels and, in the process that leads, the checkpoint."""
        if self.teacher_logits is not None:
            self.teacher_logits.flush()
        if not self.group.leads:
            return None
        archs = probes(self.sampler, self.schedule.resolutions[-1])
        top1 = held_out_top1(self.supernet, archs, self.state.inherited, self.data)
        changes = (*self._earlier, *self.changes)
        return self.folder.save(self.step, self._loss, self.precision.state(), top1, changes)
