"""The joint fit's model.

Whole-model latencies as sums of entries, and what the latencies say of its deviations.

A latency is base + transfer * MiB moved + the sum of its blocks' entries. An entry deviates from its prior
mean, physics or other devices' entries, by standard deviations that are learned from the rows. Vectors of
unknowns are ordered base, transfer, entries (k), prior coefficients (c); vectors of learned deviations as
`HYPERPARAMETERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from luts.estimate.physics import (
    BASE_SHARE_SD,
    TERMS,
    amounts,
    coefficient_sizes,
    count_blocks,
    kernel,
    scale_floor,
)
from luts.format.schema import MIB, Floats, KeyFeatures, MeasuredModel

CALLS = 2
"""Unknowns before the entries: base and transfer."""

HYPERPARAMETERS = ("entry_sd", "misfit_sd", "kind_sd", "shared_sd", "bound_sd")
"""Learned relative deviations: of single entries, of rows from additivity, of a kind's coefficients, of
similar blocks together, and of resource bounds; the last only where the prior is other devices' entries."""
ENTRY, MISFIT, KIND, SHARED, BOUND = range(5)
FIXED = -1
"""In `FitDesign.hyper_index`: the coefficient's deviation is `prior_scale` itself, nothing is learned."""

MEASUREMENT_SD_FLOOR = 1e-4
"""No row is known better than to 0.01 %: the reference's ratio is 1 by definition, not by measurement."""

_CENTRE = np.log([0.1, 0.004, 0.3, 0.1])
_SD = np.array([1.0, 1.0, 0.7, 1.0])
"""Weak log-normal priors of the deviations, which only matter for a handful of rows. In a trial entries
strayed 10 to 20 % from physics and additivity held to 0.3-0.6 %."""

USUAL_DEVIATIONS = np.array([0.03, 0.004, 0.1, 0.04, 0.1])
_SD_WITH_SOURCES = np.array([0.7, 0.7, 0.7, 0.7, 0.7])
"""The same for deviations from other devices' entries. Within a kind of block the entries of two of three
phones keep their ratio within 2 to 8 % (public tables, docs/lut.md); kinds and bounds differ by a tenth or
more."""

_STEPS = (1.0, 0.5, 0.25, 0.125, 0.0625)

DIFFERENCE_STEP = 0.5
"""Of the second differences in logarithms that give the curvature of the marginal likelihood."""


@dataclass(frozen=True)
class FitData:
    """Whole models to fit: latencies (m,), the (m, m) covariance of their logarithms, and data moved (m,)."""

    ms: Floats
    log_covariance: Floats
    blocks: tuple[tuple[str, ...], ...]
    boundary_bytes: Floats

    @classmethod
    def of(cls, models: Sequence[MeasuredModel], log_covariance: Floats) -> FitData:
        """Return the rows of measured models, in the order of the covariance."""
        return cls(
            ms=np.array([model.ms for model in models]),
            log_covariance=log_covariance,
            blocks=tuple(model.blocks for model in models),
            boundary_bytes=np.array([float(model.boundary_bytes) for model in models]),
        )


@dataclass(frozen=True)
class FitDesign:
    """Arrays of one fit: keys k, kinds g, rows m, prior coefficients c; every row is divided by its latency.

    By default the prior means of entries are physics: c = TERMS * g, the amounts of a key in the columns of
    its kind. `luts.estimate.sources.with_sources` puts other devices' entries in their place.

    Attributes:
        keys: Block keys in order.
        kinds: Kinds of blocks in order.
        counts: (m, k) how often a row has each block.
        calls: (m, 2) base and transfer.
        physics: (k, c) what each coefficient adds to each entry.
        kernel: (k, k) covariance of the deviations that similar blocks share, unscaled.
        noise: (m, m) covariance of the measurements.
        call_sd: (2,) prior deviations of base and transfer.
        prior_mean: (c,) prior means of the coefficients.
        prior_scale: (c,) their deviations are these times the learned ones.
        floor: Smallest scale of an entry's deviation, ms.
        call_design: (2, c) what each coefficient adds to base and transfer.
        hyper_index: (c,) position of each coefficient's learned deviation, or FIXED.
        entry_se: (k,) standard errors of the prior entries themselves, ms.
        correlated_se: (k,) what is to be added (in squares) to intervals of entries if sources err together,
            ms.
    """

    keys: tuple[str, ...]
    kinds: tuple[str, ...]
    counts: Floats
    calls: Floats
    physics: Floats
    kernel: Floats
    noise: Floats
    call_sd: Floats
    prior_mean: Floats
    prior_scale: Floats
    floor: float
    call_design: Floats
    hyper_index: tuple[int, ...]
    entry_se: Floats
    correlated_se: Floats

    @property
    def entries(self) -> slice:
        """Place of the entries in a vector of unknowns."""
        return slice(CALLS, CALLS + len(self.keys))

    @property
    def coefficients(self) -> slice:
        """Place of the coefficients in a vector of unknowns."""
        return slice(CALLS + len(self.keys), CALLS + len(self.keys) + len(self.prior_mean))

    @property
    def from_sources(self) -> bool:
        """Whether the prior is other devices' entries."""
        return BOUND in self.hyper_index

    def with_exact_entries(self) -> Self:
        """Return the design with prior entries that have no errors of their own."""
        return replace(self, entry_se=np.zeros(len(self.keys)))

    @property
    def columns(self) -> Floats:
        """(m, c) what each coefficient adds to each row."""
        return np.asarray(self.counts @ self.physics + self.calls @ self.call_design)

    def coefficient_sd(self, deviations: Floats) -> Floats:
        """Return (c,) prior deviations of the coefficients, given the learned ones."""
        relative = [1.0 if place == FIXED else deviations[place] for place in self.hyper_index]
        return np.asarray(relative * self.prior_scale)

    def entry_scale(self, coefficients: Floats) -> Floats:
        """Return (k,) scales of the entries' deviations.

        Their prior means by these coefficients, at least `floor`.
        """
        return np.maximum(self.physics @ coefficients, self.floor)


