"""One training step of Algorithm 1, in one process or several."""

from __future__ import annotations

import ctypes
import math
import os
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from luts.format.errors import BlocktimeError, UsageError
from search.spaces import Arch
from search.supernet.data.images import Batch
from search.supernet.model.elastic import Slice
from search.supernet.model.supernet import DropPath, choose_device
from search.supernet.recipe.recipe import Recipe, in_place
from search.supernet.recipe.samplers import Sampler
from search.supernet.train.checkpoint import INFO_FILE, TrainingState
from search.supernet.train.optimizer import Precision, gradient_norm

_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
"""From glibc's malloc.h."""

NEVER = -1


def keep_freed_memory() -> bool:
    """Let malloc keep what is freed; whether it could be told so, which glibc alone can.

    Every step on a CPU allocates the same activations anew. By default glibc gives large ones back to the
    kernel, and the next step waits until each of their pages is mapped and cleared again.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, NEVER))


@dataclass(frozen=True)
class ComputeSettings:
    """Unlike the recipe, these may change when a run goes on.

    Attributes:
        device: Where the supernet lies.
        workers: Processes that prepare batches ahead of time; 0 for none.
        compiled: Whether torch.compile makes the supernet's modules (`search.supernet.model.supernet`).
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    workers: int = 0
    compiled: bool = False


Result = TypeVar("Result")

TIMEOUT = timedelta(minutes=10)
"""A process may be late by a checkpoint of the largest supernet on a slow disk, not by more."""


class RankLostError(BlocktimeError):
    """Another process of the run is gone or hangs."""


