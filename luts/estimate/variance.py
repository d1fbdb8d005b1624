"""Load-to-load variance, pooled: how much two fresh loads of the same file differ beyond their samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from luts.format.numbers import Floats

START_LOAD_SD = 0.008
"""Before any measurement: two loads of one file differed by 0.65 % (one thread) to 1.2 % (two threads) in a
trial on a two-core host, which is sqrt(2) times the deviation of one load; the larger is assumed."""

START_DF = 2.0
"""The starting value weighs as much as two A/A differences: enough that the first one or two can't drive the
estimate to 0 and reject a good batch, nothing beside the dozens that a LUT holds."""

_SD_BOUNDS = (1e-5, 0.5)
_LOG_SD_STEP = 1e-3
"""The deviation is rounded to 0.1 %, so that minimisers on other machines, which agree to fewer digits than
everything else here, give the same one."""


@dataclass(frozen=True)
class LoadGroup:
    """Repeated loads of one quantity: estimates (n,), their standard errors (n,), and `loads_each` (n,), how
    many times the variance of a single load enters each (3/2 for a ratio to two copies of the reference).

    With `centre` None the mean is unknown (a model, n >= 2); an A/A difference has centre 0 and loads_each 2.
    """

    values: Floats
    standard_errors: Floats
    loads_each: Floats
    centre: float | None = None

    @property
    def degrees(self) -> int:
        return len(self.values) - (self.centre is None)


@dataclass(frozen=True)
class LoadVariance:
    """Standard deviation of one load's log latency, and the degrees of freedom behind it."""

    sd: float
    df: float


def _negative_log_likelihood(load_variance: float, groups: Sequence[LoadGroup]) -> float:
    total = START_DF * (np.log(load_variance) + START_LOAD_SD**2 / load_variance)
    for group in groups:
        variance = group.loads_each * load_variance + group.standard_errors**2
        weight = 1.0 / variance
        if group.centre is None:
            centre = float((weight * group.values).sum() / weight.sum())
            total += np.log(weight.sum())
        else:
            centre = group.centre
        total += np.log(variance).sum() + (weight * (group.values - centre) ** 2).sum()
    return float(total)


def pooled_load_variance(groups: Sequence[LoadGroup]) -> LoadVariance:
    """Restricted maximum likelihood (Patterson and Thompson 1971) over all groups, with a weak start value.

    Every estimate is normal with variance loads_each * sd^2 + se^2. Groups without a degree of freedom add
    nothing. Without any, the starting value comes back with START_DF degrees of freedom.
    """
    from scipy.optimize import minimize_scalar

    telling = [group for group in groups if group.degrees > 0]
    minimum = minimize_scalar(
        lambda log_sd: _negative_log_likelihood(float(np.exp(2 * log_sd)), telling),
        bounds=(float(np.log(_SD_BOUNDS[0])), float(np.log(_SD_BOUNDS[1]))),
        method="bounded",
        options={"xatol": 1e-6},
    )
    log_sd = round(float(minimum.x) / _LOG_SD_STEP) * _LOG_SD_STEP
    return LoadVariance(sd=float(np.exp(log_sd)), df=START_DF + sum(group.degrees for group in telling))
