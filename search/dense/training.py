"""How a network is trained for detection or segmentation, as a value that its checkpoint records."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from safetensors.torch import save
from torch import Tensor, nn

from luts.format.errors import BlocktimeError, InvalidArtifactError, UsageError
from luts.format.files import read_json, storage_error, write_atomically
from luts.format.provenance import CodeVersion, code_version
from search.dense.data import Batch, Order, plain_batches, training_batches
from search.dense.losses import multibox_loss, pixel_loss
from search.dense.metrics import Figures, Overlap, Precision, judge
from search.dense.scenes import Scenes, Task
from search.networks import Network, build_network
from search.networks.network import is_head, load_backbone
from search.networks.outputs import default_boxes, levels_of
from search.spaces import Arch, arch_from_json
from search.spaces.registry import is_timm
from search.supernet.model.weights_file import copy_into, read_weights, tensors_digest
from search.supernet.train.checkpoint import only_training
from search.supernet.train.interrupt import deferred_interrupt
from search.supernet.train.logs import CsvRows
from search.supernet.train.step import ComputeSettings, keep_freed_memory


class DenseRecipe(BaseModel):
    """Hyper-parameters of a run: AdamW, a linear warm-up, then half a cosine down to 0.

    Attributes:
        learning_rate: Peak, of the head.
        backbone_rate: The backbone's learning rate, as a share of the head's: less where it is trained already.
        weight_decay: Of weights with more than one dimension.
        warmup_epochs: Of linear growth to the peak.
        clip_norm: Largest global norm of the gradients; 0 for no bound.
        augmented: Whether training images are cropped, scaled and mirrored.
        freeze: Whether the backbone stands still, the statistics of its BN too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

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

    def rate_at(self, step: int, steps_per_epoch: int) -> float:
        """The head's learning rate of a step from 0."""
        warmup, total = self.warmup_epochs * steps_per_epoch, self.epochs * steps_per_epoch
        if step < warmup:
            return self.learning_rate * (step + 1) / (warmup + 1)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, total - warmup)))


INFO_FILE = "dense.json"

MAX_JSON_BYTES = 1 << 20

_Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class DenseInfo(BaseModel):
    """What `dense.json` says.

    Attributes:
        arch: JSON of the network, its head among it.
        classes: Names of the objects' classes.
        synthetic: Whether the images are made up, which its figures must say too.
        step: Optimizer steps done; with the recipe's seed it fixes all random numbers to come.
        epoch_loss: Sum of the losses of the epoch that is begun.
        figures: Of the validation images after the last whole epoch; empty before.
        init: Where the backbone's first weights came from; None where they were random.
        weights: File of the network's weights and statistics, and its sha256.
        optimizer: The same of the optimizer's state.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    task: Literal["detection", "segmentation"]
    arch: str = Field(max_length=65_536)
    classes: tuple[str, ...] = Field(min_length=1, max_length=254)
    recipe: DenseRecipe
    step: int = Field(ge=0)
    steps_per_epoch: int = Field(ge=1)
    epoch_loss: float = 0.0
    figures: dict[str, float | None] = Field(default={}, max_length=16)
    source: str = Field(max_length=4096)
    data_digest: _Sha256
    synthetic: bool
    init: str | None = Field(default=None, max_length=4096)
    init_sha256: _Sha256 | None = None
    code: CodeVersion | None = None
    weights: str = Field(pattern=r"^network-[0-9a-f]{16}\.safetensors$")
    weights_sha256: _Sha256
    optimizer: str = Field(pattern=r"^optimizer-[0-9a-f]{16}\.safetensors$")
    optimizer_sha256: _Sha256

    @property
    def finished(self) -> bool:
        """Whether training came to its end."""
        return self.step >= self.recipe.epochs * self.steps_per_epoch

    @property
    def network(self) -> Arch:
        """What was trained, with as many classes as the images have."""
        return arch_from_json(self.arch)

    @property
    def title(self) -> str:
        """The images, as figures name them."""
        return f"{self.source} (SYNTHETIC images)" if self.synthetic else self.source


_OF_A_RUN = {
    "task": "task",
    "arch": "network",
    "data_digest": "images",
    "classes": "classes",
    "recipe": "recipe",
    "init_sha256": "start (--init)",
}
"""Fields that stay the same in a run, and what people call them."""


def is_dense_run(folder: Path) -> bool:
    """Whether a folder holds a run of detection or segmentation."""
    return (folder / INFO_FILE).is_file()


def read_info(folder: Path) -> DenseInfo:
    """What a run says of itself; `InvalidArtifactError` where there is none or it is damaged."""
    remedy = "make one with `bench train --task`"
    return read_json(folder / INFO_FILE, DenseInfo, MAX_JSON_BYTES, remedy)


def check_same_run(folder: Path, info: DenseInfo, fields: Mapping[str, Any]) -> None:
    """`UsageError` that names what differs where a folder is not of the run with these fields."""
    differing = next((field for field in _OF_A_RUN if getattr(info, field) != fields[field]), None)
    if differing is None:
        return
    detail = ""
    if differing == "recipe":
        before, now = info.recipe.model_dump(), fields["recipe"].model_dump()
        name = next(name for name in now if now[name] != before[name])
        detail = f": {name} was {before[name]}, now {now[name]}"
    raise UsageError(
        f"{folder} holds a run with another {_OF_A_RUN[differing]}{detail}; "
        "repeat its options or use another directory"
    )


@dataclass(frozen=True)
class BackboneWeights:
    """A classifier's weights and statistics by name; `source`: where they come from, as given."""

    source: str
    tensors: Mapping[str, Tensor] = field(repr=False)

    def put_into(self, network: nn.Module) -> str:
        """Overwrite a backbone; the sha256 of what was given. `UsageError` where they are of another one."""
        try:
            load_backbone(network, self.tensors)
        except UsageError as error:
            raise UsageError(f"--init {self.source}: {error}") from error
        return tensors_digest(self.tensors)


