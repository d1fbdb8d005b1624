"""How far intervals reach that few networks calibrate."""

from __future__ import annotations

import numpy as np

from luts.estimate.quantiles import student_quantile
from luts.estimate.ratios import CONFIDENCE
from luts.format.numbers import Floats

PRIOR_NETWORKS = 10.0
"""What the posterior says of its own width weighs as much as so many networks."""


def predictive_quantile(standardised: Floats) -> float:
    """How many predictive standard deviations a 95 % interval reaches.

    Args:
        standardised: Errors of networks that were predicted without themselves, in predictive standard deviations.

    The variance of the errors is drawn toward 1 (scaled inverse chi-squared, Gelman et al. 2013, 2.6), which makes
    the interval Student's. Intervals are never made narrower than the posterior's: networks that were chosen
    for what they tell are those that are predicted worst, and say little of how well others are.
    """
    weight = PRIOR_NETWORKS + len(standardised)
    variance = (PRIOR_NETWORKS + float((standardised**2).sum())) / weight
    return student_quantile(0.5 + CONFIDENCE / 2, weight) * float(np.sqrt(max(variance, 1.0)))
