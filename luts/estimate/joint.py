"""Joint fit: the cost of every block from the latencies of whole models.

    y_m = base + sum_k n_mk e_k + t D_m + error,   e_k = prior_k + delta_k
    prior_k = constant + a * MACs_k + b * depthwise MACs_k + c * bytes moved_k   per kind of block

All rows are solved together as generalised least squares. Everything that data can't decide falls back on
what physics says: an entry on its prior, a kind's coefficients on those common to all kinds. As a Bayesian
model,
    delta_k = scale_k * (entry_sd * own_k + shared_sd * f(features_k)),   own_k ~ N(0, 1),
    f a Gaussian process over like blocks of one kind (`physics.likeness`; Rasmussen and Williams 2006, 2.2),
    coefficients ~ N(common, (kind_sd * natural size)^2),
    error ~ N(0, measured covariance + (misfit_sd * y_m)^2),
and the four relative deviations maximise the marginal likelihood (Bishop 2006, 3.5), so the strength of the
ridge, and how much of it like blocks share, is learned from the rows. All rows count relative to their own
latency.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from luts.estimate.physics import MIB, TERMS, KindCoefficients, likeness, physics_matrix
from luts.schema import KeyFeatures

Floats = NDArray[np.float64]

MEASUREMENT_SD_FLOOR = 1e-4
"""No row is known better than to 0.01 %: the reference's ratio is 1 by definition, not by measurement."""
BASE_SHARE_SD = 0.2
"""Prior deviation of the base term, as a share of the mean latency: what a call costs before any block runs
is small against a network, and where every model holds the same stem and head only this tells them from
it."""
SCALE_FLOOR_SHARE = 0.05
"""An entry may stray from its prior by at least this share of an average block: a prior near 0 is not
sure."""

_STEPS = (1.0, 0.5, 0.25, 0.125, 0.0625)
"""Of the logarithms of the relative deviations."""
_HYPER_CENTRE = np.log([0.1, 0.004, 0.3, 0.1])
_HYPER_SD = np.array([1.0, 1.0, 0.7, 1.0])
"""entry_sd, misfit_sd, kind_sd, shared_sd: weak log-normal priors, which only matter for a handful of rows. In a
trial entries strayed 10 to 20 % from physics and additivity held to 0.3-0.6 %."""


@dataclass(frozen=True)
class Rows:
    """Whole models to fit: latencies ms (m,), covariance (m, m) of their logarithms, blocks, data moved
    (m,)."""

    ms: Floats
    log_covariance: Floats
    blocks: tuple[tuple[str, ...], ...]
    boundary_bytes: Floats


@dataclass(frozen=True)
class JointFit:
    """Entries in the order of `keys`: ms and standard errors (k,), all >= 0. `misfit_sd`: see the module."""

    keys: tuple[str, ...]
    ms: Floats
    se: Floats
    base_ms: float
    transfer_ms_per_mib: float
    prior: dict[str, KindCoefficients]
    entry_sd: float
    misfit_sd: float
    kind_sd: float
    shared_sd: float


@dataclass(frozen=True)
class _Design:
    """Arrays of one fit: keys k, kinds g, rows m; every row divided by its latency, so the target is 1."""

    counts: Floats  # (m, k)
    calls: Floats  # (m, 2): base, transfer
    physics: Floats  # (k, f g): the f terms of KindCoefficients in the columns of the key's kind
    likeness: Floats  # (k, k) correlation of the shared deviations
    noise: Floats  # (m, m)
    call_sd: Floats  # (2,)
    common: Floats  # (f g,) coefficients common to all kinds
    natural: Floats  # (f g,) size of a coefficient if its feature explained all latency
    floor: float  # smallest scale of an entry's deviation, ms


def fit_entries(rows: Rows, features: Mapping[str, KeyFeatures]) -> JointFit:
    """Cost of every key of `features`; those that no row holds rest on the prior.

    Raises KeyError for a block without features. Needs at least one row; intervals tell how little few rows
    say. The standard errors are those of the unconstrained posterior; the values obey ms >= 0.
    """
    keys = tuple(sorted(features))
    kinds = sorted({features[key].kind for key in keys})
    design = _design(rows, features, keys, kinds)
    scale = np.maximum(design.physics @ design.common, design.floor)
    hyper = _maximise(design, scale)
    solution, _ = _solve(design, scale, hyper)
    refined = np.maximum(design.physics @ solution[-len(design.common) :], design.floor)
    hyper = _maximise(design, refined)
    solution, se = _solve(design, refined, hyper)
    coefficients = solution[2 + len(keys) :].reshape(len(kinds), TERMS)
    return JointFit(
        keys=keys,
        ms=solution[2 : 2 + len(keys)],
        se=se[2 : 2 + len(keys)],
        base_ms=float(solution[0]),
        transfer_ms_per_mib=float(solution[1]) if rows.boundary_bytes.any() else 0.0,
        prior={
            kind: KindCoefficients(*(float(value) for value in row))
            for kind, row in zip(kinds, coefficients, strict=True)
        },
        entry_sd=float(hyper[0]),
        misfit_sd=float(hyper[1]),
        kind_sd=float(hyper[2]),
        shared_sd=float(hyper[3]),
    )


