"""Robust location, quantiles, proportions and prediction intervals.

Small pure functions, each with its source.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from luts.format.schema import Conformal, Floats, HeldoutError

CONFIDENCE = 0.95


def normal_quantile(probability: float) -> float:
    """Return the quantile of the standard normal distribution."""
    from scipy.special import ndtri

    return float(ndtri(probability))


def student_quantile(probability: float, df: float) -> float:
    """Return the quantile of Student's t with `df` degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(df, probability))


def binomial_quantile(probability: float, trials: int, success: float) -> int:
    """Return the smallest number of successes out of `trials` not exceeded with this probability, in (0, 1]."""
    from scipy.special import bdtr

    return int(np.searchsorted(bdtr(np.arange(trials + 1), trials, success), probability))


TRIM = 0.25
"""Fraction cut from each end: the midmean. Preempted runs are far out and one-sided in each model, so a mean
is useless; the median throws away a third of the information of quiet rounds and its bootstrap is lumpy with
the 20 to 60 rounds of a load. The midmean resists a quarter of bad rounds on either side and keeps 84 %
efficiency at the normal distribution."""

RESAMPLES = 400
"""Gives the standard error itself a Monte Carlo error of 3.5 %, below the accuracy of tens of rounds."""

_ONE_SD = (0.158655, 0.841345)

MIN_ROUNDS = 3
"""A load with fewer rounds has no usable standard error and is left out."""


def midmean(values: Floats) -> Floats:
    """Return the mean of the middle half along the last axis: shape (..., n) -> (...)."""
    count = values.shape[-1]
    cut = int(TRIM * count)
    middle = np.sort(values, axis=-1)[..., cut : count - cut]
    return np.asarray(middle.mean(axis=-1), dtype=np.float64)


