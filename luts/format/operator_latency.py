"""Latency of any network from programs that a LUT measured: a Gaussian process over operators.

    log L = log sum n_i t_i + misfit        log t_i = log physics_i + g_i

g is a Gaussian process (`Operators.covariance`). The sum is linearised around its most probable values, so that a
Gaussian posterior prices operators that no program has (Rasmussen and Williams 2006, 2.2 and 3.4). Arrays have
m programs and k operators.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

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
MAX_PROGRAMS, MAX_DISTINCT = 1000, 8000
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
logarithm. Lengths of 1, 2.5 and 4 did worse on 40 held-out networks of an x86 core."""
_DIMENSIONS = 12
"""Most sizes of a kind."""

_TYPICAL_MS: Floats = np.array([[0.001, 1 / 60, 1 / 15, 0.07], [0.002, 1.0, 1.0, 0.5]])
"""Coefficients of physics inside and outside of delegates, one core of an x86 server: products outside are slow."""
_SPEED_SD, _TERM_SD = 0.8, 0.8
"""Deviations of their logarithms: of all together, and of a term inside or outside. Phones are two to four
times slower."""

SOURCE_SDS: Floats = np.array([0.04, 0.0, 0.7, 0.75])
"""Deviations that another device's prices are interpolated with, as `OperatorModel.sds`; learned on x86 cores."""

SD_FLOOR = 0.03
"""Added in squares to predictive deviations for intervals: errors that the model does not know of."""
MEASUREMENT_SD_FLOOR = 1e-4
LEAST_MS = 1e-12
"""Less counts as nothing: logarithms of it are not taken."""
TRACED_ROWS, TRACED_SD = 250, 0.05
"""Most traced operators that are rows of a fit, which more make slow, and their error, of logarithms."""
MAX_NAMED = 5
"""Most operators that a prediction names as extrapolated."""


