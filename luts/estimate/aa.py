"""Is the difference of a batch's two loads of the reference compatible with 0? Judged by the batches before it.

A batch's score is its A/A difference over the deviation that its samples and the load variance let expect. That
deviation may be wrong by a factor: rounds depend on each other, sampling stops when it looks narrow, interference
has heavy tails. The factor between a deviation and a 95 % interval is therefore read from the scores of earlier
batches, not from a table. Batches being exchangeable, the interval then holds 0 in 95 % of good ones whatever the
distribution (split-conformal: Vovk et al. 2005, Lei et al. 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from luts.estimate.quantiles import student_quantile
from luts.estimate.ratios import CONFIDENCE, AaDifference
from luts.estimate.variance import START_DF, START_LOAD_SD
from luts.format.numbers import Floats

AA_MEMORY = 39
"""Earlier batches that are looked at. Of 39 scores the 95 % rank is the second largest, so one gross disturbance
does not open the gate for the next; and a machine that has become quiet or busy is known as that soon."""

MIN_SCORES = 19
"""With fewer scores their 95 % rank lies beyond the largest, and the interval is Student's. His t needs no assumed
size of the scores: one that is wrong by a factor of two either way would make the second to tenth interval hold 0
in 85 % or in all batches."""


@dataclass(frozen=True)
class AaInterval:
    """95 % interval of a batch's A/A log difference; `compatible`: it holds 0, the batch may be kept."""

    log_difference: float
    low: float
    high: float

    @property
    def compatible(self) -> bool:
        return self.low <= 0.0 <= self.high


@dataclass(frozen=True)
class AaHistory:
    """What earlier batches tell: the standard deviation of one load's log latency, and the half-width of a 95 %
    interval in units of the deviation that follows from it."""

    load_sd: float
    factor: float


def first_history() -> AaHistory:
    """For a measurement's first batch, of which nothing but assumptions is known."""
    return AaHistory(START_LOAD_SD, _factor(np.array([])))


def history_of(differences: Sequence[AaDifference], load_sd: float) -> AaHistory:
    """History from the A/A differences of the batches before, in order; the last AA_MEMORY batches count.

    Differences count from rejected batches too: dropping those that failed the test would narrow the interval,
    which would reject more, and so on.
    """
    batches = [list(group) for _, group in groupby(differences, key=lambda difference: difference.batch)]
    combined = [_combined(group, load_sd) for group in batches[-AA_MEMORY:]]
    return AaHistory(load_sd, _factor(np.array([value / se for value, se in combined])))


def interval_of(differences: Sequence[AaDifference], history: AaHistory) -> AaInterval:
    """95 % interval of one batch's A/A difference, load-to-load variance included.

    `differences` are those of the batch's segments, at least one.
    """
    value, se = _combined(differences, history.load_sd)
    half = history.factor * se
    return AaInterval(value, value - half, value + half)


def _combined(differences: Sequence[AaDifference], load_sd: float) -> tuple[float, float]:
    """Inverse-variance mean of a batch's segments, and the deviation expected of it."""
    weights = np.array([1.0 / (2.0 * load_sd**2 + difference.se**2) for difference in differences])
    values = np.array([difference.log_difference for difference in differences])
    return float((weights * values).sum() / weights.sum()), float(1.0 / np.sqrt(weights.sum()))


def _factor(scores: Floats) -> float:
    """95 % rank of the sizes of `scores` (n,) for the next one, (n + 1) * 95 %, between two of them by
    interpolation; where it is beyond all, Student's quantile times the scores' size (1 before the first)."""
    if len(scores) >= MIN_SCORES:
        return float(np.quantile(np.abs(scores), CONFIDENCE, method="weibull"))
    df, size = (len(scores), float(np.sqrt((scores**2).mean()))) if len(scores) else (START_DF, 1.0)
    return student_quantile(0.5 + CONFIDENCE / 2, df) * size
