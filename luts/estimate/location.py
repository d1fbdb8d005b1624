"""Robust location of one load's rounds, with the standard error of dependent rounds."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from luts.format.numbers import Floats

TRIM = 0.25
"""Share cut from each end: the midmean. Preempted runs are far out and one-sided in each model, so a mean is
useless; the median throws away a third of the information of quiet rounds and its bootstrap is lumpy with the
20 to 60 rounds of a load. The midmean resists a quarter of bad rounds on either side and keeps 84 %
efficiency at the normal distribution."""

RESAMPLES = 400
"""Gives the standard error itself a Monte Carlo error of 3.5 %, below what tens of rounds can tell."""

_ONE_SD = (0.158655, 0.841345)

MIN_ROUNDS = 3
"""A load with fewer rounds has no usable standard error and is left out."""


def midmean(values: Floats) -> Floats:
    """Mean of the middle half along the last axis: shape (..., n) -> (...)."""
    count = values.shape[-1]
    cut = int(TRIM * count)
    middle = np.sort(values, axis=-1)[..., cut : count - cut]
    return np.asarray(middle.mean(axis=-1), dtype=np.float64)


@lru_cache(maxsize=64)
def _resample_indices(count: int, block: int) -> NDArray[np.intp]:
    """Round numbers (RESAMPLES, count) of a circular moving-block bootstrap; seeded by its own arguments."""
    generator = np.random.default_rng((20_240_229, count, block))
    starts = generator.integers(0, count, size=(RESAMPLES, -(-count // block)))
    indices = (starts[..., None] + np.arange(block)) % count
    result = indices.reshape(RESAMPLES, -1)[:, :count].astype(np.intp)
    result.setflags(write=False)
    return result


def block_length(count: int) -> int:
    """Cube root of the number of rounds, the rate that minimises the error of the bootstrap variance."""
    return max(1, round(float(np.cbrt(count))))


def location_and_se(values: Floats) -> tuple[float, float]:
    """Midmean of one load's rounds (n,) and its standard error by circular moving-block bootstrap; of several
    quantities in the same rounds (c, n) the mean of their midmeans.

    Blocks keep neighbouring rounds together, because interference lasts longer than a round (Politis and
    Romano 1992); n / (n - block) undoes the bootstrap's known shrinkage. The spread of the replicates is half
    the range of their middle 68 %, not their standard deviation: a few resamples hold more outliers than the
    midmean bears, and would make the error of a load with 5 % outliers three times too large (Ghosh et al.
    1984). n must be at least MIN_ROUNDS.
    """
    quantities = np.atleast_2d(values)
    count = quantities.shape[1]
    block = block_length(count)
    replicates = midmean(quantities[:, _resample_indices(count, block)]).mean(axis=0)
    low, high = np.quantile(replicates, _ONE_SD)
    shrinkage = count / (count - block)
    return float(midmean(quantities).mean()), float(np.sqrt(shrinkage) * (high - low) / 2)
