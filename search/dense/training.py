"""Training of one network with a head for detection or segmentation, and its checkpoints (`dense.json`)."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.files import read_json
from luts.format.provenance import code_version
from search.dense.data import DenseBatch, DenseBatches, plain_batches
from search.dense.losses import multibox_loss, pixel_loss
from search.dense.metrics import METRICS, evaluate_outputs
from search.dense.scenes import DenseTaskName, Scenes
from search.networks import Network, build_network
from search.networks.network import is_head, load_backbone
from search.networks.outputs import default_boxes, levels_of
from search.spaces import Arch, arch_from_json
from search.spaces.registry import is_timm
from search.supernet.model.weights_file import copy_into, tensors_digest
from search.supernet.train.checkpoint import RunInfo, Sha256, check_same_run, read_tensors, write_checkpoint
from search.supernet.train.logs import Pace, Progress
from search.supernet.train.optimizer import Precision
from search.supernet.train.parallel import ComputeSettings, Group
from search.supernet.train.task import Metrics, RunState, StepLoss, Task

EVALUATION_BATCH = 16
"""Validation images that go through the network at once."""

MAX_JSON_BYTES = 1 << 20


class DenseRecipe(BaseModel):
    """Hyper-parameters of a run: AdamW, a linear warm-up, then half a cosine down to 0.

    Attributes:
        epochs: Number of epochs.
        batch_size: Images of a step.
        learning_rate: Peak learning rate of the head.
        backbone_rate: Learning rate of the backbone as a fraction of the head's: less where it is trained already.
        weight_decay: Of weights with more than one dimension.
        warmup_epochs: Epochs of linear growth to the peak.
        clip_norm: Largest global norm of the gradients; 0 for no limit.
        augmented: Whether training images are cropped, scaled and mirrored.
        freeze: Whether the backbone is frozen, including its BN statistics.
        seed: Decides all randomness of the run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    micro_batches: ClassVar[int] = 1
    save_epochs: ClassVar[int] = 1
    agc: ClassVar[float] = 0.0

    epochs: int = Field(ge=1, le=100_000, default=20)
    batch_size: int = Field(ge=2, le=65_536, default=16)
    learning_rate: float = Field(gt=0, le=1, default=1e-3)
    backbone_rate: float = Field(gt=0, le=1, default=0.3)
    weight_decay: float = Field(ge=0, lt=1, default=1e-2)
    warmup_epochs: float = Field(ge=0, default=1)
    clip_norm: float = Field(ge=0, default=5.0)
    augmented: bool = True
    freeze: bool = False
    seed: int = Field(ge=0, lt=2**32, default=0)

    def learning_rate_at(self, step: int, steps_per_epoch: int) -> float:
        """Return the head's learning rate of a step, counted from 0."""
        warmup, total = self.warmup_epochs * steps_per_epoch, self.epochs * steps_per_epoch
        if step < warmup:
            return self.learning_rate * (step + 1) / (warmup + 1)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, total - warmup)))


class DenseInfo(RunInfo):
    """Content of `dense.json`.

    Attributes:
        task: Of the network.
        arch: JSON of the network with its head.
        classes: Names of the object classes.
        synthetic: Whether the images are synthetic, which every result must repeat.
        epoch_loss: Sum of the losses of the epoch in progress.
        figures: Metrics on the validation images after the last whole epoch; empty before.
        weights: File of the network's weights and statistics.
        optimizer: File of the optimizer's state.
    """

    FILE: ClassVar[str] = "dense.json"
    TENSORS: ClassVar[Mapping[str, tuple[str, str]]] = {
        "network": ("weights", "weights_sha256"),
        "optimizer": ("optimizer", "optimizer_sha256"),
    }
    OF_A_RUN: ClassVar[Mapping[str, str]] = {
        "task": "task",
        "arch": "network",
        "data_digest": "images",
        "classes": "classes",
        "recipe": "recipe",
        "init_sha256": "start (--init)",
    }

    format: Literal[1] = 1
    task: DenseTaskName
    arch: str = Field(max_length=65_536)
    classes: tuple[str, ...] = Field(min_length=1, max_length=254)
    recipe: DenseRecipe
    epoch_loss: float = 0.0
    figures: dict[str, float | None] = Field(default={}, max_length=16)
    synthetic: bool
    weights: str = Field(pattern=r"^network-[0-9a-f]{16}\.safetensors$")
    weights_sha256: Sha256
    optimizer: str = Field(pattern=r"^optimizer-[0-9a-f]{16}\.safetensors$")
    optimizer_sha256: Sha256

    @property
    def network(self) -> Arch:
        """The trained architecture, with as many classes as the images have."""
        return arch_from_json(self.arch)


def is_dense_run(folder: Path) -> bool:
    """Return whether a folder has a run of detection or segmentation."""
    return (folder / DenseInfo.FILE).is_file()