@dataclass(frozen=True)
class Operators:
    """Operators by key: kinds (k), amounts of physics (k, TERMS), logarithms of sizes (k, d).

    `extents` (k, 2) are rows and columns of the outputs of tiled kernels, `tiles` (k, 2) those of a tile. `sources`
    are other devices, whose prices take the place of physics.
    """

    keys: tuple[str, ...]
    kinds: NDArray[np.str_]
    amounts: Floats
    sizes: Floats
    extents: Floats
    tiles: Floats
    sources: tuple[OperatorSource, ...] = ()

    @classmethod
    def of(
        cls,
        keys: Sequence[str],
        tiles: Mapping[str, tuple[int, int]],
        sources: tuple[OperatorSource, ...] = (),
    ) -> Self:
        """Return the arrays of keys. Raises InvalidArtifactError: one is not an operator's."""
        parsed = [parse_operator(key) for key in keys]
        kinds = np.array([operator.features.kind for operator in parsed])
        rows = [_describe(operator) for operator in parsed]
        amounts, sizes, extents = (np.array(part) for part in zip(*rows, strict=True))
        own_tiles = np.array([tiles.get(kind, (1, 1)) for kind in kinds])
        return cls(tuple(keys), kinds, amounts, sizes, extents, own_tiles, sources)

    @cached_property
    def padding(self) -> Floats:
        """(k, 2) rows and columns that kernels compute, relative to those of the output."""
        return np.asarray(np.ceil(self.extents / self.tiles) * self.tiles / self.extents)

    @cached_property
    def outside(self) -> NDArray[np.bool_]:
        """(k,) whether operators run outside the delegates."""
        return np.strings.startswith(self.kinds, "portable.")

    @cached_property
    def terms(self) -> Floats:
        """(k, TERMS) ms of physics by term, MACs padded to tiles, times the sources' mean factor."""
        padded = self.amounts * np.prod(self.padding, axis=1)[:, None] ** [0, 1, 1, 0]
        pairs = zip(self.whitened, self.sources, strict=True)
        logs = sum((known.T @ source.white for known, source in pairs), np.zeros(len(self.keys)))
        factors = np.exp(logs / max(len(self.sources), 1))
        return np.asarray(padded * _TYPICAL_MS[self.outside.astype(int)] * factors[:, None])

    @cached_property
    def whitened(self) -> list[Floats]:
        """Whitened covariances (s, k) with each source's operators."""
        from scipy.linalg import solve_triangular

        alone = replace(self, sources=())
        shared = [source.operators.covariance(alone, SOURCE_SDS) for source in self.sources]
        return [
            np.asarray(solve_triangular(source.root, own, lower=True))
            for source, own in zip(self.sources, shared, strict=True)
        ]

    @cached_property
    def shares(self) -> Floats:
        """(k, TERMS) fractions of physics by term."""
        return np.asarray(self.terms / self.terms.sum(axis=1, keepdims=True))

    @cached_property
    def common(self) -> Floats:
        """(k, 1 + 2 TERMS) what operators of all kinds share, in prior standard deviations.

        Speed of the device, and prices of physics' terms inside and outside of delegates, linearised.
        """
        sides = [self.shares * (self.outside == side)[:, None] for side in (False, True)]
        return np.hstack([np.full((len(self.keys), 1), _SPEED_SD), *(_TERM_SD * side for side in sides)])

    def similarities(self, other: Self) -> Iterator[tuple[Integers, Integers, Floats]]:
        """Yield the places of each kind here and there, and their Matérn 5/2 covariance, 1 for one operator."""
        from scipy.spatial.distance import cdist

        for kind in np.intersect1d(self.kinds, other.kinds):
            own, others = np.flatnonzero(self.kinds == kind), np.flatnonzero(other.kinds == kind)
            distance = math.sqrt(5) * cdist(self._points[own], other._points[others])
            yield own, others, (1 + distance + distance**2 / 3) * np.exp(-distance)

    def covariance(self, other: Self, sds: Floats) -> Floats:
        """Return the prior covariance (k, l) of deviations with those of other operators; `sds` as the model's."""
        entry, _, kind, shared = sds
        covariance = self.common @ other.common.T + self.source_covariance(other)
        for own, others, similar in self.similarities(other):
            covariance[np.ix_(own, others)] += kind**2 + shared**2 * similar + entry**2 * (similar == 1)
        return np.asarray(covariance)

    def source_covariance(self, other: Self) -> Floats:
        """Return the covariance (k, l) of what sources do not know of the operators' costs; 0 without any."""
        if not self.sources:
            return np.zeros((len(self.keys), len(other.keys)))
        pairs = zip(self.whitened, other.whitened, strict=True)
        known = sum((own.T @ others for own, others in pairs), np.zeros((len(self.keys), len(other.keys))))
        whole = replace(self, sources=()).covariance(replace(other, sources=()), SOURCE_SDS)
        return np.asarray(whole - known / len(self.sources))

    @cached_property
    def _points(self) -> Floats:
        return np.hstack([self.sizes, PADDING_SCALE * np.log(self.padding)]) / LENGTH


@dataclass(frozen=True)
class OperatorSource:
    """Another device's prices of operators, and of any others by a Gaussian process through these.

    `root` (s, s) is the Cholesky factor of the covariance of its logarithms relative to physics, their standard
    errors included; `white` (s,) are these logarithms, whitened.
    """

    operators: Operators
    root: Floats
    white: Floats

    @classmethod
    def of(
        cls,
        entry_ms: Mapping[str, float],
        entry_se: Mapping[str, float],
        tiles: Mapping[str, tuple[int, int]],
    ) -> Self:
        """Return the source of prices and their standard errors, ms by key.

        Raises InvalidArtifactError: a key is not an operator's.
        """
        operators = Operators.of([*entry_ms], tiles)
        ms = np.maximum([*entry_ms.values()], LEAST_MS)
        relative_se = np.array([entry_se.get(key, 0.0) for key in entry_ms]) / ms
        root = np.linalg.cholesky(operators.covariance(operators, SOURCE_SDS) + np.diag(relative_se**2))
        return cls(operators, root, np.linalg.solve(root, np.log(ms / operators.terms.sum(axis=1))))