def design_of(data: FitData, features: Mapping[str, KeyFeatures]) -> FitDesign:
    """Return the arrays of a fit of these rows, physics as prior; KeyError: a block without features."""
    from scipy.optimize import nnls

    keys = tuple(sorted(features))
    kinds = tuple(sorted({features[key].kind for key in keys}))
    counts = count_blocks(keys, data.blocks)
    moved_mib = data.boundary_bytes / MIB
    physics = np.zeros((len(keys), TERMS * len(kinds)))
    for position, key in enumerate(keys):
        column = TERMS * kinds.index(features[key].kind)
        physics[position, column : column + TERMS] = amounts(features[key])
    pooled = physics.reshape(len(keys), len(kinds), TERMS).sum(axis=1)
    mean_ms = float(data.ms.mean())
    totals = counts @ pooled
    scale = coefficient_sizes(totals, mean_ms)
    columns = np.column_stack([np.ones(len(data.ms)), totals])
    sizes = np.array([BASE_SHARE_SD * mean_ms, *scale])
    ridge = 0.1 * np.eye(1 + TERMS)
    system = np.vstack([columns * sizes / data.ms[:, None], ridge])
    pooled_fit = nnls(system, np.concatenate([np.ones(len(data.ms)), np.zeros(1 + TERMS)]))[0] * sizes
    return FitDesign(
        keys=keys,
        kinds=kinds,
        counts=counts / data.ms[:, None],
        calls=np.column_stack([np.ones(len(data.ms)), moved_mib]) / data.ms[:, None],
        physics=physics,
        kernel=kernel(keys, features),
        noise=data.log_covariance + MEASUREMENT_SD_FLOOR**2 * np.eye(len(data.ms)),
        call_sd=np.array([BASE_SHARE_SD * mean_ms, mean_ms / moved_mib.mean() if moved_mib.any() else 1e-9]),
        prior_mean=np.tile(pooled_fit[1:], len(kinds)),
        prior_scale=np.tile(np.maximum(scale, 1e-12), len(kinds)),
        floor=scale_floor(counts, mean_ms),
        call_design=np.zeros((CALLS, TERMS * len(kinds))),
        hyper_index=(KIND,) * (TERMS * len(kinds)),
        entry_se=np.zeros(len(keys)),
        correlated_se=np.zeros(len(keys)),
    )


