"""Processes that train one supernet together, as torchrun starts them; alone, nothing is sent anywhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from luts.format.errors import BlocktimeError, UsageError
from search.supernet.model.device import choose_device

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
