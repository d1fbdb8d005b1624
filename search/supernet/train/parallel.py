"""Processes and devices of a run: settings, process groups, deferred interrupts."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from types import FrameType

import torch
import torch.distributed as dist
from torch import Tensor

from luts.format.errors import BlocktimeError, UsageError
from search.supernet.model.supernet import choose_device

_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
"""Options of glibc's mallopt, from malloc.h."""

_NEVER_TRIM = -1


def keep_freed_memory() -> bool:
    """Tell glibc's malloc to keep freed memory; return whether that was possible.

    Every step on a CPU allocates the same activations again. By default glibc returns large ones to the kernel, and
    the next step waits until each of their pages is mapped and cleared again.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER_TRIM))


@dataclass(frozen=True)
class ComputeSettings:
    """Settings that may change when a run resumes, unlike its recipe.

    Attributes:
        workers: Processes that prepare batches ahead of time; 0 for none.
        compiled: Whether torch.compile compiles a supernet's modules.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    workers: int = 0
    compiled: bool = False


TIMEOUT = timedelta(minutes=10)
"""A process may be late by one checkpoint of the largest supernet on a slow disk."""


class RankLostError(BlocktimeError):
    """Another process of the run is gone or hangs."""


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a run, of which this is `rank` of `size`; `rank` 0 writes files and reports."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def share(self, parts: int) -> range:
        """Return this process's share of the parts of a batch; raises UsageError if it isn't a whole number."""
        if parts % self.size:
            raise UsageError(
                f"{self.size} processes can't share a batch in {parts} parts; "
                f"set micro_batches to a multiple of {self.size}",
                code="uneven_micro_batches",
            )
        share = parts // self.size
        return range(self.rank * share, (self.rank + 1) * share)

    def sum(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their sums over all processes, sent together; raises RankLostError if one is gone."""
        own = list(tensors)
        if self.size == 1 or not own:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in own])
        self._run(lambda: dist.all_reduce(flat))
        for tensor, part in zip(own, torch.split(flat, [t.numel() for t in own]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def agree(self, what: str, value: int) -> None:
        """Raise BlocktimeError where processes have different values of a whole number."""
        if self.size == 1:
            return
        extremes = torch.tensor([value, -value])
        self._run(lambda: dist.all_reduce(extremes, dist.ReduceOp.MAX))
        if extremes[0] != -extremes[1]:
            raise BlocktimeError(
                f"processes disagree on {what} ({-extremes[1].item()} to {extremes[0].item()}); "
                "all nodes need the same folder, data and options",
                code="processes_disagree",
            )

    def _run(self, collective: Callable[[], object]) -> None:
        try:
            collective()
        except RuntimeError as error:
            raise RankLostError(
                f"process {self.rank} of {self.size} lost the others ({str(error).splitlines()[0][-100:]}); "
                "the last checkpoint is whole, run the same command to resume",
                code="process_lost",
            ) from error


@contextmanager
def process_group() -> Iterator[ProcessGroup]:
    """Provide the group that torchrun's environment describes, or a group of one process without it.

    Tensors are sent over NCCL where they are on GPUs and over gloo otherwise.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ProcessGroup()
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        dist.init_process_group(backend, timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise RankLostError(
            f"the {size} processes did not connect ({str(error).splitlines()[0]}); start them with torchrun",
            code="process_lost",
        ) from error
    try:
        yield ProcessGroup(dist.get_rank(), size)
    finally:
        dist.destroy_process_group()


def local_device(on: str) -> torch.device:
    """Return this process's device, of several GPUs its own; raises UsageError if there is none."""
    index, device = int(os.environ.get("LOCAL_RANK", "0")), choose_device(on)
    if device.type != "cuda":
        return device
    count = torch.cuda.device_count()
    if index >= count:
        raise UsageError(
            f"process {index} of this machine has no GPU of its own, there are {count}; use --on cpu",
            code="device_unavailable",
        )
    return choose_device(on, index)


@contextmanager
def deferred_interrupt() -> Iterator[threading.Event]:
    """Turn Ctrl-C into an event, so that it can't interrupt an update; a second Ctrl-C stops at once."""
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
