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
import pyarrow as pa
from numpy.typing import NDArray

from luts.errors import InvalidArtifactError
from luts.estimate.location import MIN_ROUNDS
from luts.estimate.quantiles import student_quantile
from luts.estimate.ratios import CONFIDENCE, AaDifference, aa_differences, load_ratios, load_variance
from luts.estimate.rounds import sessions
from luts.estimate.variance import START_DF, START_LOAD_SD
from luts.samples import kept_samples

Floats = NDArray[np.float64]

AA_MEMORY = 39
"""Earlier batches that are looked at. Of 39 scores the 95 % rank is the second largest, so one gross disturbance
does not open the gate for the next; and a machine that has become quiet or busy is known as that soon."""

MIN_SCORES = 19
"""With fewer scores their 95 % rank lies beyond the largest, and the interval is Student's."""


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
    """For a measurement's first batch."""
    return AaHistory(START_LOAD_SD, student_quantile(0.5 + CONFIDENCE / 2, START_DF))


def aa_history(earlier: pa.Table, reference_id: str) -> AaHistory:
    """History from the samples of the batches before, at most the last AA_MEMORY of them.

    A/A differences count from rejected batches too: dropping those that failed the test would narrow the
    interval, which would reject more, and so on. Models tell the load variance from kept batches.
    """
    differences = aa_differences(sessions(earlier), reference_id)
    kept = sessions(kept_samples(earlier))
    models = frozenset(name for session in kept for name in session.models)
    return history_of(differences, load_variance(load_ratios(kept, reference_id, models), differences).sd)


def history_of(differences: Sequence[AaDifference], load_sd: float) -> AaHistory:
    """History from A/A differences in order of their batches."""
    batches = [list(group) for _, group in groupby(differences, key=lambda difference: difference.batch)]
    combined = [_combined(group, load_sd) for group in batches[-AA_MEMORY:]]
    return AaHistory(load_sd, _factor(np.array([value / se for value, se in combined])))


def aa_interval(batch: pa.Table, reference_id: str, history: AaHistory) -> AaInterval:
    """95 % interval of one batch's A/A difference, load-to-load variance included.

    Raises InvalidArtifactError when no segment of the batch holds both copies of the reference.
    """
    differences = aa_differences(sessions(batch), reference_id)
    if not differences:
        raise InvalidArtifactError(
            f"batch holds no pair of loads of reference {reference_id} with {MIN_ROUNDS} rounds; repeat it"
        )
    return interval_of(differences, history)


def interval_of(differences: Sequence[AaDifference], history: AaHistory) -> AaInterval:
    """The same from the A/A differences of one batch's segments, at least one."""
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
    interpolation; Student's quantile times the scores' size, begun at 1, where that rank is beyond all."""
    if len(scores) >= MIN_SCORES:
        return float(np.quantile(np.abs(scores), CONFIDENCE, method="weibull"))
    df = START_DF + len(scores)
    size = np.sqrt((START_DF + float((scores**2).sum())) / df)
    return float(student_quantile(0.5 + CONFIDENCE / 2, df) * size)