COLUMNS = ("epoch", "step", "images", "learning_rate", "loss")


class EpochLog:
    """Appends rows; those of epochs that come again are dropped."""

    def __init__(self, path: Path, epochs: int, figures: tuple[str, ...]):
        """Go on after so many whole epochs.

        Raises:
            InvalidArtifactError: there is a file of another kind.
            StorageError: it can't be written.
        """
        self._rows = CsvRows(path, (*COLUMNS, *figures), epochs)

    def note(
        self,
        epoch: int,
        step: int,
        synthetic: bool,
        learning_rate: float,
        loss: float,
        figures: Mapping[str, float | None],
    ) -> None:
        """Write the row of an epoch, counted from 1."""
        shares = ("" if share is None else f"{share:.6f}" for share in figures.values())
        kind = "synthetic" if synthetic else "given"
        self._rows.append((epoch, step, kind, f"{learning_rate:.6g}", f"{loss:.5f}", *shares))


_STATE = ("exp_avg", "exp_avg_sq", "step")
"""Of torch's AdamW."""


def save_run(
    folder: Path, network: nn.Module, optimizer: torch.optim.AdamW, fields: Mapping[str, Any]
) -> DenseInfo:
    """Write a checkpoint over the one in `folder`.

    Raises:
        StorageError: nothing could be written; the one before stays whole.
    """
    named = {
        "network": as_exported(network, str(fields["arch"])).state_dict(),
        "optimizer": dict(_state(network, optimizer)),
    }
    data = {
        kind: save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
        for kind, tensors in named.items()
    }
    digests = {kind: hashlib.sha256(content).hexdigest() for kind, content in data.items()}
    files = {kind: f"{kind}-{digest[:16]}.safetensors" for kind, digest in digests.items()}
    info = DenseInfo(
        **fields,
        code=code_version(),
        weights=files["network"],
        weights_sha256=digests["network"],
        optimizer=files["optimizer"],
        optimizer_sha256=digests["optimizer"],
    )
    try:
        for kind, content in data.items():
            write_atomically(folder / files[kind], content)
        write_atomically(folder / INFO_FILE, info.model_dump_json(indent=1).encode())
        for kind, file in files.items():
            for old in folder.glob(f"{kind}-*.safetensors"):
                if old.name != file:
                    old.unlink()
    except OSError as error:
        raise storage_error(
            f"{folder}: cannot save the checkpoint", error, "choose another --output"
        ) from error
    return info


def resume_run(
    folder: Path, network: nn.Module, optimizer: torch.optim.AdamW, check: Callable[[DenseInfo], None]
) -> DenseInfo | None:
    """Put the checkpoint of a folder into network and optimizer; None where there is none.

    Args:
        folder: Of the run.
        network: Whose weights and statistics are overwritten.
        optimizer: Of the network.
        check: Raises where the checkpoint is of another run.

    Raises:
        InvalidArtifactError: it is damaged, or of another network.
    """
    if not (folder / INFO_FILE).exists():
        return None
    info = read_info(folder)
    check(info)
    _put(folder, info, network)
    refusal = f"{folder / info.optimizer}: the state of another network; train again"
    given = read_weights(folder / info.optimizer, info.optimizer_sha256)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter] = {
                key: torch.zeros((), dtype=torch.float32) if key == "step" else torch.zeros_like(parameter)
                for key in _STATE
            }
    copy_into(dict(_state(network, optimizer)), given, refusal)
    return info


def load_run(folder: Path) -> tuple[Network, DenseInfo]:
    """The network of a run, for inference; raises as `resume_run`, also where there is none."""
    info = read_info(folder)
    network = build_network(info.network.blocks())
    _put(folder, info, network)
    return network.eval(), info


def weights_of(folder: Path) -> Path:
    """The file of a run's weights, checked; raises as `load_run`."""
    info = read_info(folder)
    read_weights(folder / info.weights, info.weights_sha256)
    return folder / info.weights


def as_exported(network: nn.Module, arch: str) -> nn.Module:
    """The module whose names of tensors exporters know: of timm's networks, which are one block, that block."""
    return network.get_submodule("0") if is_timm(arch_from_json(arch).space) else network


def _put(folder: Path, info: DenseInfo, network: nn.Module) -> None:
    given = read_weights(folder / info.weights, info.weights_sha256)
    copy_into(
        as_exported(network, info.arch).state_dict(),
        given,
        f"{folder / info.weights}: weights of another network; train again",
    )
    if not all(value.isfinite().all() for value in given.values()):
        raise InvalidArtifactError(
            f"{folder / info.weights}: not finite, so training had diverged; train again"
        )


def _state(network: nn.Module, optimizer: torch.optim.AdamW) -> Iterator[tuple[str, Tensor]]:
    """The optimizer's tensors by the names of the parameters; none of parameters that never moved."""
    for name, parameter in network.named_parameters():
        for key in _STATE if parameter in optimizer.state else ():
            yield f"{key}/{name}", optimizer.state[parameter][key]


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