class Group:
    """The processes of a run; `rank` 0 writes and speaks for all."""

    def __init__(self, rank: int = 0, size: int = 1):
        self.rank, self.size = rank, size

    @property
    def leads(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def share(self, parts: int) -> range:
        """This process's equal share of the parts of a batch; UsageError where they can't be divided so."""
        if parts % self.size:
            raise UsageError(
                f"{self.size} processes can't share a batch in {parts} parts; "
                f"set micro_batches to a multiple of {self.size}"
            )
        share = parts // self.size
        return range(self.rank * share, (self.rank + 1) * share)

    def sum(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their sums over all processes, sent together.

        Raises:
            RankLostError: one of the processes is gone.
        """
        own = list(tensors)
        if self.size == 1 or not own:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in own])
        self._together(lambda: dist.all_reduce(flat))
        for tensor, part in zip(own, torch.split(flat, [t.numel() for t in own]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def agree(self, what: str, value: int) -> None:
        """Stop where processes do not have the same whole number.

        Raises:
            BlocktimeError: they do not.
        """
        if self.size == 1:
            return
        extremes = torch.tensor([value, -value])
        self._together(lambda: dist.all_reduce(extremes, dist.ReduceOp.MAX))
        if extremes[0] != -extremes[1]:
            raise BlocktimeError(
                f"processes do not agree on {what} ({-extremes[1].item()} to {extremes[0].item()}); "
                "all nodes need the same folder, data and options"
            )

    def _together(self, collective: Callable[[], object]) -> None:
        try:
            collective()
        except RuntimeError as error:
            raise RankLostError(
                f"process {self.rank} of {self.size} lost the others ({str(error).splitlines()[0][-100:]}); "
                "the last checkpoint is whole, run the same command to go on"
            ) from error


@contextmanager
def process_group() -> Iterator[Group]:
    """The group that torchrun's environment describes; that of one process without it.

    Tensors are sent over NCCL where they are on GPUs and over gloo otherwise.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Group()
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        dist.init_process_group(backend, timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise RankLostError(
            f"the {size} processes did not meet ({str(error).splitlines()[0]}); start them with torchrun"
        ) from error
    try:
        yield Group(dist.get_rank(), size)
    finally:
        dist.destroy_process_group()


def local_device(on: str) -> torch.device:
    """Where this process trains: a GPU for each process of a node where there are any.

    Raises:
        UsageError: another name than those of `choose_device`, or no device for this process.
    """
    index, device = int(os.environ.get("LOCAL_RANK", "0")), choose_device(on)
    if device.type != "cuda":
        return device
    count = torch.cuda.device_count()
    if index >= count:
        raise UsageError(f"process {index} of this machine has no GPU of its own, there are {count}; use cpu")
    return choose_device(on, index)


class TrainingDivergedError(BlocktimeError):
    """The loss or a gradient is not finite; the last checkpoint is from before."""


@dataclass(frozen=True)
class SubnetStep:
    """Every random number follows from the recipe's seed and the number of the step.

    Attributes:
        directory: Of the run, named where it diverges.
        frozen: Parameters that stand still.
    """

    recipe: Recipe
    state: TrainingState
    sampler: Sampler
    precision: Precision
    directory: Path
    frozen: frozenset[str] = frozenset()

    def sample(self, step: int, resolution: int) -> tuple[Arch, ...]:
        """The subnets of a step."""
        return self.sampler.draw(random.Random(f"arch {self.recipe.seed} {step}"), resolution)

    def backward(
        self, archs: tuple[Arch, ...], step: int, part: int, batch: Batch, teacher_logits: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Add up the gradients of a micro-batch's subnets; its share of the loss, and logits, of the first."""
        recipe, (images, labels) = self.recipe, batch
        first: tuple[Tensor, Tensor] | None = None
        for arch in archs:
            example = first[1] if first is not None and self.sampler.in_place else None
            drop_path = self._drop_path(step, part) if example is None else None
            with self.precision.autocast():
                logits = self.state.supernet(images, arch, drop_path).float()
            if example is not None:
                loss = in_place(logits, example)
            else:
                loss = recipe.distillation.loss(logits, labels, teacher_logits, recipe.label_smoothing)
            loss = loss / recipe.micro_batches
            torch.autograd.backward(self.precision.scaled(loss))
            first = first or (loss.detach(), logits.detach())
        if first is None:
            raise ValueError("a step has at least one subnet")
        return first

    def complete_gradients(self, archs: tuple[Arch, ...]) -> None:
        """Zeros where the subnets' parameters have no gradients, so that processes send equally many."""
        parameters = dict(self.state.supernet.named_parameters())
        for source in {part.source for part in self._moving(archs)}:
            if parameters[source].grad is None:
                parameters[source].grad = torch.zeros_like(parameters[source])

    def update(self, archs: tuple[Arch, ...], step: int, learning_rate: float, loss: float) -> None:
        """Clip the gradients and move the subnets' slices.

        Raises:
            TrainingDivergedError: loss or gradients are not finite; names step and subnet.
        """
        self.precision.unscale()
        norm = gradient_norm(self.state.supernet.parameters())
        if not (math.isfinite(loss) and (norm.isfinite() or self.precision.scales)):
            saved = (self.directory / INFO_FILE).exists()
            goes_on = f"goes on from the last checkpoint in {self.directory}" if saved else "begins anew"
            raise TrainingDivergedError(
                f"training diverged at step {step} (loss {loss:g}, gradient norm {norm.item():g}) "
                f"with subnet {archs[0].to_json()}; repeat the command with a lower "
                f"--learning-rate or --clip-norm: it {goes_on}"
            )
        if self.recipe.agc:
            from timm.utils import adaptive_clip_grad  # brings torchvision and torch._dynamo: seconds

            adaptive_clip_grad(self.state.supernet.parameters(), self.recipe.agc)
        if 0 < self.recipe.clip_norm < norm:
            for parameter in self.state.supernet.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(self.recipe.clip_norm / norm)
        self.precision.update(lambda: self.state.optimizer.step(self._moving(archs), learning_rate))

    def _moving(self, archs: tuple[Arch, ...]) -> Iterator[Slice]:
        """The parts of the weights that a step of these subnets changes."""
        slices = (part for arch in archs for part in self.state.supernet.slices(arch))
        return (part for part in slices if part.source not in self.frozen)

    def _drop_path(self, step: int, part: int) -> DropPath | None:
        rate = self.recipe.drop_path
        return DropPath(rate, f"{self.recipe.seed} {step} {part}") if rate else None