def _describe(operator: Operator) -> tuple[list[float], Floats, list[float]]:
    """Return the amounts, logarithms of sizes, and extents of an operator."""
    sizes, features = operator.all_sizes, operator.features
    rows, columns = TILED.get(operator.kind, ((), ""))
    extents = math.prod(sizes[name] for name in rows), sizes.get(columns, 1)
    element_bytes = ELEMENT_BYTES[operator.dtype]
    moved_bytes = features.traffic_bytes + WEIGHT_READS * element_bytes * features.params
    if operator.kind in ("copy", "slice", "constantpad", "transpose"):
        run_bytes = max(sizes["run"], 1) * element_bytes
        lines = math.ceil(run_bytes / CACHE_LINE_BYTES) * CACHE_LINE_BYTES / run_bytes
        moved_bytes *= (1 + lines) / 2
    macs = [(features.macs - features.depthwise_macs) / MMAC, features.depthwise_macs / MMAC]
    logs = np.zeros(_DIMENSIONS)
    logs[: len(sizes)] = np.log(np.maximum([*sizes.values()], 1))
    return [1.0, *macs, moved_bytes / MIB], logs, [max(extent, 1) for extent in extents]


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
class OperatorModel:
    """Measured programs, linearised at deviations of operators from physics, logarithms (k,).

    Attributes:
        operators: The programs' operators.
        counts: (m, k) how often each program has each operator, sparse; traced operators are programs of one.
        log_ms: (m,) logarithms of measured milliseconds.
        variance: (m,) their variances.
        sds: Learned deviations: entry, misfit, kind and shared, as in `luts.estimate.likelihood`.
        covariance: (k, k) prior covariance of the operators' deviations from physics.
        deviations: (k,) where the programs are linearised.
    """

    operators: Operators
    counts: Any
    log_ms: Floats
    variance: Floats
    sds: Floats
    covariance: Floats
    deviations: Floats

    @classmethod
    def start(
        cls,
        models: Sequence[MeasuredModel],
        tiles: Mapping[str, tuple[int, int]],
        sds: Floats,
        sources: tuple[OperatorSource, ...] = (),
    ) -> Self:
        """Return the model before anything is learned from measured programs.

        Raises InvalidArtifactError: a block is not an operator, or there are too many of them.
        """
        keys = np.unique([key for model in models for key in model.blocks])
        if len(models) > MAX_PROGRAMS or len(keys) > MAX_DISTINCT:
            raise InvalidArtifactError(
                f"{len(models)} programs of {len(keys)} distinct operators; measure at most {MAX_PROGRAMS} "
                f"of {MAX_DISTINCT}",
                code="too_many_operators",
            )
        operators = Operators.of(keys.tolist(), tiles, sources)
        return cls(
            operators=operators,
            **rows_of(models, operators.keys),
            sds=sds,
            covariance=operators.covariance(operators, sds),
            deviations=np.zeros(len(keys)),
        )

    @classmethod
    def of(
        cls, meta: LutMeta, fit: OperatorFit, entries: Sequence[Entry], models: Sequence[MeasuredModel]
    ) -> Self:
        """Return the model that a LUT stores. Raises InvalidArtifactError: its parts contradict each other."""
        sds = np.array([fit.entry_sd, max(meta.misfit_sd, 1e-6), fit.kind_sd, fit.shared_sd])
        sources = tuple(
            OperatorSource.of(*source.priced([entry.key for entry in entries]), fit.tiles)
            for source in meta.sources
            if source.name not in meta.dropped_sources
        )
        model = cls.start([model for model in models if model.fitted], fit.tiles, sds, sources)
        entry_ms = {entry.key: entry.ms for entry in entries}
        if not {*model.operators.keys} <= {*entry_ms}:
            raise InvalidArtifactError(
                "a measured program has an operator without an entry; get the LUT again from its origin",
                code="missing_entry",
            )
        ms = np.maximum([entry_ms[key] for key in model.operators.keys], LEAST_MS)
        return replace(model, deviations=np.log(ms / model.operators.terms.sum(axis=1)))

    def with_prior(self, sds: Floats) -> Self:
        """Return the model with other learned deviations."""
        return replace(self, sds=sds, covariance=self.operators.covariance(self.operators, sds))

    @cached_property
    def totals(self) -> Floats:
        """(m,) ms of the programs."""
        return np.asarray(self.counts @ self._ms)

    @cached_property
    def _ms(self) -> Floats:
        return np.asarray(self.operators.terms.sum(axis=1) * np.exp(self.deviations))

    @cached_property
    def by_entry(self) -> Any:
        """(m, k) derivatives of the programs' logarithms by deviations, sparse: fractions of their time."""
        return self.counts.multiply(self._ms).multiply(1 / self.totals[:, None]).tocsr()

    @cached_property
    def residual(self) -> Floats:
        """(m,) logarithms of the programs less their prior means, linearised."""
        return np.asarray(self.log_ms - np.log(self.totals) + self.by_entry @ self.deviations)

    @cached_property
    def to_rows(self) -> Floats:
        """(k, m) prior covariance of the deviations with the programs."""
        return np.asarray((self.by_entry @ self.covariance).T)

    @cached_property
    def inverse(self) -> Floats:
        """(m, m) inverse of the programs' covariance, their errors included."""
        return np.asarray(
            np.linalg.inv(self.by_entry @ self.to_rows + np.diag(self.variance + self.sds[1] ** 2))
        )

    @cached_property
    def term_prices(self) -> Floats:
        """(2, TERMS) most probable factors to typical prices of terms, inside and outside of delegates."""
        pulls = self.by_entry.T @ (self.inverse @ self.residual)
        logs = _TERM_SD * (pulls @ self.operators.common)[1:]
        return np.asarray(np.exp(logs)).reshape(2, TERMS)

    @cached_property
    def tiles(self) -> dict[str, tuple[int, int]]:
        """Rows and columns of a tile by kind of operator, those that sources alone have included."""
        each = [self.operators, *(source.operators for source in self.operators.sources)]
        pairs = [pair for own in each for pair in zip(own.kinds.tolist(), own.tiles.tolist(), strict=True)]
        return {kind: (int(rows), int(columns)) for kind, (rows, columns) in pairs}

    def price(self, keys: Sequence[str]) -> tuple[Operators, Floats, Floats]:
        """Return operators, measured or not, their ms (l,) and the covariance (l, l) of their logarithms.

        Raises InvalidArtifactError: not keys of operators.
        """
        new = Operators.of(keys, self.tiles, self.operators.sources)
        to_rows = (self.by_entry @ self.operators.covariance(new, self.sds)).T
        logs = to_rows @ (self.inverse @ self.residual)
        left = new.covariance(new, self.sds) - to_rows @ self.inverse @ to_rows.T
        return new, np.asarray(new.terms.sum(axis=1) * np.exp(logs)), np.asarray(left)

    def price_network(self, blocks: Sequence[str]) -> tuple[Operators, Floats, Floats, float]:
        """Return a network's operators, ms of all of each (k,), and the error of its predicted logarithm.

        The error is parts (k,) of the variance, and the standard deviation, misfit included. Raises
        InvalidArtifactError: a block is not a key of an operator.
        """
        counted = Counter(blocks)
        if not counted:
            raise UsageError("a network has at least one operator; give their keys", code="not_a_network")
        new, each_ms, covariance = self.price([*counted])
        ms = np.array([*counted.values()]) * each_ms
        weights = ms / ms.sum()
        parts = weights * (covariance @ weights)
        return new, ms, parts, math.sqrt(max(float(parts.sum()), 0.0) + float(self.sds[1]) ** 2)

    def predict(self, blocks: Sequence[str], fit: OperatorFit) -> OperatorPrediction:
        """Predict the latency of a network from the keys of its operators; errors as `price_network`."""
        new, own_ms, parts, log_sd = self.price_network(blocks)
        ms, counted = float(own_ms.sum()), Counter(blocks)
        factor = math.exp(min(fit.quantile_95 * math.hypot(log_sd, SD_FLOOR), MAX_LOG))
        spent = new.shares * self.term_prices[new.outside.astype(int)]
        spent /= spent.sum(axis=1, keepdims=True)
        operators = [
            OperatorCost(key, counted[key], own, call, macs + depthwise, memory, part)
            for key, own, (call, macs, depthwise, memory), part in zip(
                new.keys, own_ms.tolist(), spent.tolist(), parts.tolist(), strict=True
            )
        ]
        return OperatorPrediction(
            ms=ms,
            low=ms / factor,
            high=ms * factor,
            level=0.95,
            weak_keys=extrapolated(operators, log_sd**2 - fit.extrapolated_sd**2),
            basis=fit.basis,
            operators=tuple(sorted(operators, key=lambda each: -each.ms)),
            log_sd=log_sd,
        )


