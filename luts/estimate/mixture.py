"""How far entries may be off when the deviations they are fitted with (`marginal.py`) are not known either.

At the mode of the deviations alone a posterior is too sure of itself: ten rows hardly tell them. So its covariance
is that of a mixture over 2 d deviations around the mode, a cubature of degree 3 (Arasaratnam and Haykin 2009, IEEE
TAC 54(6)) whose points weigh as much more or less as the density there is than a Gaussian with its curvature.
"""

from __future__ import annotations

import numpy as np

from luts.estimate.marginal import Marginal
from luts.estimate.rows import Design
from luts.format.numbers import Floats

STEP = 0.5
"""Of the second differences in logarithms that give the curvature."""


def prior_covariance(design: Design, scale: Floats, learned: Floats) -> Floats:
    """(2 + k, 2 + k) of base, transfer and entries before any row, ms^2, at these deviations."""
    spread = np.vstack([design.of_calls, design.physics]) * design.coefficient_sd(learned)
    covariance = spread @ spread.T
    covariance[:2, :2] += np.diag(design.call_sd**2)
    own = learned[0] ** 2 * np.eye(len(scale)) + learned[3] ** 2 * design.kernel
    covariance[2:, 2:] += np.outer(scale, scale) * own + np.diag(design.doubt_variance)
    return np.asarray(covariance)


def mixture(marginal: Marginal, mode: Floats) -> tuple[Floats, Floats]:
    """Deviations (2 d, d) around the mode (d,), and their weights (2 d,), which sum to 1."""
    centre, count = np.log(mode), len(mode)
    best = marginal.cost(centre)
    steps = STEP * np.eye(count)
    bends = np.array([marginal.cost(centre + s) + marginal.cost(centre - s) - 2 * best for s in steps])
    sd = np.minimum(np.sqrt(2 * STEP**2 / np.maximum(bends, 1e-9)), marginal.widest)
    reach = np.sqrt(count) * np.diag(sd)
    points = np.vstack([centre + reach, centre - reach])
    above = np.array([marginal.cost(point) for point in points]) - best
    weights = np.exp(-(above - above.min()) / 2)
    return np.exp(points), weights / weights.sum()


def mixed_covariance(design: Design, scale: Floats, mode: Floats) -> tuple[Floats, float]:
    """(2 + k, 2 + k) posterior covariance around the entries at the mode, and the misfit's deviation."""
    marginal = Marginal(design, scale)
    rows = np.hstack([design.calls, design.counts])

    def posterior(learned: Floats) -> tuple[Floats, Floats]:
        prior = prior_covariance(design, scale, learned)
        onto = prior @ rows.T
        gain = np.linalg.solve(marginal.covariance(learned), onto.T).T
        return gain @ marginal.residual, prior - gain @ onto.T

    points, weights = mixture(marginal, mode)
    centre, _ = posterior(mode)
    total = np.zeros((len(centre), len(centre)))
    for weight, learned in zip(weights, points, strict=True):
        mean, covariance = posterior(learned)
        total += weight * (covariance + np.outer(mean - centre, mean - centre))
    return total, float(np.sqrt(weights @ points[:, 1] ** 2))
