"""Which images a step sees: all of an epoch in an order of its own, which a seed decides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from luts.format.errors import UsageError


@dataclass(frozen=True)
class Order:
    """Steps of a run over images; those that do not fill a batch wait for the next epoch.

    Attributes:
        indices: (N,) of the training images.
        batch_size: Images of a step.
        seed: Of the run.
    """

    indices: np.ndarray
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if len(self.indices) < self.batch_size:
            raise UsageError(
                f"a batch of {self.batch_size} from {len(self.indices)} training images; lower --batch-size"
            )

    @property
    def steps_per_epoch(self) -> int:
        """At least one."""
        return len(self.indices) // self.batch_size

    def images(self, step: int) -> np.ndarray:
        """(batch_size,) of the indices."""
        epoch, number = divmod(step, self.steps_per_epoch)
        shuffled = np.random.default_rng([self.seed, epoch]).permutation(self.indices)
        return shuffled[number * self.batch_size : (number + 1) * self.batch_size]