def rows_of(models: Sequence[MeasuredModel], keys: Sequence[str]) -> dict[str, Any]:
    """Return `counts`, `log_ms` and `variance` of measured programs, then of operators that were traced in them.

    `keys` are sorted and have all operators of the programs.
    """
    from scipy.sparse import csr_array

    traced = traced_operators(models)
    held = [*(model.blocks for model in models), *([key] for key in traced)]
    rows = np.repeat(np.arange(len(held)), [len(own) for own in held])
    columns = np.searchsorted(keys, [key for own in held for key in own])
    ends = np.array([[max(model.ci_low, LEAST_MS), max(model.ci_high, LEAST_MS)] for model in models])
    variance = (np.log(ends[:, 1] / ends[:, 0]) / (2 * 1.96)) ** 2 + MEASUREMENT_SD_FLOOR**2
    shape = len(held), len(keys)
    return {
        "counts": csr_array(
            (np.ones(len(rows)), (rows, columns)), shape=shape
        ),  # sums an operator's repetitions
        "log_ms": np.log([*(model.ms for model in models), *traced.values()]),
        "variance": np.concatenate([variance, np.full(len(traced), TRACED_SD**2)]),
    }


def traced_operators(models: Sequence[MeasuredModel]) -> dict[str, float]:
    """Return ms of the operators that take most of the traced programs' times, at most `TRACED_ROWS`.

    A program's traced times are scaled to its latency; those of one operator are averaged (logarithms).
    """
    logs, shares = defaultdict[str, list[float]](list), defaultdict[str, float](float)
    for model in models:
        times = model.operator_ms or ()
        whole = sum(times)
        for key, ms in zip(model.blocks, times, strict=False):
            if (own := model.ms * ms / whole) > LEAST_MS:
                logs[key].append(math.log(own))
                shares[key] += ms / whole
    dearest = sorted(shares, key=lambda key: -shares[key])[:TRACED_ROWS]
    return {key: math.exp(sum(logs[key]) / len(logs[key])) for key in dearest}


def extrapolated(operators: Sequence[OperatorCost], excess: float) -> tuple[str, ...]:
    """Return the operators that explain a variance above the line, by uncertainty, at least one."""
    named = list[str]()
    for each in sorted(operators, key=lambda each: -each.uncertainty)[:MAX_NAMED]:
        if excess <= 0:
            break
        named.append(each.key)
        excess -= each.uncertainty
    return tuple(named)
