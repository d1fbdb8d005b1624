"""Latency of any network from programs that a LUT measured: a log-Gaussian process over operators.

    log L = log sum n_i t_i + misfit        log t_i = log sum_c amount_ic exp(theta_c) + g_i

theta are logarithms of a kind's coefficients (`Coefficients`), g a Gaussian process within each kind. Around
their most probable values all is linear, so that a Gaussian posterior prices operators that no program has
(Rasmussen and Williams 2006, 2.2 and 3.4). Arrays have m programs, k operators, t kinds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np

from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.latency import MAX_LOG, Prediction
from luts.format.operators import ELEMENT_BYTES, Operator, parse_operator
from luts.format.schema import (
    MIB,
    MMAC,
    Coefficients,
    Entry,
    Floats,
    Integers,
    LutMeta,
    MeasuredModel,
    OperatorFit,
)

TERMS = len(Coefficients.model_fields)
MAX_PROGRAMS, MAX_DISTINCT = 1000, 10_000
"""Most programs and distinct operators of a fit: their covariances then take below 2 GiB."""

CACHE_LINE_BYTES = 64
"""Least that is written at once: copies of short runs cost as much as those of whole lines."""
WEIGHT_READS = 2
"""Bytes of weights count twice those of activations, as in `luts.estimate.physics`."""

TILED: Mapping[str, tuple[tuple[str, ...], str]] = {
    **dict.fromkeys(("gemm", "gemm_dynamic", "bmm"), (("m",), "n")),
    **dict.fromkeys(("conv", "grouped"), (("b", "h", "w"), "out")),
    "depthwise": ((), "c"),
}
"""Sizes whose product makes the rows of a kernel's output, and the size that makes its columns."""

LENGTH, PADDING_SCALE = 1.5, 3.0
"""Distance in logarithms of sizes over which deviations are alike; padding to tiles counts as three times its
logarithm. 40 held-out networks of an x86 core erred by 6.3 %, with lengths of 1, 2.5 and 4 by 6.5, 7.1, 9.5 %."""
MIN_SPARSE = 64
"""Fewer columns are multiplied faster as they are."""
_DIMENSIONS = 14
"""Most sizes of a kind, 12, and the padding of rows and columns."""

_TYPICAL: Floats = np.log([[0.001, 1 / 60, 1 / 15, 0.07], [0.002, 1 / 60, 1 / 15, 0.5]])
"""Coefficients inside and outside of delegates before anything is measured, one core of an x86 server."""
_SPEED_SD, _TERM_SD = 0.8, 0.8
"""Deviations of their logarithms: of all together, and of a term inside or outside. Phones are two to four
times slower."""

SD_FLOOR = 0.03
"""Added in squares to predictive deviations for intervals: errors that the model does not know of."""
MEASUREMENT_SD_FLOOR = 1e-4
MAX_NAMED = 5
"""Most operators that a prediction names as extrapolated."""


@dataclass(frozen=True)
class OperatorArrays:
    """Operators by key: kinds (k), amounts of physics (k, TERMS), points of the Gaussian process (k, d)."""

    keys: tuple[str, ...]
    kinds: tuple[str, ...]
    amounts: Floats
    points: Floats

    @classmethod
    def of(cls, keys: Sequence[str], tiles: Mapping[str, tuple[int, int]]) -> Self:
        """Return the arrays of keys. Raises InvalidArtifactError: one is not an operator's."""
        amounts, points = np.zeros((len(keys), TERMS)), np.zeros((len(keys), _DIMENSIONS))
        operators = [parse_operator(key) for key in keys]
        kinds = tuple(operator.features.kind for operator in operators)
        for row, (operator, kind) in enumerate(zip(operators, kinds, strict=True)):
            amounts[row], points[row] = _describe(operator, tiles.get(kind, (1, 1)))
        return cls(tuple(keys), kinds, amounts, points)

    def positions(self) -> dict[str, Integers]:
        """Return the positions of the operators of each kind, kinds in order."""
        kinds = np.array(self.kinds)
        return {kind: np.flatnonzero(kinds == kind) for kind in sorted(set(self.kinds))}