def read_dense_info(folder: Path) -> DenseInfo:
    """Read the description of a run.

    Raises:
        InvalidArtifactError: there is none, or it is damaged.
    """
    return read_json(
        folder / DenseInfo.FILE, DenseInfo, MAX_JSON_BYTES, "create one with `bench train detection`"
    )


def load_dense(folder: Path) -> tuple[Network, DenseInfo]:
    """Load the network of a run, for inference.

    Raises:
        InvalidArtifactError: there is no run, it is damaged, or its weights are not finite.
    """
    info = read_dense_info(folder)
    network = build_network(info.network.blocks())
    _load_weights(folder, info, network)
    return network.eval(), info


def weights_path(folder: Path) -> Path:
    """Return the file of a run's weights after checking it; raises like `load_dense`."""
    info = read_dense_info(folder)
    read_tensors(folder, info, "network")
    return folder / info.weights


def _load_weights(folder: Path, info: DenseInfo, network: nn.Module) -> None:
    given = read_tensors(folder, info, "network")
    refusal = f"{folder / info.weights}: weights of another network; train again"
    copy_into(_as_exported(network, info.network).state_dict(), given, refusal)
    if not all(value.isfinite().all() for value in given.values()):
        raise InvalidArtifactError(
            f"{folder / info.weights}: not finite, so training had diverged; train again",
            code="weights_not_finite",
        )


def _as_exported(network: nn.Module, arch: Arch) -> nn.Module:
    """Return the module whose tensor names exporters know: timm's networks are one block, so that block."""
    return network.get_submodule("0") if is_timm(arch.space) else network


@dataclass(frozen=True)
class BackboneWeights:
    """A classifier's weights and statistics by name, and their source as given."""

    source: str
    tensors: Mapping[str, Tensor] = field(repr=False)

    def apply_to(self, network: nn.Module) -> str:
        """Overwrite a backbone; return the sha256 of the weights.

        Raises:
            UsageError: they are of another backbone.
        """
        try:
            load_backbone(network, self.tensors)
        except UsageError as error:
            raise UsageError(f"--init {self.source}: {error}", code="weights_of_another_network") from error
        return tensors_digest(self.tensors)


