"""Which images and which resolution a step of training uses; all of it follows from the recipe's seed."""

from __future__ import annotations

import random
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from luts.format.errors import UsageError
from search.supernet.recipe.recipe import Recipe


class Part(NamedTuple):
    """One micro-batch of a step: images (B,) int64, their resolution, and the seed of their augmentation."""

    indices: np.ndarray
    resolution: int
    seed: int


class TrainingSchedule:
    """The steps of a run: every epoch visits each training image at most once, in an order of its own.

    With several resolutions each step draws one; with `multi_scale` each comes as often as the others in every
    epoch, in shuffled order, in batches of about as many pixels. Where `multi_scale` is "drawn" each step draws its
    resolution on its own, as MobileViT does (Mehta & Rastegari 2022, section 3.3). The length of the paper's epochs
    varies with what they drew; here an epoch has the steps that it has there on average, and passes over the
    images, each in an order of its own, go on from one epoch into the next.
    """

    def __init__(self, recipe: Recipe, train: np.ndarray, resolutions: tuple[int, ...]):
        """Divide the indices `train`; `resolutions` are the recipe's, resolved for the space.

        Raises UsageError where a round over all batch sizes takes more images than there are.
        """
        self.recipe, self.train, self.resolutions = recipe, train, tuple(sorted(resolutions))
        self.sizes = {resolution: self._batch_size(resolution) for resolution in self.resolutions}
        round_ = list(self.resolutions) if recipe.multi_scale else [self.resolutions[-1]]
        self._drawn = recipe.multi_scale == "drawn"
        self._rounds = len(train) // sum(self.sizes[resolution] for resolution in round_)
        if self._rounds == 0:
            raise UsageError(
                f"batches of {sum(self.sizes[resolution] for resolution in round_)} need as many training images, "
                f"there are {len(train)}; use a smaller batch",
                code="batch_too_large",
            )
        self._round = round_
        self.steps_per_epoch = self._rounds * len(round_)
        if self._drawn:
            self.steps_per_epoch = len(train) * len(round_) // sum(self.sizes[side] for side in round_)
        self.steps = recipe.epochs * self.steps_per_epoch

    def data_step(self, step: int) -> int:
        """Which batch and augmentation a step gets: its own, or those of an earlier epoch in another order."""
        period = self.recipe.augmentation_epochs
        epoch, position = divmod(step, self.steps_per_epoch)
        if not period or epoch < period:
            return step
        return epoch % period * self.steps_per_epoch + int(self._shuffled_steps(epoch)[position])

    def resolution(self, step: int) -> int:
        """Input resolution of all subnets of a step."""
        recipe, data_step = self.recipe, self.data_step(step)
        if recipe.multi_scale:
            epoch, position = divmod(data_step, self.steps_per_epoch)
            return self._sequence(epoch)[0][position]
        return random.Random(f"resolution {recipe.seed} {data_step}").choice(self.resolutions)

    def images(self, step: int) -> int:
        """Images of a step."""
        return self.sizes[self.resolution(step)]

    def part(self, step: int, part: int) -> Part:
        """One of the step's `micro_batches` equal parts, counted from 0."""
        recipe, data_step = self.recipe, self.data_step(step)
        epoch, position = divmod(data_step, self.steps_per_epoch)
        resolution = self.resolution(step)
        count = self.sizes[resolution]
        begin = self._sequence(epoch)[1][position] if recipe.multi_scale else position * count
        share = count // recipe.micro_batches
        first = begin + part * share
        chosen = self._passing(first, share) if self._drawn else self._order(epoch)[first : first + share]
        number = data_step * recipe.micro_batches + part
        return Part(chosen, resolution, random.Random(f"augment {recipe.seed} {number}").getrandbits(63))

    def _batch_size(self, resolution: int) -> int:
        """Return the recipe's at the largest resolution; elsewhere as many pixels, in equal even parts."""
        recipe = self.recipe
        if not recipe.multi_scale:
            return recipe.batch_size
        share = recipe.batch_size // recipe.micro_batches * (self.resolutions[-1] / resolution) ** 2
        return 2 * int(share / 2) * recipe.micro_batches

    def _passing(self, first: int, count: int) -> np.ndarray:
        """Images of passes that follow each other, counted from the run's first."""
        chosen = []
        while count:
            number, offset = divmod(first, len(self.train))
            taken = self._order(number)[offset : offset + count]
            chosen.append(taken)
            first, count = first + len(taken), count - len(taken)
        return np.concatenate(chosen)

    def _images_before(self, epoch: int) -> int:
        """Images of all epochs before one, where resolutions are drawn."""
        return sum(sum(self.sizes[side] for side in self._draws(earlier)) for earlier in range(epoch))

    def _draws(self, epoch: int) -> list[int]:
        """Resolutions of an epoch's steps."""
        rng = random.Random(f"resolutions {self.recipe.seed} {epoch}")
        if self._drawn:
            return rng.choices(self.resolutions, k=self.steps_per_epoch)
        drawn = self._round * self._rounds
        rng.shuffle(drawn)
        return drawn

    @lru_cache(maxsize=2)  # noqa: B019 - a schedule lives as long as its run
    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.recipe.seed, epoch)).permutation(self.train)

    @lru_cache(maxsize=2)  # noqa: B019
    def _shuffled_steps(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.recipe.seed, epoch)).permutation(self.steps_per_epoch)

    @lru_cache(maxsize=2)  # noqa: B019
    def _sequence(self, epoch: int) -> tuple[list[int], list[int]]:
        """Resolutions of an epoch's steps, and where each begins in the order of images."""
        drawn = self._draws(epoch)
        first = self._images_before(epoch) if self._drawn else 0
        starts = np.cumsum([first, *(self.sizes[resolution] for resolution in drawn)])
        return drawn, [int(start) for start in starts[:-1]]