def lattice_minimum(cost: Callable[[Floats], float], start: Floats) -> Floats:
    """Minimise by pattern search (Hooke and Jeeves 1961) over one lattice of binary fractions.

    So the last digits of `cost`, which differ between machines, decide nothing: `bench lut verify` elsewhere
    finds the same point, not one nearby. For logarithms the finest step, 6 %, is far below what any data
    tell.
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


class VarianceComponents:
    """-2 log marginal likelihood of Gaussian rows, as a function of the learned deviations."""

    def __init__(
        self, residual: Floats, fixed: Floats, parts: Mapping[int, Floats], centre: Floats, sd: Floats
    ) -> None:
        """Store the rows (m,) less their means, and their covariance (m, m).

        `fixed` is known; each of `parts` is scaled by the square of the deviation in its place. Logarithms of
        deviations are expected at `centre`, with deviations `sd`.
        """
        self.residual = residual
        self._fixed, self._parts, self._centre, self._sd = fixed, parts, centre, sd

    def maximise(self) -> Floats:
        """Return the deviations at the mode of marginal likelihood times their weak priors."""
        return np.asarray(np.exp(lattice_minimum(self.cost, self._centre)))

    def covariance(self, deviations: Floats) -> Floats:
        """Return (m, m) the covariance of the rows."""
        squares = deviations**2
        return np.asarray(self._fixed + sum(squares[place] * part for place, part in self._parts.items()))

    def cost(self, logs: Floats) -> float:
        """Return -2 log of likelihood and priors at these logarithms of deviations, up to a constant."""
        fit = _twice_negative_log(self.covariance(np.exp(logs)), self.residual)
        return fit + self._prior_cost(logs)

    def _prior_cost(self, logs: Floats) -> float:
        return float((((logs - self._centre) / self._sd) ** 2).sum())


class MarginalLikelihood(VarianceComponents):
    """-2 log marginal likelihood of the rows of a design."""

    def __init__(self, design: FitDesign, scale: Floats) -> None:
        """Prepare the rows' covariance; `scale` (k,) is of the entries' deviations."""
        self._design = design
        columns = design.columns
        coefficients = columns * design.prior_scale
        index = np.array(design.hyper_index)
        by_entry = design.counts * scale
        by_call = design.calls * design.call_sd
        fixed = design.noise + by_call @ by_call.T + _gram(coefficients[:, index == FIXED])
        parts = {
            ENTRY: by_entry @ by_entry.T,
            MISFIT: np.eye(len(columns)),
            SHARED: by_entry @ design.kernel @ by_entry.T,
        }
        for place in sorted(set(index[index != FIXED])):
            parts[int(place)] = _gram(coefficients[:, index == place])
        super().__init__(
            1.0 - columns @ design.prior_mean,
            fixed + _gram(design.counts * design.entry_se),
            parts,
            np.log(USUAL_DEVIATIONS) if design.from_sources else _CENTRE,
            _SD_WITH_SOURCES if design.from_sources else _SD,
        )

    def evidence(self, deviations: Floats) -> float:
        """Return -2 log of density and of the deviations' priors, comparable between fits with different priors.

        Nothing is known of the device's speed: coefficients common to all kinds are drawn from around 0 by
        their size.
        """
        prior = self._prior_cost(np.log(deviations))
        if self._design.from_sources:
            return prior + _twice_negative_log(self.covariance(deviations), self.residual)
        columns = self._design.columns * self._design.prior_scale
        kinds = len(self._design.kinds)
        pooled = columns.reshape(len(columns), kinds, -1).sum(axis=1)
        return prior + _twice_negative_log(
            self.covariance(deviations) + _gram(pooled), np.ones(len(self.residual))
        )

    def left_out_errors(self, deviations: Floats) -> Floats:
        """Return (m,) errors of every row as the others predict it, in its predictive standard deviations.

        Rasmussen and Williams 2006, 5.4.2.
        """
        inverse = np.linalg.inv(self.covariance(deviations))
        return np.asarray((inverse @ self.residual) / np.sqrt(np.diag(inverse)))

    def mixture(self, mode: Floats) -> tuple[Floats, Floats]:
        """Return deviations (2 d, d) around the mode (d,), and their weights (2 d,), which sum to 1.

        They integrate over the deviations: a point on either side of the mode on each axis, as far as the
        curvature of the logarithm says.
        """
        centre, count = np.log(mode), len(mode)
        best = self.cost(centre)
        steps = DIFFERENCE_STEP * np.eye(count)
        bends = np.array([self.cost(centre + s) + self.cost(centre - s) - 2 * best for s in steps])
        sd = np.minimum(np.sqrt(2 * DIFFERENCE_STEP**2 / np.maximum(bends, 1e-9)), self._sd)
        reach = np.sqrt(count) * np.diag(sd)
        points = np.vstack([centre + reach, centre - reach])
        above = np.array([self.cost(point) for point in points]) - best
        weights = np.exp(-(above - above.min()) / 2)
        return np.exp(points), weights / weights.sum()


def _gram(columns: Floats) -> Floats:
    return np.asarray(columns @ columns.T)


def _twice_negative_log(covariance: Floats, residual: Floats) -> float:
    factor = np.linalg.cholesky(covariance)
    white = np.linalg.solve(factor, residual)
    return float(white @ white + 2 * np.log(np.diag(factor)).sum())


def learn_deviations(design: FitDesign) -> tuple[Floats, Floats]:
    """Return the entries' scales (k,), refined once by a fit of the rows, and the learned deviations."""
    scale = design.entry_scale(design.prior_mean)
    solution, _ = solve(design, scale, MarginalLikelihood(design, scale).maximise())
    refined = design.entry_scale(solution[design.coefficients])
    return refined, MarginalLikelihood(design, refined).maximise()


