"""Training of one network with a head for detection or segmentation: losses, checkpoints (`dense.json`), task."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.files import read_json
from luts.format.provenance import code_version
from luts.format.schema import FrozenModel, Sha256
from search.dense.data import BoxTarget, DenseBatch, DenseBatches, plain_batches
from search.dense.metrics import METRICS, evaluate_outputs
from search.dense.scenes import VOID, DenseTaskName, Scenes
from search.networks import Network, build_network
from search.networks.network import is_head, load_backbone
from search.networks.outputs import default_boxes, encode, intersection_over_union, levels_of
from search.spaces import Arch, arch_from_json
from search.spaces.registry import is_timm
from search.supernet.model.weights_file import copy_into, tensors_digest
from search.supernet.train.checkpoint import RunInfo, check_same_run, read_tensors, write_checkpoint
from search.supernet.train.logs import Progress, TrainingPace
from search.supernet.train.optimizer import Precision
from search.supernet.train.parallel import ComputeSettings, ProcessGroup
from search.supernet.train.trainer import Metrics, RunState, StepLoss, Task

EVALUATION_BATCH = 16
"""Validation images that go through the network at once."""

MAX_JSON_BYTES = 1 << 20


class DenseRecipe(FrozenModel):
    """Hyper-parameters of a run: AdamW, a linear warm-up, then half a cosine down to 0.

    Attributes:
        learning_rate: Peak learning rate of the head.
        backbone_rate: Learning rate of the backbone as a fraction of the head's: less where it is trained already.
        weight_decay: Of weights with more than one dimension.
        clip_norm: Largest global norm of the gradients; 0 for no limit.
        augmented: Whether training images are cropped, scaled and mirrored.
        freeze: Whether the backbone is frozen, including its BN statistics.
    """

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

    micro_batches: int = Field(ge=1, le=1, default=1, exclude=True)
    save_epochs: int = Field(ge=1, le=1, default=1, exclude=True)
    agc: float = Field(ge=0, le=0, default=0.0, exclude=True)

    def learning_rate_at(self, step: int, steps_per_epoch: int) -> float:
        """Return the head's learning rate of a step, counted from 0."""
        warmup, total = self.warmup_epochs * steps_per_epoch, self.epochs * steps_per_epoch
        if step < warmup:
            return self.learning_rate * (step + 1) / (warmup + 1)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, total - warmup)))


class DenseInfo(RunInfo):
    """Content of `dense.json`.

    Attributes:
        arch: JSON of the network with its head.
        classes: Names of the object classes.
        synthetic: Whether the images are synthetic, which every result must repeat.
        epoch_loss: Sum of the losses of the epoch in progress.
        figures: Metrics on the validation images after the last whole epoch; empty before.
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
    """Read the description of a run; raises InvalidArtifactError if there is none, or it is damaged."""
    return read_json(
        folder / DenseInfo.FILE, DenseInfo, MAX_JSON_BYTES, "create one with `bench train detection`"
    )


def load_dense(folder: Path) -> tuple[Network, DenseInfo]:
    """Load the network of a run, for inference; raises InvalidArtifactError if it is missing or damaged."""
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


MATCHING_IOU = 0.5
"""Smallest overlap of a default box and its object, as in the paper and in torchvision's SSDLite."""

BACKGROUND = -1

NEGATIVES = 3
"""Background boxes that count per box with an object: those with the largest losses."""


def match(boxes: Tensor, default: Tensor) -> Tensor:
    """Assign an object to every default box (SSD, section 2.2).

    A default box gets the object that it overlaps most, if by at least `MATCHING_IOU`; then each object gets its
    best default box, with any overlap.

    Args:
        boxes: (N, 4) left, top, right, bottom, 0 to 1.
        default: (A, 4) centre x and y, width, height, 0 to 1.

    Returns:
        (A,) int64, an index into `boxes` or `BACKGROUND`.
    """
    if not len(boxes):
        return default.new_full((len(default),), BACKGROUND, dtype=torch.int64)
    corners = torch.cat((default[:, :2] - default[:, 2:] / 2, default[:, :2] + default[:, 2:] / 2), 1)
    overlap = intersection_over_union(boxes, corners)
    best, matched = overlap.max(0)
    matched[best < MATCHING_IOU] = BACKGROUND
    matched[overlap.argmax(1)] = torch.arange(len(boxes), device=boxes.device)
    return matched


def multibox_loss(output: Tensor, default: Tensor, objects: Sequence[BoxTarget]) -> tuple[Tensor, Tensor]:
    """Return the class loss and the box loss of a batch (SSD, equations 1 to 3); their sum is minimised.

    The class loss is cross-entropy with hard negatives, the box loss smooth L1 of the offsets; both are divided by
    the number of default boxes that have an object.

    Args:
        output: (B, A, classes + 1 + 4): logits, the background first, and offsets.
        default: (A, 4) default boxes, centre x and y, width, height, 0 to 1.
        objects: Of each image.
    """
    matched = torch.stack([match(target.boxes, default) for target in objects])
    labels = torch.zeros_like(matched)
    found = matched >= 0
    offsets = []
    for image, target in enumerate(objects):
        own = matched[image][found[image]]
        labels[image][found[image]] = target.labels[own]
        offsets.append(encode(target.boxes[own], default[found[image]]))
    logits, predicted = output[..., :-4], output[..., -4:]
    count = max(1, int(found.sum()))
    box_loss = F.smooth_l1_loss(predicted[found], torch.cat(offsets), reduction="sum") / count
    losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
    counted = found | _hard_negatives(losses.detach(), found)
    return losses[counted].sum() / count, box_loss


