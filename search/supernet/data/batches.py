"""The micro-batches of a run, numbered through it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor

from search.supernet.data.images import ImageData
from search.supernet.data.prepared import prepared
from search.supernet.recipe.recipe import Recipe
from search.supernet.recipe.schedule import Schedule

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class _Parts:
    data: ImageData
    schedule: Schedule
    recipe: Recipe

    def make(self, number: int) -> Batch:
        part = self.schedule.part(*divmod(number, self.recipe.micro_batches))
        return self.data.training_batch(part, self.recipe.augmentation)


def training_batches(
    data: ImageData, schedule: Schedule, recipe: Recipe, numbers: Iterable[int], workers: int = 0
) -> Iterator[Batch]:
    """The micro-batches `numbers`, one after another; `workers`: processes that make them.

    Raises:
        InvalidArtifactError: an image can't be read; at the step that needs it.
    """
    if workers:
        data.share()
    return prepared(_Parts(data, schedule, recipe).make, numbers, workers)
