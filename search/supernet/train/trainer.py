"""The training loop: one loop for every task, resumable bit by bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Generic

import torch

from luts.format.errors import BlocktimeError, InvalidArtifactError
from search.supernet.train.logs import CsvLog, Meter, Pace, Progress
from search.supernet.train.optimizer import gradient_norm
from search.supernet.train.parallel import deferred_interrupt, exclusive_folder, keep_freed_memory
from search.supernet.train.task import BatchT, InfoT, RunState, Task


class TrainingDivergedError(BlocktimeError):
    """The loss or a gradient is not finite; the last checkpoint was written before that."""


class Trainer(Generic[BatchT, InfoT]):
    """One run in one directory; `run()` resumes the checkpoint there, bit by bit as if it had never stopped.

    Every random number follows from the recipe's seed and the step, so a checkpoint needs no generator state.

    Attributes:
        task: Data, loss, metrics and outputs.
        state: Where the run is.
        pace: Speed and mean losses of the last steps; None before the first.
    """

    def __init__(self, task: Task[BatchT, InfoT]):
        """Prepare a run; raises UsageError where a batch has too few micro-batches for all processes."""
        self.task, self.state = task, RunState()
        self.parts = task.group.share(task.recipe.micro_batches)
        self.pace: Pace | None = None
        self._stopping = False
        self._batches: Iterator[BatchT] | None = None

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.state.step

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.task.recipe.epochs * self.task.steps_per_epoch

    def run(self, on_progress: Callable[[Progress], None] | None = None) -> InfoT:
        """Train to the end, or until Ctrl-C, which saves a checkpoint after the current step.

        Raises:
            KeyboardInterrupt: after Ctrl-C, once the checkpoint is written.
            TrainingDivergedError: the loss or a gradient is not finite.
            RankLostError: another process of the run is gone.
            InvalidArtifactError: the checkpoint is damaged, or an image is; the steps before it are saved.
            UsageError: the checkpoint is of another run.
            StorageError: the checkpoint or log can't be written.
            FolderBusyError: another process trains in the directory.
        """
        with exclusive_folder(self.task.directory) if self.task.group.leads else nullcontext():
            return self._run(on_progress)

    def _run(self, on_progress: Callable[[Progress], None] | None) -> InfoT:
        task, group = self.task, self.task.group
        if task.compute.device.type == "cpu":
            keep_freed_memory()
        self.state = task.resume() or self.state
        group.agree("the step to resume from", self.step)
        if 0 < self.steps <= self.step:
            return task.read()
        task.prepare()
        log = CsvLog(task.directory / "log.csv", task.log_columns, self.step) if group.leads else None
        first, meter = self.step, Meter()
        info: InfoT | None = None
        with deferred_interrupt() as interrupted:
            while self.step < self.steps:
                try:
                    progress = self.train_step(stop=interrupted.is_set())
                except InvalidArtifactError:
                    if self.step > first:
                        self._save(log)
                    group.agree("the step whose images can't be read", self.step)
                    raise
                self.pace = meter.note(progress)
                if on_progress is not None:
                    on_progress(progress)
                stopping = self._stopping or (group.size == 1 and interrupted.is_set())
                if stopping or self._save_is_due():
                    info = self._save(log, progress)
                elif log is not None:
                    log.append(task.log_row(progress, self.pace, self.state))
                if stopping:
                    raise KeyboardInterrupt
        group.agree("the end", self.step)
        return info or task.read()

    def train_step(self, stop: bool = False) -> Progress:
        """Run one optimizer step.

        Args:
            stop: Whether this process was interrupted; the flag is shared with all processes.
        """
        task, step = self.task, self.step
        task.start_step(step)
        task.zero_grad()
        totals = torch.zeros(4, device=task.compute.device)  # loss, correct, stop, damaged
        damage: InvalidArtifactError | None = None
        try:
            for part in self.parts:
                loss, correct = self._backward(step, part)
                totals[0] += loss
                totals[1] += correct
        except InvalidArtifactError as error:  # the other processes wait for this one's gradients
            damage = error
            task.complete_gradients()
        totals[2], totals[3] = float(stop), float(damage is not None)
        task.group.sum([*(p.grad for p in task.model.parameters() if p.grad is not None), totals])
        loss, correct, stops, damaged = totals.tolist()
        if damaged:
            raise damage or InvalidArtifactError(
                f"another process can't read its images of step {step}; its message names the damaged image",
                code="damaged_image",
            )
        learning_rate = task.recipe.learning_rate_at(step, task.steps_per_epoch)
        self._update(learning_rate, loss)
        self.state.step, self.state.loss = step + 1, loss
        self.state.epoch_loss += loss
        self._stopping = task.group.size > 1 and stops > 0
        task.finish_step(self.step)
        return Progress(
            step=self.step,
            steps=self.steps,
            epoch=step // task.steps_per_epoch,
            epochs=task.recipe.epochs,
            images=task.images(step),
            loss=loss,
            accuracy=correct / task.images(step),
            learning_rate=learning_rate,
        )

    def _backward(self, step: int, part: int) -> tuple[torch.Tensor, torch.Tensor | float]:
        """Accumulate the gradients of a micro-batch; return loss and correct predictions of its first pass."""
        if self._batches is None:
            count = self.task.recipe.micro_batches
            numbers = (number * count + own for number in range(step, self.steps) for own in self.parts)
            self._batches = self.task.batches(numbers)
        first: tuple[torch.Tensor, torch.Tensor | float] | None = None
        for loss in self.task.losses(step, part, next(self._batches)):
            torch.autograd.backward(self.task.precision.scaled(loss.value))
            if first is None:
                first = loss.value.detach(), 0.0 if loss.correct is None else loss.correct
        if first is None:
            raise ValueError("a micro-batch has at least one forward pass")
        return first

    def _update(self, learning_rate: float, loss: float) -> None:
        """Clip the gradients and move the weights."""
        task, precision = self.task, self.task.precision
        precision.unscale()
        norm = gradient_norm(task.model.parameters())
        if not (math.isfinite(loss) and (norm.isfinite() or precision.scales)):
            raise self._diverged(loss, norm.item())
        if task.recipe.agc:
            from timm.utils import adaptive_clip_grad  # imports torchvision and torch._dynamo: seconds

            adaptive_clip_grad(task.model.parameters(), task.recipe.agc)
        if 0 < task.recipe.clip_norm < norm:
            for parameter in task.model.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(task.recipe.clip_norm / norm)
        precision.update(lambda: task.update(self.step, learning_rate))

    def _diverged(self, loss: float, norm: float) -> TrainingDivergedError:
        folder = self.task.directory
        saved = folder is not None and any(folder.glob("*.json"))
        if saved and not self.task.recipe_may_change:
            remedy = (
                f"start over in another folder with a lower --learning-rate; {folder} has the last checkpoint"
            )
        else:
            resumes = f"resumes from the last checkpoint in {folder}" if saved else "starts over"
            remedy = f"repeat the command with a lower --learning-rate or --clip-norm; it {resumes}"
        return TrainingDivergedError(
            f"training diverged at step {self.step} (loss {loss:g}, gradient norm {norm:g})"
            f"{self.task.describe()}; {remedy}",
            code="training_diverged",
        )

    def _save_is_due(self) -> bool:
        steps = self.task.recipe.save_epochs * self.task.steps_per_epoch
        return self.step % steps == 0 or self.step == self.steps

    def _save(self, log: CsvLog | None, progress: Progress | None = None) -> InfoT | None:
        """Evaluate, log and write the outputs; the log has no row yet for `progress`."""
        task = self.task
        metrics = task.metrics(self.state) if task.group.leads else {}
        if log is not None and progress is not None and self.pace is not None:
            log.append(task.log_row(progress, self.pace, self.state))
        if self.step % task.steps_per_epoch == 0:
            self.state.epoch_loss = 0.0
        return task.save(self.state, metrics)