class DenseTask(Task[DenseBatch, DenseInfo]):
    """Trains one network whose outputs are dense: boxes or masks of the whole image.

    Attributes:
        name: Of the task.
        arch: The network with its head.
        images_by_step: The training batches.
        figures: Validation metrics after the last whole epoch.
    """

    name: DenseTaskName
    recipe: DenseRecipe

    def __init__(
        self,
        arch: Arch,
        scenes: Scenes,
        recipe: DenseRecipe,
        directory: Path,
        initial: BackboneWeights | None = None,
        compute: ComputeSettings | None = None,
    ):
        """Build the network; `arch` has the task's head for the images' classes.

        Raises:
            UsageError: too few training images, or initial weights of another backbone.
        """
        self.arch, self.scenes, self.recipe, self.directory = arch, scenes, recipe, directory
        self.compute, self.group = compute or ComputeSettings(), Group()
        self.images_by_step = DenseBatches(
            scenes, self.name, recipe.batch_size, arch.resolution, recipe.seed, recipe.augmented
        )
        self.steps_per_epoch = self.images_by_step.steps_per_epoch
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.model = build_network(arch.blocks())
        digest = initial.apply_to(self.model) if initial else None
        self.model.to(self.compute.device)
        self.optimizer = _adamw(self.model, recipe)
        self.precision = Precision("fp32", self.compute.device, self.model.parameters())
        self.log_columns = ("epoch", "step", "images", "learning_rate", "loss", *METRICS[self.name])
        self.figures: Metrics = {}
        self.fields: dict[str, Any] = {
            "task": self.name,
            "arch": arch.to_json(),
            "classes": scenes.classes,
            "recipe": recipe,
            "steps_per_epoch": self.steps_per_epoch,
            "source": scenes.name,
            "data_digest": scenes.digest,
            "synthetic": scenes.synthetic,
            "init": initial.source if initial else None,
            "init_sha256": digest,
        }

    @abstractmethod
    def loss(self, output: Tensor, batch: DenseBatch) -> Tensor:
        """Return the loss of a batch."""

    def batches(self, numbers: Iterable[int]) -> Iterator[DenseBatch]:
        """Yield the batches of steps."""
        return self.images_by_step.batches(numbers, self.compute.workers)

    def start_step(self, step: int) -> None:  # noqa: ARG002
        """Switch to training mode; a frozen backbone keeps its BN statistics."""
        self.model.train()
        if self.recipe.freeze:
            for name, module in self.model.named_modules():
                if name and not is_head(name):
                    module.training = False

    def losses(self, step: int, part: int, batch: DenseBatch) -> Iterator[StepLoss]:  # noqa: ARG002
        """Yield the loss of the batch; dropout of the head follows from the recipe's seed and the step."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.SeedSequence([self.recipe.seed, step]).generate_state(1)[0]))
            yield StepLoss(self.loss(self.model(batch.images.to(self.compute.device)), batch))

    @torch.no_grad()
    def evaluate(self) -> dict[str, float | None]:
        """Return the metrics of the current network on the validation images."""
        self.model.eval()
        batches = plain_batches(self.scenes, self.scenes.validation, self.arch.resolution, EVALUATION_BATCH)
        outputs = ((indices, self.model(images.to(self.compute.device))) for indices, images in batches)
        return evaluate_outputs(self.name, self.scenes, self.arch.blocks(), outputs)

    def metrics(self, state: RunState) -> Metrics:
        """Return the metrics after the last whole epoch."""
        if state.step % self.steps_per_epoch == 0:
            self.figures = self.evaluate()
        return self.figures

    def log_row(self, progress: Progress, pace: Pace, state: RunState) -> tuple[object, ...] | None:  # noqa: ARG002
        """Return a row after every epoch."""
        if progress.step % self.steps_per_epoch:
            return None
        return (
            progress.epoch + 1,
            progress.step,
            "synthetic" if self.scenes.synthetic else "given",
            f"{progress.learning_rate:.6g}",
            f"{state.epoch_loss / self.steps_per_epoch:.5f}",
            *("" if value is None else f"{value:.6f}" for value in self.figures.values()),
        )

    def resume(self) -> RunState | None:
        """Load the last checkpoint; None without one.

        Raises:
            InvalidArtifactError: it is damaged, or of another network.
            UsageError: it is of another run.
        """
        if not is_dense_run(self.directory):
            return None
        info = read_dense_info(self.directory)
        check_same_run(self.directory, info, self.fields)
        _load_weights(self.directory, info, self.model)
        refusal = f"{self.directory / info.optimizer}: the state of another network; train again"
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                self.optimizer.state[parameter] = {
                    key: torch.zeros((), dtype=torch.float32)
                    if key == "step"
                    else torch.zeros_like(parameter)
                    for key in _STATE
                }
        copy_into(dict(self._optimizer_state()), read_tensors(self.directory, info, "optimizer"), refusal)
        self.figures = info.figures
        return RunState(info.step, epoch_loss=info.epoch_loss)

    def save(self, state: RunState, metrics: Metrics) -> DenseInfo:
        """Write the checkpoint over the last one; raises StorageError."""
        fields = self.fields | {
            "step": state.step,
            "epoch_loss": state.epoch_loss,
            "figures": dict(metrics),
            "code": code_version(),
        }
        tensors = {
            "network": _as_exported(self.model, self.arch).state_dict(),
            "optimizer": dict(self._optimizer_state()),
        }
        return write_checkpoint(self.directory, DenseInfo, fields, tensors)

    def read(self) -> DenseInfo:
        """Return the description of the last checkpoint."""
        return read_dense_info(self.directory)

    def _optimizer_state(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the optimizer's tensors by parameter name, without parameters that have not moved yet."""
        for name, parameter in self.model.named_parameters():
            for key in _STATE if parameter in self.optimizer.state else ():
                yield f"{key}/{name}", self.optimizer.state[parameter][key]


class DetectionTask(DenseTask):
    """Object detection with an SSD head: multibox loss, mean average precision."""

    name = "detection"

    @cached_property
    def default_boxes(self) -> Tensor:
        """(A, 4) default boxes of the head, on the device."""
        return default_boxes(levels_of(self.arch.blocks())).to(self.compute.device)

    def loss(self, output: Tensor, batch: DenseBatch) -> Tensor:
        """Return the sum of class loss and box loss."""
        targets = [target.to(self.compute.device) for target in batch.objects]
        class_loss, box_loss = multibox_loss(output, self.default_boxes, targets)
        return class_loss + box_loss


class SegmentationTask(DenseTask):
    """Semantic segmentation: cross-entropy of pixels, mean intersection over union."""

    name = "segmentation"

    def loss(self, output: Tensor, batch: DenseBatch) -> Tensor:
        """Return the mean cross-entropy of the pixels."""
        if batch.masks is None:
            raise ValueError("a batch of segmentation has masks")
        return pixel_loss(output, batch.masks.to(self.compute.device))


DENSE_TASKS: Mapping[DenseTaskName, type[DenseTask]] = {
    "detection": DetectionTask,
    "segmentation": SegmentationTask,
}

_STATE = ("exp_avg", "exp_avg_sq", "step")
"""State of torch's AdamW."""


def _adamw(network: nn.Module, recipe: DenseRecipe) -> torch.optim.AdamW:
    """Return an optimizer with head and backbone at their own rates, each with and without weight decay."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        head = is_head(name)
        parameter.requires_grad_(head or not recipe.freeze)
        if parameter.requires_grad:
            share = 1.0 if head else recipe.backbone_rate
            decay = recipe.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((share, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "share": share, "weight_decay": decay}
            for (share, decay), parameters in groups.items()
        ],
        lr=recipe.learning_rate,
    )
