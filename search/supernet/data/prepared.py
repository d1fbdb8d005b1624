"""Batches of a run in order, made in this process or ahead of time by workers; the same either way."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from torch.utils.data import DataLoader, Dataset

from luts.format.errors import BlocktimeError

PREFETCH = 4
"""Batches that each worker keeps ready: enough to even out slow images, 100 MB at 128 images of 256 pixels."""

Batch = TypeVar("Batch")


class _Numbered(Dataset[Batch | BlocktimeError], Generic[Batch]):
    """Batches by their number; an error is a value here, so that it crosses processes whole."""

    def __init__(self, make: Callable[[int], Batch]):
        self.make = make

    def __getitem__(self, number: int) -> Batch | BlocktimeError:
        try:
            return self.make(number)
        except BlocktimeError as error:
            return error


def prepared(make: Callable[[int], Batch], numbers: Iterable[int], workers: int = 0) -> Iterator[Batch]:
    """The batches `numbers`, one after another.

    Args:
        make: A batch by its number; what it holds goes to the workers.
        workers: Processes that make them; 0 for this one.

    Raises:
        BlocktimeError: that of `make`, where its batch's turn comes.
    """
    batches: Iterable[Batch | BlocktimeError] = map(_Numbered(make).__getitem__, numbers)
    if workers:
        batches = DataLoader(
            _Numbered(make),
            batch_size=None,
            sampler=numbers,
            num_workers=workers,
            prefetch_factor=PREFETCH,
            worker_init_fn=_leave_interrupts_to_the_trainer,
        )
    for batch in batches:
        if isinstance(batch, BlocktimeError):
            raise batch
        yield batch


def _leave_interrupts_to_the_trainer(_worker: int) -> None:
    """Of a process that prepares batches: Ctrl-C is the trainer's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
