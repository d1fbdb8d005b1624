"""Posterior predictive intervals that few networks calibrate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from luts.estimate.joint import JointFit
from luts.estimate.quantiles import student_quantile
from luts.estimate.ratios import CONFIDENCE
from luts.format.numbers import Floats
from luts.format.schema import MeasuredModel

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


def posterior_half_width(
    fit: JointFit, heldout: Sequence[MeasuredModel], predicted_ms: Sequence[float], noise: Sequence[float]
) -> float | None:
    """Relative half-width of 95 % intervals for new measurements of networks like the held-out ones.

    Args:
        fit: Whose own rows, each predicted by the others, calibrate it, as the held-out networks do.
        heldout: Networks that it was not fitted to.
        predicted_ms: What it says of them.
        noise: Relative standard errors of their measurements.

    Returns:
        None without a held-out network.
    """
    if not heldout:
        return None
    own = fit.relative_se(
        [model.blocks for model in heldout], [float(model.boundary_bytes) for model in heldout]
    )
    se = np.hypot(own, noise)
    errors = (np.array([model.ms for model in heldout]) / np.array(predicted_ms) - 1.0) / se
    quantile = predictive_quantile(np.concatenate([fit.left_out, errors]))
    return quantile * float(np.sqrt((se**2).mean()))
