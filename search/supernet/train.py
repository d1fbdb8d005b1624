"""Algorithm 1 of AutoViT: randomly sampled subnets a step, and only their weights move."""

from __future__ import annotations

import dataclasses
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from torch import Tensor

from luts.errors import BlocktimeError, UsageError
from search.spaces import Arch, Space
from search.supernet.checkpoint import CheckpointInfo, Digests, resume, save_checkpoint, space_digest
from search.supernet.data import ImageData
from search.supernet.distill import in_place
from search.supernet.labels import TOP_K, LabelHeader, StoredLabels, fields_digest
from search.supernet.optimizer import SlicedAdamW, gradient_norm
from search.supernet.recipe import NOT_OF_IMAGES, Recipe
from search.supernet.samplers import get_sampler
from search.supernet.sources import open_source
from search.supernet.supernet import Supernet
from search.supernet.teacher import Teacher


def open_data(source: str, space: Space, recipe: Recipe) -> ImageData:
    """The images of a command-line text, split and sized as a recipe says; raises like `open_source`."""
    side = max(recipe.resolutions, default=space.default_resolution)
    return ImageData(open_source(source), fraction=recipe.held_out, largest_side=side)


class TrainingDivergedError(BlocktimeError):
    """The loss or a gradient is not finite; the last checkpoint is from before."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """State after a step, for whoever watches.

    Attributes:
        step: Steps done.
        steps: Steps of the whole run.
        epoch: Epoch of this step, from 0.
        loss: Loss of this step's subnet and batch.
        accuracy: Its share of right labels in the (augmented) batch.
    """

    step: int
    steps: int
    epoch: int
    epochs: int
    loss: float
    accuracy: float
    learning_rate: float
    arch: Arch


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
    ):
        """`space` with whatever number of classes; `labels`: folder of stored labels of the teacher.

        Raises:
            UsageError: a batch is larger than the training set, or the recipe has foreign resolutions.
        """
        foreign = set(recipe.resolutions) - set(space.resolutions)
        if foreign:
            raise UsageError(f"{space.name} has no resolution {sorted(foreign)}; known: {space.resolutions}")
        self.resolutions = recipe.resolutions or (space.default_resolution,)
        self.steps_per_epoch = len(data.split.train) // recipe.batch_size
        if self.steps_per_epoch == 0:
            raise UsageError(
                f"batches of {recipe.batch_size} need as many training images, {data.source.name} has "
                f"{len(data.split.train)}; use a smaller batch"
            )
        self.data, self.recipe, self.directory, self.teacher = data, recipe, directory, teacher
        self.supernet = Supernet(space.with_classes(data.classes), recipe.seed)
        self.optimizer = SlicedAdamW(
            dict(self.supernet.named_parameters()), recipe.betas, weight_decay=recipe.weight_decay
        )
        self.sampler = get_sampler(
            recipe.sampler,
            self.supernet.space,
            randoms=recipe.sandwich_randoms,
            within=recipe.params_range,
        )
        self.labels = (
            StoredLabels(labels, self._label_header(teacher), teacher.logits) if teacher and labels else None
        )
        self.step = 0
        self._loss: float | None = None

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.recipe.epochs * self.steps_per_epoch

    def run(self, on_progress: Callable[[Progress], None] | None = None) -> CheckpointInfo:
        """Train to the end, or to Ctrl-C, which saves a checkpoint after the step it falls in.

        Raises:
            KeyboardInterrupt: after Ctrl-C, once the checkpoint is written.
            TrainingDivergedError: names step and subnet.
            InvalidArtifactError, UsageError: the directory's checkpoint is damaged or of another run.
            BlocktimeError: the checkpoint can't be written.
        """
        info = self._resume() if (self.directory / "checkpoint.json").exists() else None
        if self.teacher is not None:
            self.teacher.check(self.data, self.resolutions[0])
        with _deferred_interrupt() as interrupted:
            while self.step < self.steps:
                progress = self.train_step()
                if on_progress is not None:
                    on_progress(progress)
                due = self.step % (self.recipe.save_epochs * self.steps_per_epoch) == 0
                if due or self.step == self.steps or interrupted.is_set():
                    if self.labels is not None:
                        self.labels.flush()
                    info = save_checkpoint(self.directory, self.supernet, self.optimizer, self._describe)
                if interrupted.is_set():
                    raise KeyboardInterrupt
        if info is None:
            raise ValueError("a run has at least one step")
        return info

    def train_step(self) -> Progress:
        """One step of Algorithm 1: sample, forward, backward, update the subnets' slices."""
        recipe = self.recipe
        epoch = self.step // self.steps_per_epoch
        data_step = self._data_step()
        archs = self._sample_archs(self._resolution(data_step))
        images, labels = self._batch(data_step, archs[0].resolution)
        self.optimizer.zero_grad()
        teacher_logits = self._teacher_logits(data_step, images)
        loss, logits = self._backward(archs, images, labels, teacher_logits)
        norm = gradient_norm(self.supernet.parameters())
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            raise TrainingDivergedError(
                f"training diverged at step {self.step} (loss {loss.item():g}, gradient norm {norm.item():g}) "
                f"with subnet {archs[0].to_json()}; {self.directory} keeps the checkpoint from before, "
                "lower the learning rate"
            )
        if norm > recipe.clip_norm:
            for parameter in self.supernet.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(recipe.clip_norm / norm)
        learning_rate = recipe.learning_rate_at(self.step, self.steps_per_epoch)
        self.optimizer.step((part for arch in archs for part in self.supernet.slices(arch)), learning_rate)
        self.step += 1
        self._loss = loss.item()
        accuracy = (logits.argmax(1) == labels).float().mean().item()
        return Progress(
            self.step, self.steps, epoch, recipe.epochs, self._loss, accuracy, learning_rate, archs[0]
        )

    def _backward(
        self, archs: tuple[Arch, ...], images: Tensor, labels: Tensor, teacher_logits: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Add up the gradients of a step's subnets; loss and logits of the first."""
        first: tuple[Tensor, Tensor] | None = None
        for arch in archs:
            logits = self.supernet(images, arch)
            if first is not None and self.sampler.in_place:
                loss = in_place(logits, first[1])
            else:
                loss = self.recipe.distillation.loss(
                    logits, labels, teacher_logits, self.recipe.label_smoothing
                )
            torch.autograd.backward(loss)
            first = first or (loss.detach(), logits.detach())
        if first is None:
            raise ValueError("a step has at least one subnet")
        return first

    def _teacher_logits(self, data_step: int, images: Tensor) -> Tensor | None:
        if self.teacher is None or self.recipe.distillation.kind == "none":
            return None
        if self.labels is None:
            return self.teacher.logits(images)
        return self.labels.logits(data_step, self._augment_seed(data_step), images)

    def _label_header(self, teacher: Teacher) -> LabelHeader:
        recipe, data = self.recipe, self.data
        if not recipe.augmentation_epochs:
            raise UsageError(
                f"recipe {recipe.name} augments every epoch anew, so no stored label would serve again; "
                "set its augmentation_epochs"
            )
        images = recipe.model_dump(mode="json", exclude=set(NOT_OF_IMAGES))
        images |= {"split": [data.seed, data.fraction], "side": data.side, "resolutions": self.resolutions}
        return LabelHeader(
            teacher=teacher.digest,
            data=data.source.digest,
            images=fields_digest(images),
            classes=data.classes,
            top_k=1 if recipe.distillation.kind == "hard" else min(TOP_K, data.classes),
            steps=self.steps_per_epoch,
            batch=recipe.batch_size,
        )

    def _sample_archs(self, resolution: int) -> tuple[Arch, ...]:
        return self.sampler.draw(random.Random(f"arch {self.recipe.seed} {self.step}"), resolution)

    def _resolution(self, data_step: int) -> int:
        return random.Random(f"resolution {self.recipe.seed} {data_step}").choice(self.resolutions)

    def _data_step(self) -> int:
        """Which batch and augmentation this step gets: its own, or those of an earlier epoch in another order."""
        period = self.recipe.augmentation_epochs
        epoch, position = divmod(self.step, self.steps_per_epoch)
        if not period or epoch < period:
            return self.step
        order = np.random.default_rng((self.recipe.seed, epoch)).permutation(self.steps_per_epoch)
        return epoch % period * self.steps_per_epoch + int(order[position])

    def _batch(self, data_step: int, resolution: int) -> tuple[Tensor, Tensor]:
        epoch, position = divmod(data_step, self.steps_per_epoch)
        order = np.random.default_rng((self.recipe.seed, epoch)).permutation(self.data.split.train)
        indices = order[position * self.recipe.batch_size : (position + 1) * self.recipe.batch_size]
        if not self.recipe.augment:
            return self.data.batch(indices, resolution)
        generator = torch.Generator().manual_seed(self._augment_seed(data_step))
        return self.data.batch(indices, resolution, generator)

    def _augment_seed(self, data_step: int) -> int:
        return random.Random(f"augment {self.recipe.seed} {data_step}").getrandbits(63)

    def _resume(self) -> CheckpointInfo:
        info = resume(self.directory, self.supernet, self.optimizer)
        mine = self._describe(Digests(info.weights_sha256, info.tensors, info.tensors_sha256))
        for field in ("recipe", "data_digest", "split_seed", "split_fraction", "image_side", "teacher"):
            if getattr(info, field) != getattr(mine, field):
                raise UsageError(
                    f"{self.directory} holds a run with another {field}; "
                    "repeat its options or use another directory"
                )
        self.step, self._loss = info.step, info.loss
        return info

    def _describe(self, digests: Digests) -> CheckpointInfo:
        space, data = self.supernet.space, self.data
        return CheckpointInfo(
            space=space.name,
            space_digest=space_digest(space),
            classes=data.source.classes,
            recipe=self.recipe,
            step=self.step,
            steps_per_epoch=self.steps_per_epoch,
            loss=self._loss,
            source=data.source.name,
            data_digest=data.source.digest,
            split_seed=data.seed,
            split_fraction=data.fraction,
            image_side=data.side,
            teacher=self.teacher.name if self.teacher else None,
            weights_sha256=digests.weights_sha256,
            tensors=digests.tensors,
            tensors_sha256=digests.tensors_sha256,
        )


@contextmanager
def _deferred_interrupt() -> Iterator[threading.Event]:
    """Turn Ctrl-C into an event, so that it can't fall into the middle of an update; twice stops at once."""
    event = threading.Event()

    def note(_number: int, _frame: FrameType | None) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)
