"""The batches of a run in order, made in this process or ahead of time by workers; the same either way."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from luts.format.errors import BlocktimeError
from search.supernet.data.images import ImageData
from search.supernet.recipe.recipe import Recipe
from search.supernet.recipe.schedule import Schedule

PREFETCH = 4
"""Batches that each worker keeps ready: enough to even out slow images, 100 MB at 128 images of 256 pixels."""

Batch = tuple[Tensor, Tensor]


class _Parts(Dataset[Batch | BlocktimeError]):
    """Micro-batches, numbered through the run; an error is a value here, so that it crosses processes whole."""

    def __init__(self, data: ImageData, schedule: Schedule, recipe: Recipe):
        self.data, self.schedule, self.recipe = data, schedule, recipe

    def __getitem__(self, number: int) -> Batch | BlocktimeError:
        part = self.schedule.part(*divmod(number, self.recipe.micro_batches))
        try:
            return self.data.training_batch(part, self.recipe.augmentation)
        except BlocktimeError as error:
            return error


def training_batches(
    data: ImageData, schedule: Schedule, recipe: Recipe, numbers: Iterable[int], workers: int = 0
) -> Iterator[Batch]:
    """The micro-batches `numbers`, one after another; `workers`: processes that make them.

    Raises:
        InvalidArtifactError: an image can't be read; at the step that needs it.
    """
    parts = _Parts(data, schedule, recipe)
    batches: Iterable[Batch | BlocktimeError] = (parts[number] for number in numbers)
    if workers:
        data.share()
        batches = DataLoader(
            parts,
            batch_size=None,
            sampler=numbers,
            num_workers=workers,
            prefetch_factor=PREFETCH,
            worker_init_fn=leave_interrupts_to_the_trainer,
        )
    for batch in batches:
        if isinstance(batch, BlocktimeError):
            raise batch
        yield batch


def leave_interrupts_to_the_trainer(_worker: int) -> None:
    """Of a process that prepares batches: Ctrl-C is the trainer's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
