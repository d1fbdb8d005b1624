"""The batches of a run on scenes, numbered by its steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from search.dense.data.batches import Batch, training_batch
from search.dense.data.order import Order
from search.dense.data.scene import Scenes, Task
from search.supernet.data.images import prepared


@dataclass(frozen=True)
class _Steps:
    scenes: Scenes
    task: Task
    order: Order
    side: int
    augmented: bool

    def make(self, step: int) -> Batch:
        seed = (self.order.seed, step)
        return training_batch(
            self.scenes, self.task, self.order.images(step), self.side, seed, self.augmented
        )


def training_batches(
    scenes: Scenes, task: Task, order: Order, side: int, augmented: bool, steps: range, workers: int = 0
) -> Iterator[Batch]:
    """The batches of `steps`; `workers`: processes that make them.

    Raises:
        InvalidArtifactError: an image or mask can't be read; at the step that needs it.
    """
    return prepared(_Steps(scenes, task, order, side, augmented).make, steps, workers)
