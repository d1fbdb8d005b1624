"""The training loop, resumable bit by bit, and what the tasks that it trains provide."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from luts.format.errors import BlocktimeError, InvalidArtifactError
from luts.format.files import exclusive_folder
from search.supernet.train.logs import CsvLog, Meter, Progress, TrainingPace
from search.supernet.train.optimizer import Precision, gradient_norm
from search.supernet.train.parallel import (
    ComputeSettings,
    ProcessGroup,
    deferred_interrupt,
    keep_freed_memory,
)

BatchT = TypeVar("BatchT")
InfoT = TypeVar("InfoT")

Metrics = Mapping[str, float | None]
"""Metrics on held-out images by name, fractions of 1."""


class TrainingRecipe(Protocol):
    """The hyper-parameters that the training loop itself uses, as `Recipe` describes them."""

    epochs: int
    batch_size: int
    micro_batches: int
    save_epochs: int
    clip_norm: float
    agc: float

    def learning_rate_at(self, step: int, steps_per_epoch: int) -> float:
        """Return the learning rate of a step, counted from 0."""


@dataclass
class RunState:
    """Steps done, the loss of the last one, and the sum of the losses of the epoch in progress."""

    step: int = 0
    loss: float | None = None
    epoch_loss: float = 0.0


@dataclass(frozen=True)
class StepLoss:
    """Loss of one forward pass; `correct` counts right predictions, for tasks that have such a count."""

    value: Tensor
    correct: Tensor | None = None


class Task(ABC, Generic[BatchT, InfoT]):
    """Data, loss, metrics and outputs of one kind of training; `Trainer` does everything else.

    The defaults are those of a single network with one micro-batch per step.

    Attributes:
        group: Processes that share the run's batches.
        optimizer: Has `param_groups`, `step` and `zero_grad`, or the task overrides the methods that use them.
        log_columns: Header of `log.csv`; one column is `step`.
        recipe_may_change: Whether a resumed run may have another learning rate.
        changes: What has changed in the recipe since the checkpoint that the run resumed.
        figures: The last metrics that progress shows.
    """

    recipe: TrainingRecipe
    directory: Path
    compute: ComputeSettings
    group: ProcessGroup
    steps_per_epoch: int
    model: nn.Module
    optimizer: Any
    precision: Precision
    log_columns: tuple[str, ...]
    recipe_may_change = False
    changes: tuple[object, ...] = ()
    figures: Metrics = MappingProxyType({})

    @abstractmethod
    def batches(self, numbers: Iterable[int]) -> Iterator[BatchT]:
        """Yield micro-batches by number: part p of step s is `s * micro_batches + p`."""

    @abstractmethod
    def losses(self, step: int, part: int, batch: BatchT) -> Iterator[StepLoss]:
        """Yield the loss of each forward pass of a micro-batch, the first of which is reported.

        The trainer runs the backward pass of each before it requests the next, so that only one graph is alive.
        """

    @abstractmethod
    def metrics(self, state: RunState) -> Metrics:
        """Evaluate on held-out images when a checkpoint is due."""

    @abstractmethod
    def save(self, state: RunState, metrics: Metrics) -> InfoT | None:
        """Write the run's outputs; None in processes that write none."""

    @abstractmethod
    def read(self) -> InfoT:
        """Return the description of the last checkpoint."""

    @abstractmethod
    def log_row(self, progress: Progress, pace: TrainingPace, state: RunState) -> tuple[object, ...] | None:
        """Return a row of `log.csv`; None for steps without a row."""

    def resume(self) -> RunState | None:
        """Restore the last checkpoint; None without one. Tasks that can't resume start over."""
        return None

    def prepare(self) -> None:
        """Check inputs once, before the first step of this call."""

    def start_step(self, step: int) -> None:  # noqa: ARG002
        """Prepare the model for a step."""
        self.model.train()

    def zero_grad(self) -> None:
        """Drop all gradients."""
        self.optimizer.zero_grad()

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield everything that is trained."""
        return self.model.parameters()

    def complete_gradients(self) -> None:
        """Fill in missing gradients, so that all processes send equally many tensors."""

    def update(self, step: int, learning_rate: float) -> None:  # noqa: ARG002
        """Move the weights; a parameter group's `share` scales its learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group.get("share", 1.0)
        self.optimizer.step()

    def finish_step(self, steps: int) -> None:
        """Follow an update, when `steps` steps are done in all."""

    def images(self, step: int) -> int:  # noqa: ARG002
        """Return the number of images of a step."""
        return self.recipe.batch_size

    def describe(self) -> str:
        """Return what the current step trains, for messages; may be empty."""
        return ""


class TrainingDivergedError(BlocktimeError):
    """The loss or a gradient is not finite; the last checkpoint was written before that."""


class Trainer(Generic[BatchT, InfoT]):
    """One run in one directory; `run()` resumes the checkpoint there, bit by bit as if it had never stopped.

    Every random number follows from the recipe's seed and the step, so a checkpoint needs no generator state.

    Attributes:
        pace: Speed and mean losses of the last steps; None before the first.
    """

    def __init__(self, task: Task[BatchT, InfoT]):
        """Prepare a run; raises UsageError where a batch has too few micro-batches for all processes."""
        self.task, self.state = task, RunState()
        self.parts = task.group.share(task.recipe.micro_batches)
        self.pace: TrainingPace | None = None
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
            FolderBusyError: another process writes to the directory.
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
        saved_every = task.recipe.save_epochs * task.steps_per_epoch
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
                if stopping or self.step % saved_every == 0 or self.step == self.steps:
                    info = self._save(log, progress)
                elif log is not None:
                    log.append(task.log_row(progress, self.pace, self.state))
                if stopping:
                    raise KeyboardInterrupt
        group.agree("the end", self.step)
        return info or task.read()

    def train_step(self, stop: bool = False) -> Progress:
        """Run one optimizer step; `stop`, whether this process was interrupted, is shared with all processes."""
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
        task.group.sum([*(p.grad for p in task.parameters() if p.grad is not None), totals])
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

    def _backward(self, step: int, part: int) -> tuple[Tensor, Tensor | float]:
        """Accumulate the gradients of a micro-batch; return loss and correct predictions of its first pass."""
        if self._batches is None:
            count = self.task.recipe.micro_batches
            numbers = (number * count + own for number in range(step, self.steps) for own in self.parts)
            self._batches = self.task.batches(numbers)
        first: tuple[Tensor, Tensor | float] | None = None
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
        norm = gradient_norm(task.parameters())
        if not (math.isfinite(loss) and (norm.isfinite() or precision.scales)):
            raise self._diverged(loss, norm.item())
        if task.recipe.agc:
            from timm.utils import adaptive_clip_grad  # imports torchvision and torch._dynamo: seconds

            adaptive_clip_grad(task.parameters(), task.recipe.agc)
        if 0 < task.recipe.clip_norm < norm:
            for parameter in task.parameters():
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

    def _save(self, log: CsvLog | None, progress: Progress | None = None) -> InfoT | None:
        """Evaluate, log and write the outputs; the log has no row yet for `progress`."""
        task = self.task
        metrics = task.metrics(self.state) if task.group.leads else {}
        if log is not None and progress is not None and self.pace is not None:
            log.append(task.log_row(progress, self.pace, self.state))
        if self.step % task.steps_per_epoch == 0:
            self.state.epoch_loss = 0.0
        return task.save(self.state, metrics)
