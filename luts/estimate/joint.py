"""Joint fit: the cost of every block from the latencies of whole models.

    y_m = base + sum_k n_mk e_k + t D_m + error,   e_k = prior_k + delta_k
    prior_k = constant + a * MACs_k + b * depthwise MACs_k + c * bytes moved_k   per kind of block

All rows are solved together as generalised least squares. Everything that data can't decide falls back on
what physics says: an entry on its prior, a kind's coefficients on those common to all kinds. As a Bayesian
model,
    delta_k = scale_k * (entry_sd * own_k + shared_sd * f(features_k)),   own_k ~ N(0, 1),
    f a Gaussian process over like blocks of one kind (`physics.kernel`; Rasmussen and Williams 2006, 2.2),
    coefficients ~ N(common, (kind_sd * natural size)^2),
    error ~ N(0, measured covariance + (misfit_sd * y_m)^2),
and the four relative deviations maximise the marginal likelihood (Bishop 2006, 3.5), so the strength of the
ridge, and how much of it like blocks share, is learned from the rows. All rows count relative to their own
latency.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from luts.estimate.lattice import lattice_minimum
from luts.estimate.physics import TERMS, coefficients_of
from luts.estimate.rows import Design, Rows, design_of
from luts.format.numbers import Floats
from luts.format.schema import Coefficients, KeyFeatures

_HYPER_CENTRE = np.log([0.1, 0.004, 0.3, 0.1])
_HYPER_SD = np.array([1.0, 1.0, 0.7, 1.0])
"""entry_sd, misfit_sd, kind_sd, shared_sd: weak log-normal priors, which only matter for a handful of rows. In a
trial entries strayed 10 to 20 % from physics and additivity held to 0.3-0.6 %."""


@dataclass(frozen=True)
class JointFit:
    """Entries in the order of `keys`: ms and standard errors (k,), all >= 0. `misfit_sd`: see the module."""

    keys: tuple[str, ...]
    ms: Floats
    se: Floats
    base_ms: float
    transfer_ms_per_mib: float
    prior: dict[str, Coefficients]
    entry_sd: float
    misfit_sd: float
    kind_sd: float
    shared_sd: float


def fit_entries(rows: Rows, features: Mapping[str, KeyFeatures]) -> JointFit:
    """Cost of every key of `features`; those that no row holds rest on the prior.

    Raises KeyError for a block without features. Needs at least one row; intervals tell how little few rows
    say. The standard errors are those of the unconstrained posterior; the values obey ms >= 0.
    """
    design = design_of(rows, features)
    scale = np.maximum(design.physics @ design.common, design.floor)
    hyper = _maximise(design, scale)
    solution, _ = _solve(design, scale, hyper)
    refined = np.maximum(design.physics @ solution[-len(design.common) :], design.floor)
    hyper = _maximise(design, refined)
    solution, se = _solve(design, refined, hyper)
    entries = slice(2, 2 + len(design.keys))
    by_kind = solution[entries.stop :].reshape(len(design.kinds), TERMS)
    return JointFit(
        keys=design.keys,
        ms=solution[entries],
        se=se[entries],
        base_ms=float(solution[0]),
        transfer_ms_per_mib=float(solution[1]) if rows.boundary_bytes.any() else 0.0,
        prior={kind: coefficients_of(row) for kind, row in zip(design.kinds, by_kind, strict=True)},
        entry_sd=float(hyper[0]),
        misfit_sd=float(hyper[1]),
        kind_sd=float(hyper[2]),
        shared_sd=float(hyper[3]),
    )


def _maximise(design: Design, scale: Floats) -> Floats:
    """entry_sd, misfit_sd, kind_sd, shared_sd at the mode of marginal likelihood times their weak priors."""
    from scipy.linalg import cho_factor, cho_solve

    residual = 1.0 - design.counts @ (design.physics @ design.common)
    by_kind = design.counts @ design.physics * design.natural
    by_entry = design.counts * scale
    by_call = design.calls * design.call_sd
    fixed = design.noise + by_call @ by_call.T
    kind_part, entry_part = by_kind @ by_kind.T, by_entry @ by_entry.T
    shared_part = by_entry @ design.kernel @ by_entry.T
    identity = np.eye(len(residual))

    def cost(logs: Floats) -> float:
        entry, misfit, kind, shared = np.exp(2 * logs)
        deviations = entry * entry_part + shared * shared_part + kind * kind_part
        factor = cho_factor(fixed + deviations + misfit * identity, lower=True)
        fit = residual @ cho_solve(factor, residual) + 2 * np.log(np.diag(factor[0])).sum()
        return float(fit + (((logs - _HYPER_CENTRE) / _HYPER_SD) ** 2).sum())

    return np.asarray(np.exp(lattice_minimum(cost, _HYPER_CENTRE)))


def _solve(design: Design, scale: Floats, hyper: Floats) -> tuple[Floats, Floats]:
    """Most probable (base, t, entries, coefficients), all >= 0; their unconstrained posterior deviations.

    One bounded least-squares problem: whitened rows of the models above whitened rows of the priors.
    """
    from scipy.linalg import solve_triangular
    from scipy.optimize import lsq_linear

    entry_sd, misfit_sd, kind_sd, shared_sd = hyper
    models, entries, coefficients = len(design.noise), len(scale), len(design.common)
    size = 2 + entries + coefficients
    factor = np.linalg.cholesky(design.noise + misfit_sd**2 * np.eye(models))
    data = np.hstack([design.calls, design.counts, np.zeros((models, coefficients))])
    prior = np.zeros((size, size))
    prior[:2, :2] = np.diag(1.0 / design.call_sd)
    spread = np.outer(scale, scale) * (entry_sd**2 * np.eye(entries) + shared_sd**2 * design.kernel)
    root = np.linalg.cholesky(spread)
    prior[2 : 2 + entries, 2 : 2 + entries] = solve_triangular(root, np.eye(entries), lower=True)
    prior[2 : 2 + entries, 2 + entries :] = -solve_triangular(root, design.physics, lower=True)
    precision = 1.0 / (kind_sd * design.natural)
    prior[2 + entries :, 2 + entries :] = np.diag(precision)
    system = np.vstack([solve_triangular(factor, data, lower=True), prior])
    target = np.concatenate(
        [
            solve_triangular(factor, np.ones(models), lower=True),
            np.zeros(2 + entries),
            precision * design.common,
        ]
    )
    unit = np.concatenate([design.call_sd, np.sqrt(np.diag(spread)), kind_sd * design.natural])
    scaled = system * unit
    # bvls rounds: what it leaves at its bound may lie 1e-17 below.
    solution = np.maximum(lsq_linear(scaled, target, bounds=(0.0, np.inf), method="bvls").x, 0.0) * unit
    inverse = solve_triangular(np.linalg.qr(scaled, mode="r"), np.eye(size))
    return solution, np.sqrt((inverse**2).sum(axis=1)) * unit
