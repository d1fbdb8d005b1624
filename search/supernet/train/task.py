"""What a training task provides to the trainer: data, loss, metrics and outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor, nn

from search.supernet.train.logs import Pace, Progress
from search.supernet.train.optimizer import Precision
from search.supernet.train.parallel import ComputeSettings, Group

BatchT = TypeVar("BatchT")
InfoT = TypeVar("InfoT")

Metrics = Mapping[str, float | None]
"""Metrics on held-out images by name, fractions of 1."""


class TrainingRecipe(Protocol):
    """The hyper-parameters that the training loop itself uses."""

    @property
    def epochs(self) -> int:
        """Number of epochs."""

    @property
    def batch_size(self) -> int:
        """Images of an optimizer step."""

    @property
    def micro_batches(self) -> int:
        """Equal parts of a batch, for gradient accumulation or several processes."""

    @property
    def save_epochs(self) -> int:
        """Epochs between checkpoints."""

    @property
    def clip_norm(self) -> float:
        """Largest global gradient norm; 0 for no limit."""

    @property
    def agc(self) -> float:
        """Factor of adaptive gradient clipping; 0 to disable it."""

    def learning_rate_at(self, step: int, steps_per_epoch: int) -> float:
        """Return the learning rate of a step, counted from 0."""


@dataclass
class RunState:
    """Where a run is.

    Attributes:
        step: Optimizer steps done.
        loss: Loss of the last step.
        epoch_loss: Sum of the losses of the epoch in progress.
    """

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
        recipe: Hyper-parameters.
        directory: Folder of the run.
        compute: Device and number of data workers.
        group: Processes that share the run's batches.
        steps_per_epoch: Optimizer steps of an epoch.
        model: Its parameters are trained.
        optimizer: Has `param_groups`, `step` and `zero_grad`, or the task overrides the methods that use them.
        precision: Number format of the forward and backward pass.
        log_columns: Header of `log.csv`; one column is `step`.
        recipe_may_change: Whether a resumed run may have another learning rate.
    """

    recipe: TrainingRecipe
    directory: Path
    compute: ComputeSettings
    group: Group
    steps_per_epoch: int
    model: nn.Module
    optimizer: Any
    precision: Precision
    log_columns: tuple[str, ...]
    recipe_may_change = False

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
    def log_row(self, progress: Progress, pace: Pace, state: RunState) -> tuple[object, ...] | None:
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