def _hard_negatives(losses: Tensor, found: Tensor) -> Tensor:
    """Return (B, A) bool: of each image, the background boxes with the largest losses."""
    ranked = losses.masked_fill(found, -torch.inf).sort(1, descending=True).indices
    ranks = ranked.argsort(1)
    return (ranks < NEGATIVES * found.sum(1, keepdim=True)) & ~found


def pixel_loss(output: Tensor, masks: Tensor) -> Tensor:
    """Return the mean cross-entropy of the pixels that are not `VOID`; 0 where all are.

    `output`, (B, classes + 1, h, w) logits, the background first, is resized to the masks, (B, H, W) int64.
    """
    resized = F.interpolate(output, size=masks.shape[-2:], mode="bilinear", align_corners=False)
    summed = F.cross_entropy(resized, masks, ignore_index=VOID, reduction="sum")
    return summed / (masks != VOID).sum().clamp(min=1)


@dataclass(frozen=True)
class BackboneWeights:
    """A classifier's weights and statistics by name, and their source as given."""

    source: str
    tensors: Mapping[str, Tensor] = field(repr=False)

    def apply_to(self, network: nn.Module) -> str:
        """Overwrite a backbone; return the sha256 of the weights. Raises UsageError for another backbone's."""
        try:
            load_backbone(network, self.tensors)
        except UsageError as error:
            raise UsageError(f"--init {self.source}: {error}", code="weights_of_another_network") from error
        return tensors_digest(self.tensors)


class DenseTask(Task[DenseBatch, DenseInfo]):
    """Trains one network whose outputs are dense: boxes by an SSD head, or masks of the whole image.

    Attributes:
        images_by_step: The training batches.
        figures: Validation metrics after the last whole epoch.
    """

    recipe: DenseRecipe

    def __init__(
        self,
        name: DenseTaskName,
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
        self.name, self.arch, self.scenes, self.recipe, self.directory = name, arch, scenes, recipe, directory
        self.compute, self.group = compute or ComputeSettings(), ProcessGroup()
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

    @cached_property
    def default_boxes(self) -> Tensor:
        """(A, 4) default boxes of a detector's head, on the device."""
        return default_boxes(levels_of(self.arch.blocks())).to(self.compute.device)

    def loss(self, output: Tensor, batch: DenseBatch) -> Tensor:
        """Return the mean cross-entropy of the pixels, or the sum of SSD's class loss and box loss."""
        if batch.masks is not None:
            return pixel_loss(output, batch.masks.to(self.compute.device))
        targets = [target.to(self.compute.device) for target in batch.objects]
        class_loss, box_loss = multibox_loss(output, self.default_boxes, targets)
        return class_loss + box_loss

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
    def metrics(self, state: RunState) -> Metrics:
        """Return the metrics on the validation images after the last whole epoch."""
        if state.step % self.steps_per_epoch == 0:
            self.model.eval()
            side, indices = self.arch.resolution, self.scenes.validation
            batches = plain_batches(self.scenes, indices, side, EVALUATION_BATCH)
            outputs = ((part, self.model(images.to(self.compute.device))) for part, images in batches)
            self.figures = evaluate_outputs(self.name, self.scenes, self.arch.blocks(), outputs)
        return self.figures

    def log_row(self, progress: Progress, pace: TrainingPace, state: RunState) -> tuple[object, ...] | None:  # noqa: ARG002
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
        """Load the last checkpoint, of this very run; None without one."""
        if not is_dense_run(self.directory):
            return None
        info = read_dense_info(self.directory)
        check_same_run(self.directory, info, self.fields)
        _load_weights(self.directory, info, self.model)
        refusal = f"{self.directory / info.optimizer}: the state of another network; train again"
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
        """Yield the optimizer's tensors by parameter name, without frozen parameters."""
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                yield f"{key}/{name}", value


def _adamw(network: nn.Module, recipe: DenseRecipe) -> torch.optim.AdamW:
    """Return an optimizer with head and backbone at their own rates, each with and without weight decay.

    Its state begins with the zeros that torch's first step would make, so that a checkpoint has where to go.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        head = is_head(name)
        parameter.requires_grad_(head or not recipe.freeze)
        if parameter.requires_grad:
            share = 1.0 if head else recipe.backbone_rate
            decay = recipe.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((share, decay), []).append(parameter)
    optimizer = torch.optim.AdamW(
        [
            {"params": parameters, "share": share, "weight_decay": decay}
            for (share, decay), parameters in groups.items()
        ],
        lr=recipe.learning_rate,
    )
    for parameter in (parameter for parameters in groups.values() for parameter in parameters):
        zeros = {key: torch.zeros_like(parameter, requires_grad=False) for key in ("exp_avg", "exp_avg_sq")}
        optimizer.state[parameter] = {"step": torch.zeros(())} | zeros
    return optimizer
