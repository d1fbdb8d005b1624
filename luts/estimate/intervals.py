"""Posterior predictive intervals that few networks calibrate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from luts.estimate.joint import JointFit
from luts.estimate.statistics import predictive_quantile
from luts.format.schema import MeasuredModel


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