def _design(
    rows: Rows, features: Mapping[str, KeyFeatures], keys: Sequence[str], kinds: Sequence[str]
) -> _Design:
    from scipy.optimize import nnls

    index = {key: position for position, key in enumerate(keys)}
    counts = np.zeros((len(rows.ms), len(keys)))
    for row, blocks in enumerate(rows.blocks):
        for key, times in Counter(blocks).items():
            counts[row, index[key]] = times
    moved = rows.boundary_bytes / MIB
    physics = physics_matrix(keys, kinds, features)
    pooled = physics.reshape(len(keys), len(kinds), TERMS).sum(axis=1)
    mean_ms = float(rows.ms.mean())
    totals = counts @ pooled
    natural = mean_ms / np.maximum(totals.mean(axis=0), 1e-12)
    natural[totals.mean(axis=0) == 0] = 0.0
    shared_columns = np.column_stack([np.ones(len(rows.ms)), totals])
    sizes = np.array([BASE_SHARE_SD * mean_ms, *natural])
    weak = 0.1 * np.eye(1 + TERMS)
    system = np.vstack([shared_columns * sizes / rows.ms[:, None], weak])
    common = nnls(system, np.concatenate([np.ones(len(rows.ms)), np.zeros(1 + TERMS)]))[0] * sizes
    return _Design(
        counts=counts / rows.ms[:, None],
        calls=np.column_stack([np.ones(len(rows.ms)), moved]) / rows.ms[:, None],
        physics=physics,
        likeness=likeness(keys, features),
        noise=rows.log_covariance + MEASUREMENT_SD_FLOOR**2 * np.eye(len(rows.ms)),
        call_sd=np.array([BASE_SHARE_SD * mean_ms, mean_ms / moved.mean() if moved.any() else 1e-9]),
        common=np.tile(common[1:], len(kinds)),
        natural=np.tile(np.maximum(natural, 1e-12), len(kinds)),
        floor=SCALE_FLOOR_SHARE * mean_ms / max(float(counts.sum(axis=1).mean()), 1.0),
    )


def _maximise(design: _Design, scale: Floats) -> Floats:
    """entry_sd, misfit_sd, kind_sd, shared_sd at the mode of marginal likelihood times their weak priors."""
    from scipy.linalg import cho_factor, cho_solve

    residual = 1.0 - design.counts @ (design.physics @ design.common)
    by_kind = design.counts @ design.physics * design.natural
    by_entry = design.counts * scale
    by_call = design.calls * design.call_sd
    fixed = design.noise + by_call @ by_call.T
    kind_part, entry_part = by_kind @ by_kind.T, by_entry @ by_entry.T
    shared_part = by_entry @ design.likeness @ by_entry.T
    identity = np.eye(len(residual))

    def cost(logs: Floats) -> float:
        entry, misfit, kind, shared = np.exp(2 * logs)
        deviations = entry * entry_part + shared * shared_part + kind * kind_part
        factor = cho_factor(fixed + deviations + misfit * identity, lower=True)
        fit = residual @ cho_solve(factor, residual) + 2 * np.log(np.diag(factor[0])).sum()
        return float(fit + (((logs - _HYPER_CENTRE) / _HYPER_SD) ** 2).sum())

    return np.asarray(np.exp(_lattice_minimum(cost, _HYPER_CENTRE)))


def _lattice_minimum(cost: Callable[[Floats], float], start: Floats) -> Floats:
    """Pattern search (Hooke and Jeeves 1961) whose points all lie on one lattice of binary fractions.

    So the last digits of `cost`, which differ between machines, decide nothing: `bench lut verify` elsewhere
    finds the same point, not one nearby. The finest step, 6 %, is far below what any data tell.
    """
    point, best = start, cost(start)
    for step in _STEPS:
        improved = True
        while improved:
            improved = False
            for axis in range(len(start)):
                for sign in (1.0, -1.0):
                    candidate = point.copy()
                    candidate[axis] += sign * step
                    value = cost(candidate)
                    if value < best:
                        point, best, improved = candidate, value, True
    return point


def _solve(design: _Design, scale: Floats, hyper: Floats) -> tuple[Floats, Floats]:
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
    spread = np.outer(scale, scale) * (entry_sd**2 * np.eye(entries) + shared_sd**2 * design.likeness)
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
    solution = lsq_linear(scaled, target, bounds=(0.0, np.inf), method="bvls").x * unit
    inverse = solve_triangular(np.linalg.qr(scaled, mode="r"), np.eye(size))
    return solution, np.sqrt((inverse**2).sum(axis=1)) * unit
