"""The batches of a run in order, made in this process or ahead of time by workers; the same either way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch.utils.data import DataLoader, Dataset

from luts.format.errors import BlocktimeError
from search.dense.data.batches import Batch, training_batch
from search.dense.data.order import Order
from search.dense.data.scene import Scenes, Task
from search.supernet.data.batches import PREFETCH, leave_interrupts_to_the_trainer


class _Steps(Dataset[Batch | BlocktimeError]):
    """Batches by the number of their step; an error is a value here, so that it crosses processes whole."""

    def __init__(self, scenes: Scenes, task: Task, order: Order, side: int, augmented: bool):
        self.scenes, self.task, self.order, self.side, self.augmented = scenes, task, order, side, augmented

    def __getitem__(self, step: int) -> Batch | BlocktimeError:
        seed = (self.order.seed, step)
        try:
            return training_batch(
                self.scenes, self.task, self.order.images(step), self.side, seed, self.augmented
            )
        except BlocktimeError as error:
            return error


def training_batches(
    scenes: Scenes, task: Task, order: Order, side: int, augmented: bool, steps: range, workers: int = 0
) -> Iterator[Batch]:
    """The batches of `steps`; `workers`: processes that make them.

    Raises:
        InvalidArtifactError: an image or mask can't be read; at the step that needs it.
    """
    made = _Steps(scenes, task, order, side, augmented)
    batches: Iterable[Batch | BlocktimeError] = (made[step] for step in steps)
    if workers:
        batches = DataLoader(
            made,
            batch_size=None,
            sampler=steps,
            num_workers=workers,
            prefetch_factor=PREFETCH,
            worker_init_fn=leave_interrupts_to_the_trainer,
        )
    for batch in batches:
        if isinstance(batch, BlocktimeError):
            raise batch
        yield batch
