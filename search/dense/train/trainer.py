"""A network with a head of detection or segmentation, trained step after step, saved and logged."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from luts.format.errors import BlocktimeError
from search.dense.data.batches import Batch, plain_batches
from search.dense.data.loader import training_batches
from search.dense.data.order import Order
from search.dense.data.scene import Scenes, Task
from search.dense.loss.multibox import multibox_loss
from search.dense.loss.pixels import pixel_loss
from search.dense.score.judge import Figures, judge
from search.dense.score.mean_iou import Overlap
from search.dense.score.mean_precision import Precision
from search.dense.train.checkpoint import resume_run, save_run
from search.dense.train.info import INFO_FILE, DenseInfo, check_same_run
from search.dense.train.initial import BackboneWeights
from search.dense.train.log import EpochLog
from search.dense.train.recipe import DenseRecipe
from search.networks import build_network
from search.networks.backbone import is_head
from search.outputs.anchors import default_boxes, levels_of
from search.spaces import Arch
from search.supernet.train.checkpoint import only_training
from search.supernet.train.interrupt import deferred_interrupt
from search.supernet.train.step import ComputeSettings, keep_freed_memory

JUDGED_TOGETHER = 16
"""Validation images that go through the network at once."""


class DenseTrainingDivergedError(BlocktimeError):
    """The loss or a gradient is not finite; the last checkpoint is from before."""


@dataclass(frozen=True)
class DenseProgress:
    """State after a step; `figures` of the epoch that it ends, else None."""

    step: int
    steps: int
    epoch: int
    epochs: int
    loss: float
    figures: Figures | None


class DenseTrainer:
    """One run in one directory; `run()` goes on from the checkpoint there, bit by bit as if never stopped.

    Every random number follows from the recipe's seed and the step, so a checkpoint needs no generator state.
    """

    def __init__(
        self,
        task: Task,
        arch: Arch,
        scenes: Scenes,
        recipe: DenseRecipe,
        directory: Path,
        initial: BackboneWeights | None = None,
        compute: ComputeSettings | None = None,
    ):
        """`arch` with its head of the task and the images' classes; `initial`: what the backbone begins with.

        Raises:
            UsageError: too few training images, or weights of another backbone.
        """
        self.task, self.scenes, self.recipe, self.directory = task, scenes, recipe, directory
        self.compute = compute or ComputeSettings()
        self.order = Order(scenes.train, recipe.batch_size, recipe.seed)
        self.blocks, self.side = arch.blocks(), arch.resolution
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.network = build_network(self.blocks)
        begun_with = initial.put_into(self.network) if initial else None
        self.network.to(self.compute.device)
        self.default = default_boxes(levels_of(self.blocks)) if task == "detection" else torch.zeros(0, 4)
        self.default = self.default.to(self.compute.device)
        self.optimizer = self._optimizer()
        self.step, self._loss_sum = 0, 0.0
        self._figures: dict[str, float | None] = {}
        self._batches: Iterator[Batch] | None = None
        self._fields: dict[str, Any] = {
            "task": task,
            "arch": arch.to_json(),
            "classes": scenes.classes,
            "recipe": recipe,
            "steps_per_epoch": self.order.steps_per_epoch,
            "source": scenes.name,
            "data_digest": scenes.digest,
            "synthetic": scenes.synthetic,
            "init": initial.source if initial else None,
            "init_sha256": begun_with,
        }

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.recipe.epochs * self.order.steps_per_epoch

    def run(self, on_progress: Callable[[DenseProgress], None] | None = None) -> DenseInfo:
        """Train to the end, or to Ctrl-C, which saves a checkpoint after the step it falls in.

        Raises:
            KeyboardInterrupt: after Ctrl-C, once the checkpoint is written.
            DenseTrainingDivergedError: names the step.
            InvalidArtifactError: the checkpoint or an image is damaged.
            UsageError: the checkpoint is of another run.
            StorageError: checkpoint or log can't be written.
            BusyFolderError: another process trains in the directory.
        """
        with only_training(self.directory):
            return self._run(on_progress)

    def _run(self, on_progress: Callable[[DenseProgress], None] | None) -> DenseInfo:
        if self.compute.device.type == "cpu":
            keep_freed_memory()
        info = self._resume()
        if info is not None and info.finished:
            return info
        names = Precision.names() if self.task == "detection" else Overlap.names()
        log = EpochLog(self.directory / "log.csv", self.step // self.order.steps_per_epoch, names)
        with deferred_interrupt() as interrupted:
            while self.step < self.steps:
                loss, rate = self._train_step()
                figures = None
                if self.step % self.order.steps_per_epoch == 0:
                    figures = self.judged()
                    epoch, mean = (
                        self.step // self.order.steps_per_epoch,
                        self._loss_sum / self.order.steps_per_epoch,
                    )
                    self._figures, self._loss_sum = figures.to_dict(), 0.0
                    log.note(epoch, self.step, self.scenes.synthetic, rate, mean, self._figures)
                stopping = interrupted.is_set()
                if figures is not None or stopping:
                    info = self._save()
                if on_progress is not None:
                    on_progress(self._progress(loss, figures))
                if stopping:
                    raise KeyboardInterrupt
        assert info is not None
        return info

    @torch.no_grad()
    def judged(self) -> Figures:
        """Figures of the network as it is on the validation images."""
        self.network.eval()
        outputs = (
            (indices, self.network(images.to(self.compute.device)))
            for indices, images in plain_batches(
                self.scenes, self.scenes.validation, self.side, JUDGED_TOGETHER
            )
        )
        return judge(self.task, self.scenes, self.blocks, outputs)

    def _train_step(self) -> tuple[float, float]:
        """Loss and learning rate of a step."""
        self._to_training()
        rate = self.recipe.rate_at(self.step, self.order.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        batch = self._next_batch()
        self.optimizer.zero_grad()
        with torch.random.fork_rng(devices=[]):  # dropout of heads
            torch.manual_seed(int(np.random.SeedSequence([self.recipe.seed, self.step]).generate_state(1)[0]))
            loss = self._loss(self.network(batch.images.to(self.compute.device)), batch)
            loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(
            self.network.parameters(), self.recipe.clip_norm or math.inf, error_if_nonfinite=False
        )
        if not (loss.isfinite() and norm.isfinite()):
            saved = (self.directory / INFO_FILE).exists()
            raise DenseTrainingDivergedError(
                f"training diverged at step {self.step} (loss {loss.item():g}, gradient norm {norm.item():g}); "
                "begin anew in another folder with a lower --learning-rate"
                + (f", {self.directory} keeps the last checkpoint" if saved else "")
            )
        self.optimizer.step()
        self.step += 1
        self._loss_sum += loss.item()
        return loss.item(), rate

    def _loss(self, output: Tensor, batch: Batch) -> Tensor:
        device = self.compute.device
        if batch.masks is not None:
            return pixel_loss(output, batch.masks.to(device))
        return multibox_loss(output, self.default, [one.to(device) for one in batch.objects]).total

    def _to_training(self) -> None:
        """Training mode; a frozen backbone keeps its statistics."""
        self.network.train()
        if self.recipe.freeze:
            for name, module in self.network.named_modules():
                if name and not is_head(name):
                    module.training = False

    def _next_batch(self) -> Batch:
        if self._batches is None:
            numbers = range(self.step, self.steps)
            how = (self.scenes, self.task, self.order, self.side, self.recipe.augmented)
            self._batches = training_batches(*how, numbers, self.compute.workers)
        return next(self._batches)

    def _optimizer(self) -> torch.optim.AdamW:
        """Head and backbone at their own rates, each with and without weight decay."""
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in self.network.named_parameters():
            head = is_head(name)
            parameter.requires_grad_(head or not self.recipe.freeze)
            if not parameter.requires_grad:
                continue
            share = 1.0 if head else self.recipe.backbone_rate
            decay = self.recipe.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((share, decay), []).append(parameter)
        return torch.optim.AdamW(
            [
                {"params": parameters, "share": share, "weight_decay": decay}
                for (share, decay), parameters in groups.items()
            ],
            lr=self.recipe.learning_rate,
        )

    def _resume(self) -> DenseInfo | None:
        info = resume_run(self.directory, self.network, self.optimizer, self._check)
        if info is not None:
            self.step, self._loss_sum, self._figures = info.step, info.epoch_loss, info.figures
        return info

    def _check(self, info: DenseInfo) -> None:
        check_same_run(self.directory, info, self._fields)

    def _save(self) -> DenseInfo:
        state = {"step": self.step, "epoch_loss": self._loss_sum, "figures": self._figures}
        return save_run(self.directory, self.network, self.optimizer, self._fields | state)

    def _progress(self, loss: float, figures: Figures | None) -> DenseProgress:
        epoch = (self.step - 1) // self.order.steps_per_epoch
        return DenseProgress(self.step, self.steps, epoch, self.recipe.epochs, loss, figures)