def _describe(operator: Operator, tile: tuple[int, int]) -> tuple[list[float], Floats]:
    """Return the amounts of an operator whose MACs are padded to tiles, and its point."""
    sizes, features = operator.all_sizes, operator.features
    rows, columns = TILED.get(operator.kind, ((), ""))
    extents = math.prod(sizes[name] for name in rows), sizes.get(columns, 1)
    padding = [-(-extent // side) * side / max(extent, 1) for extent, side in zip(extents, tile, strict=True)]
    element_bytes = ELEMENT_BYTES[operator.dtype]
    moved_bytes = features.traffic_bytes + WEIGHT_READS * element_bytes * features.params
    if operator.kind in ("copy", "slice", "constantpad", "transpose"):
        run_bytes = max(sizes["run"], 1) * element_bytes
        lines = math.ceil(run_bytes / CACHE_LINE_BYTES) * CACHE_LINE_BYTES / run_bytes
        moved_bytes *= (1 + lines) / 2
    macs = math.prod(padding) * np.array([features.macs - features.depthwise_macs, features.depthwise_macs])
    point = np.zeros(_DIMENSIONS)
    point[: len(sizes)] = np.log(np.maximum([*sizes.values()], 1))
    point[-2:] = PADDING_SCALE * np.log(np.maximum(padding, 1e-3))
    return [1.0, *(macs / MMAC), moved_bytes / MIB], point / LENGTH


def _similarity(one: Floats, other: Floats) -> Floats:
    """Return the Matérn 5/2 covariance of points (a, d) and (b, d); exactly 1 for the same operator."""
    from scipy.spatial.distance import cdist

    distance = math.sqrt(5) * cdist(one, other)
    return np.asarray((1 + distance + distance**2 / 3) * np.exp(-distance))


def _sparse(fractions: Floats) -> Any:
    """Return a matrix that is mostly 0, since a program has few of all operators."""
    from scipy.sparse import csr_array

    return csr_array(fractions) if fractions.shape[1] > MIN_SPARSE else fractions


def _typical(kinds: Sequence[str]) -> Floats:
    """Return (t, TERMS) prior means of logarithms of coefficients."""
    return _TYPICAL[[int(kind.startswith("portable.")) for kind in kinds]]


def _coefficient_covariance(kinds: Sequence[str], others: Sequence[str], kind_sd: float) -> Floats:
    """Return the prior covariance (t TERMS, u TERMS) of logarithms of coefficients of kinds."""
    labels = [
        [(kind, kind.startswith("portable."), term) for kind in side for term in range(TERMS)]
        for side in (kinds, others)
    ]
    own = np.array([[a == b for b in labels[1]] for a in labels[0]])
    term = np.array([[a[1:] == b[1:] for b in labels[1]] for a in labels[0]])
    return np.asarray(_SPEED_SD**2 + _TERM_SD**2 * term + kind_sd**2 * own)


@dataclass(frozen=True)
class ProgramRows:
    """Measured programs: how often each has each operator (m, k), logarithms of ms and their variances (m,).

    `similarities` are of the operators of each kind among each other.
    """

    operators: OperatorArrays
    counts: Floats
    log_ms: Floats
    variance: Floats
    similarities: Mapping[str, tuple[Integers, Floats]]

    @classmethod
    def of(cls, models: Sequence[MeasuredModel], tiles: Mapping[str, tuple[int, int]]) -> Self:
        """Return the rows of models.

        Raises InvalidArtifactError: a block is not an operator, or there are too many of them.
        """
        keys = sorted({key for model in models for key in model.blocks})
        if len(models) > MAX_PROGRAMS or len(keys) > MAX_DISTINCT:
            raise InvalidArtifactError(
                f"{len(models)} programs of {len(keys)} distinct operators; measure at most {MAX_PROGRAMS} "
                f"of {MAX_DISTINCT}",
                code="too_many_operators",
            )
        index = {key: place for place, key in enumerate(keys)}
        counts = np.zeros((len(models), len(keys)))
        for row, model in enumerate(models):
            for key, times in Counter(model.blocks).items():
                counts[row, index[key]] = times
        ends = np.array([[max(model.ci_low, 1e-12), max(model.ci_high, 1e-12)] for model in models])
        sd = np.log(ends[:, 1] / ends[:, 0]) / (2 * 1.96)
        operators = OperatorArrays.of(keys, tiles)
        return cls(
            operators,
            counts,
            np.log([model.ms for model in models]),
            sd**2 + MEASUREMENT_SD_FLOOR**2,
            {
                kind: (place, _similarity(operators.points[place], operators.points[place]))
                for kind, place in operators.positions().items()
            },
        )

    def only(self, rows: Integers) -> Self:
        """Return some of the rows."""
        return replace(self, counts=self.counts[rows], log_ms=self.log_ms[rows], variance=self.variance[rows])

    def with_tile(self, kind: str, tile: tuple[int, int]) -> Self:
        """Return the rows with another tile of one kind."""
        place, amounts, points = (
            self.similarities[kind][0],
            self.operators.amounts.copy(),
            self.operators.points.copy(),
        )
        part = OperatorArrays.of([self.operators.keys[each] for each in place], {kind: tile})
        amounts[place], points[place] = part.amounts, part.points
        similarity = place, _similarity(part.points, part.points)
        return replace(
            self,
            operators=replace(self.operators, amounts=amounts, points=points),
            similarities={**self.similarities, kind: similarity},
        )


@dataclass(frozen=True)
class OperatorCost:
    """An operator of a network: milliseconds of all `count` together, and what they are spent on, fractions.

    `uncertainty` is its part of the variance of the network's predicted logarithm.
    """

    key: str
    count: int
    ms: float
    call: float
    arithmetic: float
    memory: float
    uncertainty: float


@dataclass(frozen=True, kw_only=True)
class OperatorPrediction(Prediction):
    """Latency of a network from its operators, dearest first; `weak_keys` are those that are extrapolated.

    `log_sd` is the predictive standard deviation of its logarithm, misfit included.
    """

    operators: tuple[OperatorCost, ...]
    log_sd: float


@dataclass(frozen=True)
class OperatorCosts:
    """Costs of operators: ms (k,), fractions by term (k, TERMS), covariances of logarithms with rows (k, m)."""

    operators: OperatorArrays
    ms: Floats
    terms: Floats
    to_rows: Floats


@dataclass(frozen=True)
class OperatorModel:
    """Rows linearised at logarithms of coefficients (t, TERMS) and of deviations from physics (k,).

    `sds` are entry, misfit, kind and shared, as in `luts.estimate.likelihood`.
    """

    rows: ProgramRows
    tiles: Mapping[str, tuple[int, int]]
    sds: Floats
    coefficients: Floats
    deviations: Floats

    @classmethod
    def start(cls, rows: ProgramRows, tiles: Mapping[str, tuple[int, int]], sds: Floats) -> Self:
        """Return the model before anything is learned from the rows."""
        kinds = sorted(set(rows.operators.kinds))
        return cls(rows, tiles, sds, _typical(kinds), np.zeros(len(rows.operators.keys)))

    @classmethod
    def of(
        cls, meta: LutMeta, fit: OperatorFit, entries: Sequence[Entry], models: Sequence[MeasuredModel]
    ) -> Self:
        """Return the model that a LUT stores. Raises InvalidArtifactError: its parts contradict each other."""
        rows = ProgramRows.of([model for model in models if model.fitted], fit.tiles)
        prices = {prior.kind: [*dict(Coefficients.of(prior)).values()] for prior in meta.prior}
        entry_ms = {entry.key: entry.ms for entry in entries}
        sds = np.array([fit.entry_sd, max(meta.misfit_sd, 1e-6), fit.kind_sd, fit.shared_sd])
        model = cls.start(rows, fit.tiles, sds)
        if not {*model.kinds} <= {*prices} or not {*rows.operators.keys} <= {*entry_ms}:
            raise InvalidArtifactError(
                "a measured program has an operator without an entry; get the LUT again from its origin",
                code="missing_entry",
            )
        coefficients = np.log(np.maximum([prices[kind] for kind in model.kinds], 1e-12))
        model = replace(model, coefficients=coefficients)
        ms = np.maximum([entry_ms[key] for key in rows.operators.keys], 1e-12)
        return replace(model, deviations=np.log(ms / model.physics))

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """Kinds in order."""
        return tuple(self.rows.similarities)

    @cached_property
    def terms(self) -> Floats:
        """(k, TERMS) ms of physics by term."""
        index = {kind: place for place, kind in enumerate(self.kinds)}
        own = self.coefficients[[index[kind] for kind in self.rows.operators.kinds]]
        return np.asarray(self.rows.operators.amounts * np.exp(own))

    @cached_property
    def physics(self) -> Floats:
        """(k,) ms of physics."""
        return np.asarray(self.terms.sum(axis=1))

    @cached_property
    def totals(self) -> Floats:
        """(m,) ms of the rows."""
        return np.asarray(self.rows.counts @ (self.physics * np.exp(self.deviations)))

    @cached_property
    def by_entry(self) -> Floats:
        """(m, k) derivatives of the rows' logarithms by deviations: fractions of their time."""
        ms = self.physics * np.exp(self.deviations)
        return np.asarray(self.rows.counts * ms / self.totals[:, None])

    @cached_property
    def by_coefficient(self) -> Floats:
        """(m, t TERMS) derivatives by coefficients."""
        shares = self.terms / self.physics[:, None]
        parts = [self.by_entry[:, place] @ shares[place] for place, _ in self.rows.similarities.values()]
        return np.hstack(parts)

    @cached_property
    def shared_to_rows(self) -> Floats:
        """(k, m) covariance of unscaled shared deviations with the rows."""
        out = np.zeros(self.by_entry.T.shape)
        for place, similarity in self.rows.similarities.values():
            out[place] = (_sparse(self.by_entry[:, place]) @ similarity).T
        return out

    @cached_property
    def deviations_to_rows(self) -> Floats:
        """(k, m) prior covariance of the deviations with the rows."""
        entry, _, _, shared = self.sds
        return np.asarray(shared**2 * self.shared_to_rows + entry**2 * self.by_entry.T)

    @cached_property
    def coefficient_covariance(self) -> Floats:
        """(t TERMS, t TERMS) prior covariance of the coefficients."""
        return _coefficient_covariance(self.kinds, self.kinds, self.sds[2])

    @cached_property
    def residual(self) -> Floats:
        """(m,) logarithms of the rows less their prior means, linearised."""
        moved = (self.coefficients - _typical(self.kinds)).ravel()
        return np.asarray(
            self.rows.log_ms
            - np.log(self.totals)
            + self.by_coefficient @ moved
            + self.by_entry @ self.deviations
        )

    @cached_property
    def inverse(self) -> Floats:
        """(m, m) inverse of the rows' covariance, their errors included."""
        return np.asarray(np.linalg.inv(self.covariance(self.rows.variance + self.sds[1] ** 2)))

    def covariance(self, variance: Floats) -> Floats:
        """Return the rows' covariance (m, m) with errors of this variance (m,)."""
        by_coefficient = self.by_coefficient @ self.coefficient_covariance @ self.by_coefficient.T
        return np.asarray(
            by_coefficient + _sparse(self.by_entry) @ self.deviations_to_rows + np.diag(variance)
        )

    def costs(self, keys: Sequence[str]) -> OperatorCosts:
        """Return the costs of operators, measured or not. Raises InvalidArtifactError: not keys of operators."""
        new = OperatorArrays.of(keys, self.tiles)
        entry, _, kind_sd, shared = self.sds
        weights = self.inverse @ self.residual
        to_rows, terms, logs = np.zeros((len(keys), len(weights))), new.amounts.copy(), np.zeros(len(keys))
        for kind, place in new.positions().items():
            prior = _coefficient_covariance([kind], self.kinds, kind_sd) @ self.by_coefficient.T
            terms[place] *= np.exp(_typical([kind])[0] + prior @ weights)
            if kind in self.rows.similarities:
                known, _ = self.rows.similarities[kind]
                similar = _similarity(new.points[place], self.rows.operators.points[known])
                similar = shared**2 * similar + entry**2 * (similar == 1)
                to_rows[place] = similar @ self.by_entry[:, known].T
                logs[place] = to_rows[place] @ weights
            to_rows[place] += terms[place] / terms[place].sum(axis=1, keepdims=True) @ prior
        physics = terms.sum(axis=1)
        return OperatorCosts(new, physics * np.exp(logs), terms / physics[:, None], to_rows)

    def log_sd(self, costs: OperatorCosts) -> Floats:
        """Return (k,) standard deviations of the logarithms of single operators' costs."""
        entry, _, kind_sd, shared = self.sds
        prior = np.zeros(len(costs.ms))
        for kind, place in costs.operators.positions().items():
            own = _coefficient_covariance([kind], [kind], kind_sd)
            prior[place] = ((costs.terms[place] @ own) * costs.terms[place]).sum(axis=1)
        known = ((costs.to_rows @ self.inverse) * costs.to_rows).sum(axis=1)
        return np.asarray(np.sqrt(np.maximum(prior + entry**2 + shared**2 - known, 0.0)))

    def variance_parts(self, costs: OperatorCosts, weights: Floats) -> Floats:
        """Return (k,) the parts of operators in the variance of the logarithm of a network.

        `weights` (k,) are fractions of its time.
        """
        entry, _, kind_sd, shared = self.sds
        positions = costs.operators.positions()
        by_coefficient = np.hstack([weights[place] @ costs.terms[place] for place in positions.values()])
        moved = _coefficient_covariance([*positions], [*positions], kind_sd) @ by_coefficient
        covariance = -costs.to_rows @ (self.inverse @ (weights @ costs.to_rows)) + entry**2 * weights
        for own, place in zip(moved.reshape(-1, TERMS), positions.values(), strict=True):
            points = costs.operators.points[place]
            covariance[place] += costs.terms[place] @ own
            covariance[place] += shared**2 * _similarity(points, points) @ weights[place]
        return np.asarray(weights * covariance)

    def price(self, blocks: Sequence[str]) -> tuple[OperatorCosts, Floats, Floats]:
        """Return a network's costs, counts (k,), and operators' parts (k,) of the variance of its logarithm."""
        counted = Counter(blocks)
        if not counted:
            raise UsageError("a network has at least one operator; give their keys", code="not_a_network")
        costs, counts = self.costs([*counted]), np.array([*counted.values()], dtype=np.float64)
        ms = counts * costs.ms
        return costs, counts, self.variance_parts(costs, ms / ms.sum())

    def predict(self, blocks: Sequence[str], fit: OperatorFit) -> OperatorPrediction:
        """Predict the latency of a network from the keys of its operators.

        Raises InvalidArtifactError: one is not a key of an operator.
        """
        costs, counts, parts = self.price(blocks)
        ms = float(counts @ costs.ms)
        log_sd = math.sqrt(max(float(parts.sum()), 0.0) + float(self.sds[1]) ** 2)
        factor = math.exp(min(fit.quantile_95 * math.hypot(log_sd, SD_FLOOR), MAX_LOG))
        rows = zip(costs.operators.keys, counts, costs.ms, costs.terms, parts, strict=True)
        operators = [
            OperatorCost(key, int(count), count * each, terms[0], terms[1] + terms[2], terms[3], part)
            for key, count, each, terms, part in rows
        ]
        operators.sort(key=lambda each: -each.uncertainty)
        above = log_sd > fit.extrapolated_sd
        named, left = list[str](), log_sd**2 - fit.extrapolated_sd**2
        for each in operators[:MAX_NAMED] if above else []:
            if named and left <= 0:
                break
            named.append(each.key)
            left -= each.uncertainty
        return OperatorPrediction(
            ms=ms,
            low=ms / factor,
            high=ms * factor,
            level=0.95,
            weak_keys=tuple(named),
            basis=fit.basis,
            operators=tuple(sorted(operators, key=lambda each: -each.ms)),
            log_sd=log_sd,
        )