def solve(design: FitDesign, scale: Floats, deviations: Floats) -> tuple[Floats, Floats]:
    """Return the most probable unknowns, all >= 0, and their unconstrained posterior covariance.

    One bounded least-squares problem: whitened rows of the models above whitened rows of the priors.
    """
    from scipy.linalg import solve_triangular
    from scipy.optimize import lsq_linear

    models, count = len(design.noise), len(scale)
    entries, coefficients = design.entries, design.coefficients
    size = coefficients.stop
    factor = np.linalg.cholesky(design.noise + deviations[MISFIT] ** 2 * np.eye(models))
    data = np.hstack([design.calls, design.counts, np.zeros((models, len(design.prior_mean)))])
    spread = np.outer(scale, scale) * (
        deviations[ENTRY] ** 2 * np.eye(count) + deviations[SHARED] ** 2 * design.kernel
    )
    spread = spread + np.diag(design.entry_se**2)
    root = np.linalg.cholesky(spread)
    coefficient_sd = design.coefficient_sd(deviations)
    precision = 1.0 / coefficient_sd
    prior = np.zeros((size, size))
    prior[:CALLS, :CALLS] = np.diag(1.0 / design.call_sd)
    prior[:CALLS, coefficients] = -design.call_design / design.call_sd[:, None]
    prior[entries, entries] = solve_triangular(root, np.eye(count), lower=True)
    prior[entries, coefficients] = -solve_triangular(root, design.physics, lower=True)
    prior[coefficients, coefficients] = np.diag(precision)
    system = np.vstack([solve_triangular(factor, data, lower=True), prior])
    target = np.concatenate(
        [
            solve_triangular(factor, np.ones(models), lower=True),
            np.zeros(entries.stop),
            precision * design.prior_mean,
        ]
    )
    unit = np.concatenate([design.call_sd, np.sqrt(np.diag(spread)), coefficient_sd])
    scaled = system * unit
    # bvls rounds: what it leaves at its bound may be 1e-17 below it.
    least = np.where(np.arange(size) < entries.stop, 0.0, -np.inf if design.from_sources else 0.0)
    solution = np.maximum(lsq_linear(scaled, target, bounds=(least, np.inf), method="bvls").x, least) * unit
    inverse = solve_triangular(np.linalg.qr(scaled, mode="r"), np.eye(size))
    return solution, (inverse @ inverse.T) * np.outer(unit, unit)


def prior_covariance(design: FitDesign, scale: Floats, deviations: Floats) -> Floats:
    """Return (2 + k, 2 + k) of base, transfer and entries before any row, ms^2, at these deviations."""
    spread = np.vstack([design.call_design, design.physics]) * design.coefficient_sd(deviations)
    covariance = spread @ spread.T
    covariance[:CALLS, :CALLS] += np.diag(design.call_sd**2)
    own = deviations[ENTRY] ** 2 * np.eye(len(scale)) + deviations[SHARED] ** 2 * design.kernel
    covariance[CALLS:, CALLS:] += np.outer(scale, scale) * own + np.diag(design.entry_se**2)
    return np.asarray(covariance)


def mixed_covariance(design: FitDesign, scale: Floats, mode: Floats) -> tuple[Floats, float]:
    """Return (2 + k, 2 + k) posterior covariance around the entries at the mode, and the misfit's deviation.

    Both are of a mixture over the learned deviations (`MarginalLikelihood.mixture`).
    """
    marginal = MarginalLikelihood(design, scale)
    rows = np.hstack([design.calls, design.counts])

    def posterior(deviations: Floats) -> tuple[Floats, Floats]:
        prior = prior_covariance(design, scale, deviations)
        onto = prior @ rows.T
        gain = np.linalg.solve(marginal.covariance(deviations), onto.T).T
        return gain @ marginal.residual, prior - gain @ onto.T

    points, weights = marginal.mixture(mode)
    centre, _ = posterior(mode)
    total = np.zeros((len(centre), len(centre)))
    for weight, deviations in zip(weights, points, strict=True):
        mean, covariance = posterior(deviations)
        total += weight * (covariance + np.outer(mean - centre, mean - centre))
    return total, float(np.sqrt(weights @ points[:, MISFIT] ** 2))
