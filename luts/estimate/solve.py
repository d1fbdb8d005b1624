"""The most probable entries of a design, and how far they may be off."""

from __future__ import annotations

import numpy as np

from luts.estimate.marginal import Marginal
from luts.estimate.rows import Design
from luts.format.numbers import Floats


def learned_scale(design: Design) -> tuple[Floats, Floats]:
    """The entries' scales (k,), refined once by what the rows say of the prior, and the learned deviations."""
    scale = np.maximum(design.physics @ design.common, design.floor)
    solution, _ = solve(design, scale, Marginal(design, scale).maximise())
    refined = np.maximum(design.physics @ solution[-len(design.common) :], design.floor)
    return refined, Marginal(design, refined).maximise()


def solve(design: Design, scale: Floats, hyper: Floats) -> tuple[Floats, Floats]:
    """Most probable (base, t, entries, coefficients), all >= 0; their unconstrained posterior covariance.

    One bounded least-squares problem: whitened rows of the models above whitened rows of the priors.
    """
    from scipy.linalg import solve_triangular
    from scipy.optimize import lsq_linear

    entry_sd, misfit_sd, shared_sd = hyper[0], hyper[1], hyper[3]
    models, entries, coefficients = len(design.noise), len(scale), len(design.common)
    size = 2 + entries + coefficients
    factor = np.linalg.cholesky(design.noise + misfit_sd**2 * np.eye(models))
    data = np.hstack([design.calls, design.counts, np.zeros((models, coefficients))])
    prior = np.zeros((size, size))
    prior[:2, :2] = np.diag(1.0 / design.call_sd)
    prior[:2, 2 + entries :] = -design.of_calls / design.call_sd[:, None]
    spread = np.outer(scale, scale) * (entry_sd**2 * np.eye(entries) + shared_sd**2 * design.kernel)
    if design.doubt is not None:
        spread = spread + np.diag(design.doubt_variance)
    root = np.linalg.cholesky(spread)
    prior[2 : 2 + entries, 2 : 2 + entries] = solve_triangular(root, np.eye(entries), lower=True)
    prior[2 : 2 + entries, 2 + entries :] = -solve_triangular(root, design.physics, lower=True)
    coefficient_sd = design.coefficient_sd(hyper)
    precision = 1.0 / coefficient_sd
    prior[2 + entries :, 2 + entries :] = np.diag(precision)
    system = np.vstack([solve_triangular(factor, data, lower=True), prior])
    target = np.concatenate(
        [
            solve_triangular(factor, np.ones(models), lower=True),
            np.zeros(2 + entries),
            precision * design.common,
        ]
    )
    unit = np.concatenate([design.call_sd, np.sqrt(np.diag(spread)), coefficient_sd])
    scaled = system * unit
    # bvls rounds: what it leaves at its bound may lie 1e-17 below.
    least = np.where(np.arange(size) < 2 + entries, 0.0, -np.inf if design.strengths else 0.0)
    solution = np.maximum(lsq_linear(scaled, target, bounds=(least, np.inf), method="bvls").x, least) * unit
    inverse = solve_triangular(np.linalg.qr(scaled, mode="r"), np.eye(size))
    return solution, (inverse @ inverse.T) * np.outer(unit, unit)