@lru_cache(maxsize=64)
def _resample_indices(count: int, block: int) -> NDArray[np.intp]:
    """Return round numbers (RESAMPLES, count) of a circular moving-block bootstrap, seeded by the arguments."""
    generator = np.random.default_rng((20_240_229, count, block))
    starts = generator.integers(0, count, size=(RESAMPLES, -(-count // block)))
    indices = (starts[..., None] + np.arange(block)) % count
    result = indices.reshape(RESAMPLES, -1)[:, :count].astype(np.intp)
    result.setflags(write=False)
    return result


def location_and_se(values: Floats) -> tuple[float, float]:
    """Return the midmean of one load's rounds (n,) and its standard error by circular moving-block bootstrap.

    For several quantities in the same rounds (c, n) it is the mean of their midmeans. Blocks keep
    neighbouring rounds together, because interference lasts longer than a round (Politis and Romano 1992); n
    / (n - block) undoes the bootstrap's known shrinkage. The spread of the replicates is half the range of
    their middle 68 %, not their standard deviation: a few resamples hold more outliers than the midmean
    bears, and would make the error of a load with 5 % outliers three times too large (Ghosh et al. 1984). n
    must be at least MIN_ROUNDS.
    """
    quantities = np.atleast_2d(values)
    count = quantities.shape[1]
    # Blocks of the cube root of the count minimise the error of the bootstrap variance.
    block = max(1, round(float(np.cbrt(count))))
    replicates = midmean(quantities[:, _resample_indices(count, block)]).mean(axis=0)
    low, high = np.quantile(replicates, _ONE_SD)
    shrinkage = count / (count - block)
    return float(midmean(quantities).mean()), float(np.sqrt(shrinkage) * (high - low) / 2)


@dataclass(frozen=True)
class Proportion:
    """A fraction: `hits` of `trials`, at least one trial."""

    hits: int
    trials: int

    @property
    def share(self) -> float:
        """Fraction of hits, 0 to 1."""
        return self.hits / self.trials

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the true fraction (Wilson, "Probable inference", JASA 1927)."""
        z2 = normal_quantile(0.5 + CONFIDENCE / 2) ** 2
        weight = self.trials / (self.trials + z2)
        middle = weight * self.share + (1 - weight) / 2
        spread = weight * math.sqrt(
            z2 * (self.share * (1 - self.share) + z2 / (4 * self.trials)) / self.trials
        )
        return max(0.0, middle - spread), min(1.0, middle + spread)


REPORTED_PERCENTILES = (50, 90, 99)
"""Percentiles that measurements report."""


@dataclass(frozen=True)
class Percentile:
    """Milliseconds with a 95 % interval; an end is None where there are too few calls for it."""

    ms: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        """Return `10.21 ms (10.18 to 10.24)`; an end that too few calls were made for is named."""
        if self.low is None and self.high is None:
            return f"{self.ms:.3f} ms (too few calls for an interval)"
        if self.low is None:
            return f"{self.ms:.3f} ms (at most {self.high:.3f}; too few calls for the lower end)"
        if self.high is None:
            return f"{self.ms:.3f} ms (at least {self.low:.3f}; too few calls for the upper end)"
        return f"{self.ms:.3f} ms ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Percentiles:
    """Percentiles of `calls` timed calls; None where there are too few for an interval."""

    calls: int
    p50: Percentile | None
    p90: Percentile | None
    p99: Percentile | None

    def columns(self) -> dict[str, float | int | None]:
        """Return `calls`, `p50_ms`, `p50_low`, `p50_high`, `p90_ms`, … as one flat row of a table."""
        cells: dict[str, float | int | None] = {"calls": self.calls}
        for percent in REPORTED_PERCENTILES:
            percentile: Percentile | None = getattr(self, f"p{percent}")
            values = asdict(percentile) if percentile else dict.fromkeys(("ms", "low", "high"))
            cells |= {f"p{percent}_{name}": value for name, value in values.items()}
        return cells

    def __str__(self) -> str:
        """Return the known percentiles in one line."""
        values = {percent: getattr(self, f"p{percent}") for percent in REPORTED_PERCENTILES}
        known = "".join(f"p{percent} {value}, " for percent, value in values.items() if value)
        return f"{known}of {self.calls} single calls"


def percentiles(loads_ms: Sequence[Floats]) -> Percentiles:
    """Return percentiles of the calls of a model's loads, (calls,) each."""
    calls = sum(map(len, loads_ms))
    return Percentiles(calls, *(_percentile(loads_ms, percent / 100) for percent in REPORTED_PERCENTILES))


def calls_needed(share: float) -> int:
    """Return how many calls an interval of a quantile by order statistics takes (p50: 6, p90: 36, p99: 368).

    The highest of n calls is below the quantile with probability share^n.
    """
    extreme = max(share, 1 - share)
    return math.ceil(math.log((1 - CONFIDENCE) / 2) / math.log(extreme))


def _percentile(loads_ms: Sequence[Floats], share: float) -> Percentile | None:
    """Return a quantile of all calls with an interval by order statistics; None for too few calls.

    The interval is binomial (no assumption about the distribution), for the effective number of independent
    calls: calls of one load resemble each other. Their design effect is the variance of the share of calls
    below the percentile, loads drawn at random, over that of independent calls (Kish 1965; Woodruff, JASA
    1952, for quantiles). In simulations with 5 % of preempted calls in bursts the interval contained the
    truth in 91 to 98 % from six loads of 20 on, in 81 to 90 % with three.
    """
    ordered = np.sort(np.concatenate(loads_ms)) if loads_ms else np.empty(0)
    count = len(ordered)
    if count < calls_needed(share):
        return None
    ms = float(np.quantile(ordered, share))
    effective = max(1, int(count / _design_effect(loads_ms, ms)))
    tail = (1 - CONFIDENCE) / 2
    lower = binomial_quantile(tail, effective, share) - 1
    upper = binomial_quantile(1 - tail, effective, share)
    return Percentile(
        ms,
        float(ordered[lower * count // effective]) if lower >= 0 else None,
        float(ordered[min(-(-(upper + 1) * count // effective), count) - 1]) if upper < effective else None,
    )


def _design_effect(loads_ms: Sequence[Floats], ms: float) -> float:
    loads = len(loads_ms)
    sizes = np.array([len(load) for load in loads_ms], dtype=float)
    below = np.array([(load <= ms).sum() for load in loads_ms], dtype=float)
    count = float(sizes.sum())
    share = float(below.sum()) / count
    if loads < 2 or not 0 < share < 1:
        return 1.0
    between = loads / (loads - 1) * float(((below - share * sizes) ** 2).sum()) / count**2
    return max(1.0, between / (share * (1 - share) / count))


def relative_errors(measured: Sequence[float], predicted: Sequence[float]) -> Floats:
    """Return (predicted - measured) / measured, shape (n,)."""
    truth = np.asarray(measured, dtype=np.float64)
    return np.asarray((np.asarray(predicted, dtype=np.float64) - truth) / truth)


def mape(measured: Sequence[float], predicted: Sequence[float]) -> float:
    """Return the mean absolute relative error, as a fraction."""
    return float(np.abs(relative_errors(measured, predicted)).mean())


def share_within(measured: Sequence[float], predicted: Sequence[float], tolerance: float) -> float:
    """Return the fraction of predictions within +-tolerance (a fraction) of the measurement."""
    return float((np.abs(relative_errors(measured, predicted)) <= tolerance).mean())


def kendall_tau(measured: Sequence[float], predicted: Sequence[float]) -> float | None:
    """Return Kendall's tau-b; None where it is undefined (fewer than two models, or all tied)."""
    if len(measured) < 2:
        return None
    from scipy.stats import kendalltau

    tau = float(kendalltau(measured, predicted).statistic)
    return tau if np.isfinite(tau) else None


def heldout_error(measured: Sequence[float], predicted: Sequence[float]) -> HeldoutError | None:
    """Return all error measures of models that were never fitted; None without any."""
    if not measured:
        return None
    return HeldoutError(
        models=len(measured),
        mape=mape(measured, predicted),
        within_5=share_within(measured, predicted, 0.05),
        within_10=share_within(measured, predicted, 0.10),
        kendall_tau=kendall_tau(measured, predicted),
    )


def conformal_quantile(scores: Floats, level: float) -> float | None:
    """Return the score that a new one does not exceed with probability >= level.

    It is the ceil((n + 1) level)-th smallest; None where that rank exceeds n, with fewer than level / (1 -
    level) scores.
    """
    rank = math.ceil((len(scores) + 1) * level - 1e-9)
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else None


def half_width(measured: Sequence[float], predicted: Sequence[float], level: float) -> float | None:
    """Return the relative half-width q of an interval that holds a new measurement with probability >= level.

    The interval is predicted * (1 +- q), the score |measured - predicted| / predicted; None for too few
    held-out models.
    """
    truth = np.asarray(measured, dtype=np.float64)
    guess = np.asarray(predicted, dtype=np.float64)
    return conformal_quantile(np.abs(truth - guess) / guess, level)


def conformal_widths(measured: Sequence[float], predicted: Sequence[float]) -> Conformal:
    """Return the split-conformal half-widths that a LUT records."""
    return Conformal(
        half_width_90=half_width(measured, predicted, 0.90),
        half_width_95=half_width(measured, predicted, 0.95),
    )


PRIOR_NETWORKS = 10.0
"""The posterior's own width weighs as much as so many networks."""


def predictive_quantile(standardised: Floats) -> float:
    """Return how many predictive standard deviations a 95 % interval reaches.

    `standardised` are errors of networks that were predicted without themselves, in such deviations. Their
    variance is drawn toward 1 (scaled inverse chi-squared, Gelman et al. 2013, 2.6), which makes the interval
    Student's. Intervals are never made narrower than the posterior's: networks that were chosen as most
    informative are those that are predicted worst, and say little of how well others are.
    """
    weight = PRIOR_NETWORKS + len(standardised)
    variance = (PRIOR_NETWORKS + float((standardised**2).sum())) / weight
    return student_quantile(0.5 + CONFIDENCE / 2, weight) * float(np.sqrt(max(variance, 1.0)))
