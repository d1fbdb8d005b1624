"""Latency ratios of models to the reference, with the load as the unit of replication."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise

import numpy as np
import pyarrow as pa

from luts.estimate.statistics import CONFIDENCE, MIN_ROUNDS, location_and_se, student_quantile
from luts.format.errors import InvalidArtifactError
from luts.format.schema import Floats

START_LOAD_SD = 0.008
"""Before any measurement: two loads of one file differed by 0.65 % (one thread) to 1.2 % (two threads) in a
trial on a two-core host, which is sqrt(2) times the deviation of one load; the larger is assumed."""

START_DF = 2.0
"""The starting value weighs as much as two A/A differences: enough that the first one or two can't drive the
estimate to 0 and reject a good batch, negligible next to the dozens of a LUT."""

_SD_BOUNDS = (1e-5, 0.5)
_LOG_SD_STEP = 1e-3
"""The deviation is rounded to 0.1 %, so that minimisers on other machines, which agree to fewer digits than
everything else here, give the same one."""


@dataclass(frozen=True)
class LoadGroup:
    """Repeated loads of one quantity.

    Estimates (n,), their standard errors (n,), and `loads_each` (n,), how many times the variance of a single
    load enters each (3/2 for a ratio to two copies of the reference). With `centre` None the mean is unknown
    (a model, n >= 2); an A/A difference has centre 0 and loads_each 2.
    """

    values: Floats
    standard_errors: Floats
    loads_each: Floats
    centre: float | None = None

    @property
    def degrees(self) -> int:
        """Degrees of freedom."""
        return len(self.values) - (self.centre is None)


@dataclass(frozen=True)
class LoadVariance:
    """Standard deviation of one load's log latency, and the degrees of freedom behind it."""

    sd: float
    df: float


def _negative_log_likelihood(load_variance: float, groups: Sequence[LoadGroup]) -> float:
    total = START_DF * (np.log(load_variance) + START_LOAD_SD**2 / load_variance)
    for group in groups:
        variance = group.loads_each * load_variance + group.standard_errors**2
        weight = 1.0 / variance
        if group.centre is None:
            centre = float((weight * group.values).sum() / weight.sum())
            total += np.log(weight.sum())
        else:
            centre = group.centre
        total += np.log(variance).sum() + (weight * (group.values - centre) ** 2).sum()
    return float(total)


def pooled_load_variance(groups: Sequence[LoadGroup]) -> LoadVariance:
    """Estimate the load variance by restricted maximum likelihood (Patterson and Thompson 1971) over all groups.

    Every estimate is normal with variance loads_each * sd^2 + se^2. Groups without a degree of freedom add
    nothing. Without any, the result is the starting value with START_DF degrees of freedom.
    """
    from scipy.optimize import minimize_scalar

    informative = [group for group in groups if group.degrees > 0]
    minimum = minimize_scalar(
        lambda log_sd: _negative_log_likelihood(float(np.exp(2 * log_sd)), informative),
        bounds=(float(np.log(_SD_BOUNDS[0])), float(np.log(_SD_BOUNDS[1]))),
        method="bounded",
        options={"xatol": 1e-6},
    )
    log_sd = round(float(minimum.x) / _LOG_SD_STEP) * _LOG_SD_STEP
    return LoadVariance(sd=float(np.exp(log_sd)), df=START_DF + sum(group.degrees for group in informative))


MAD_TO_SD = 1.4826
"""Median absolute deviation to standard deviation, for a normal distribution."""
WINSOR = 4.0
"""A/A differences of rejected batches count for the load variance only up to so many noise floors: a batch
that was thrown away for one gross disturbance must not widen every interval."""


@dataclass(frozen=True)
class LoadRatio:
    """One load of a model relative to the copies of the reference in the same segment.

    `loads_each` is the number of load variances in it, 1 + 1 / copies; `shared_variance` the sampling
    variance of the reference's part, which all loads of the segment have in common.
    """

    model: str
    batch: int
    segment: int
    log_ratio: float
    se: float
    rounds: int
    loads_each: float
    shared_variance: float


@dataclass(frozen=True)
class AaDifference:
    """Log difference of the reference's two copies in one segment."""

    batch: int
    segment: int
    log_difference: float
    se: float
    rounds: int


@dataclass(frozen=True)
class Ratio:
    """Log ratio of a model to the reference, combined over its loads; a two-sided 95 % interval."""

    log_ratio: float
    se: float
    low: float
    high: float
    loads: int
    rounds: int


def combine_loads(loads: Sequence[LoadRatio], variance: LoadVariance) -> Ratio:
    """Return the mean over the loads of one model, weights 1 / (load variance + se^2), with a t interval."""
    values, own = _values_and_variances(loads, variance)
    weights = 1.0 / own
    mean = float((weights * values).sum() / weights.sum())
    se = float(1.0 / np.sqrt(weights.sum()))
    half = student_quantile(0.5 + CONFIDENCE / 2, variance.df) * se
    return Ratio(mean, se, mean - half, mean + half, len(loads), sum(load.rounds for load in loads))


def _values_and_variances(loads: Sequence[LoadRatio], variance: LoadVariance) -> tuple[Floats, Floats]:
    values = np.array([load.log_ratio for load in loads])
    own = np.array([load.loads_each * variance.sd**2 + load.se**2 for load in loads])
    return values, own


def load_variance(loads: Sequence[LoadRatio], differences: Sequence[AaDifference]) -> LoadVariance:
    """Return the load variance pooled over all models with two or more loads and all A/A differences."""
    groups = [
        LoadGroup(
            values=np.array([load.log_ratio for load in group]),
            standard_errors=np.array([load.se for load in group]),
            loads_each=np.array([load.loads_each for load in group]),
        )
        for group in by_model(loads).values()
    ]
    if differences:
        limit = WINSOR * noise_floor(differences)
        values = np.array([difference.log_difference for difference in differences])
        groups.append(
            LoadGroup(
                values=np.clip(values, -limit, limit),
                standard_errors=np.array([difference.se for difference in differences]),
                loads_each=np.full(len(values), 2.0),
                centre=0.0,
            )
        )
    return pooled_load_variance(groups)


def noise_floor(differences: Sequence[AaDifference]) -> float:
    """Return the robust standard deviation of A/A log differences, whose centre is 0."""
    return MAD_TO_SD * float(np.median([abs(difference.log_difference) for difference in differences]))


def by_model(loads: Sequence[LoadRatio]) -> dict[str, list[LoadRatio]]:
    """Return loads by model."""
    groups: dict[str, list[LoadRatio]] = {}
    for load in loads:
        groups.setdefault(load.model, []).append(load)
    return groups


def covariance(groups: Sequence[Sequence[LoadRatio]], variance: LoadVariance) -> Floats:
    """Return the covariance of combined log ratios: a segment's share the reference's loads and samples."""
    columns: dict[tuple[int, int], int] = {}
    for group in groups:
        for load in group:
            columns.setdefault((load.batch, load.segment), len(columns))
    weights = np.zeros((len(groups), len(columns)))
    shared = np.full(len(columns), np.inf)
    own = np.zeros(len(groups))
    for row, group in enumerate(groups):
        if not group:
            continue
        _, total = _values_and_variances(group, variance)
        share = (1.0 / total) / (1.0 / total).sum()
        for load, part, whole in zip(group, share, total, strict=True):
            column = columns[load.batch, load.segment]
            common = min((load.loads_each - 1.0) * variance.sd**2 + load.shared_variance, whole)
            weights[row, column] += part
            shared[column] = min(shared[column], common)
            own[row] += part**2 * (whole - common)
    return np.asarray((weights * shared) @ weights.T + np.diag(own))


@dataclass(frozen=True, eq=False)
class Segment:
    """All loads that ran interleaved in one segment of a batch.

    `log_ns` has shape (loads, rounds); NaN where a load was not called in a round; several samples of one
    round are averaged in the logarithm. `models[i]`, `copies[i]` name row i. `kept` is False where the batch
    was rejected. Differences and ratios are computed once, on first use.
    """

    batch: int
    segment: int
    models: tuple[str, ...]
    copies: tuple[int, ...]
    log_ns: Floats
    kept: bool = True
    _copies: dict[str, Floats] = field(default_factory=dict, repr=False)
    _differences: dict[str, AaDifference | None] = field(default_factory=dict, repr=False)
    _ratios: dict[tuple[int, str], LoadRatio | None] = field(default_factory=dict, repr=False)

    def rows(self, model: str) -> list[int]:
        """Return the row numbers of a model's loads, copy 0 first."""
        return [row for row, name in enumerate(self.models) if name == model]

    def location(self, model: str) -> Floats:
        """Return a model's log latency (rounds,), the mean over its copies in a round; NaN without any."""
        values = self.log_ns[self.rows(model)]
        seen = np.isfinite(values)
        counts = seen.sum(axis=0)
        sums = np.where(seen, values, 0.0).sum(axis=0)
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)

    def median_ms(self, model: str) -> float | None:
        """Return the median latency of a model; None where it did not run."""
        location = self.location(model)
        return float(np.exp(np.nanmedian(location))) / 1e6 if np.isfinite(location).any() else None

    def copies_of(self, model: str) -> Floats:
        """Return a model's log latency (copies, rounds); the others' mean where a copy did not run."""
        if model not in self._copies:
            values = self.log_ns[self.rows(model)]
            self._copies[model] = np.where(np.isfinite(values), values, self.location(model))
        return self._copies[model]

    def aa_difference(self, reference_id: str) -> AaDifference | None:
        """Return the difference of the reference's copies; None below MIN_ROUNDS common rounds."""
        if reference_id not in self._differences:
            self._differences[reference_id] = self._aa_difference(reference_id)
        return self._differences[reference_id]

    def load_ratios(self, denominator: str, model: str = "") -> list[LoadRatio]:
        """Return ratios of a model's loads (default: all others') to another's, from MIN_ROUNDS rounds on."""
        rows = [row for row, name in enumerate(self.models) if name != denominator and model in ("", name)]
        for row in rows:
            if (row, denominator) not in self._ratios:
                self._ratios[row, denominator] = self._load_ratio(row, denominator)
        ratios = (self._ratios[row, denominator] for row in rows)
        return [ratio for ratio in ratios if ratio is not None]

    def _aa_difference(self, reference_id: str) -> AaDifference | None:
        rows = self.rows(reference_id)
        if len(rows) != 2:
            return None
        difference = self.log_ns[rows[1]] - self.log_ns[rows[0]]
        difference = difference[np.isfinite(difference)]
        if len(difference) < MIN_ROUNDS:
            return None
        value, se = location_and_se(difference)
        return AaDifference(self.batch, self.segment, value, se, len(difference))

    def _load_ratio(self, row: int, denominator: str) -> LoadRatio | None:
        base = self.copies_of(denominator)
        if not len(base):
            return None
        values = self.log_ns[row] - base
        values = values[:, np.isfinite(values).all(axis=0)]
        if values.shape[1] < MIN_ROUNDS:
            return None
        location, se = location_and_se(values)
        between = self.aa_difference(denominator)
        return LoadRatio(
            model=self.models[row],
            batch=self.batch,
            segment=self.segment,
            log_ratio=location,
            se=se,
            rounds=values.shape[1],
            loads_each=1.0 + 1.0 / len(base),
            shared_variance=between.se**2 / 4 if between else 0.0,
        )


def segments_of(samples: pa.Table) -> list[Segment]:
    """Split samples into segments, in order of batch and segment; rows in order of model and copy.

    Raises InvalidArtifactError: samples of one batch are both kept and rejected.
    """
    encoded = samples.column("model").combine_chunks()
    if not isinstance(encoded, pa.DictionaryArray):
        encoded = encoded.dictionary_encode()
    names = encoded.dictionary.to_pylist()
    rank = np.argsort(np.argsort(np.array(names, dtype=str)))
    code = rank[encoded.indices.to_numpy(zero_copy_only=False)]
    ordered_names = sorted(names)
    batch, segment, round_number, copy, ns, kept = (
        samples.column(name).to_numpy() for name in ("batch", "segment", "round", "copy", "ns", "kept")
    )
    order = np.lexsort((round_number, copy, code, segment, batch))
    batch, segment, round_number, copy, code, kept = (
        column[order] for column in (batch, segment, round_number, copy, code, kept)
    )
    log_ns = np.log(ns[order].astype(np.float64))
    changes = np.flatnonzero((np.diff(batch) != 0) | (np.diff(segment) != 0)) + 1
    result = []
    for start, stop in pairwise([0, *changes.tolist(), len(order)]):
        if start == stop:
            continue
        part = slice(start, stop)
        if kept[part].any() != kept[part].all():
            raise InvalidArtifactError(
                f"samples of batch {batch[start]} are both kept and rejected; a batch is one or the other",
                code="mixed_batch",
            )
        loads, row = np.unique(code[part] * 2 + copy[part], return_inverse=True)
        visits, column = np.unique(round_number[part], return_inverse=True)
        sums = np.zeros((len(loads), len(visits)))
        counts = np.zeros_like(sums)
        np.add.at(sums, (row, column), log_ns[part])
        np.add.at(counts, (row, column), 1.0)
        result.append(
            Segment(
                batch=int(batch[start]),
                segment=int(segment[start]),
                models=tuple(ordered_names[load // 2] for load in loads),
                copies=tuple(int(load % 2) for load in loads),
                log_ns=np.where(counts > 0, sums / np.maximum(counts, 1.0), np.nan),
                kept=bool(kept[start]),
            )
        )
    return result


AA_MEMORY = 39
"""Number of earlier batches that count. Of 39 scores the 95 % rank is the second largest, so one gross
disturbance does not open the gate for the next; and a machine that has become quiet or busy is known as that
soon."""

MIN_SCORES = 19
"""With fewer scores their 95 % rank exceeds their number, and the interval is Student's. His t needs no
assumed size of the scores: one that is wrong by a factor of two either way would make the second to tenth
interval contain 0 in 85 % or in all batches."""


@dataclass(frozen=True)
class AaInterval:
    """95 % interval of a batch's A/A log difference."""

    log_difference: float
    low: float
    high: float

    @property
    def compatible(self) -> bool:
        """Whether the interval contains 0, so that the batch may be kept."""
        return self.low <= 0.0 <= self.high


@dataclass(frozen=True)
class AaHistory:
    """Result of earlier batches, for the next one's A/A test.

    `load_sd` is the standard deviation of one load's log latency, `factor` the half-width of a 95 % interval
    in units of the deviation that follows from it.
    """

    load_sd: float
    factor: float


def history_of(differences: Sequence[AaDifference], load_sd: float = START_LOAD_SD) -> AaHistory:
    """Return the history from the A/A differences of the batches before, in order; the last AA_MEMORY count.

    Differences count from rejected batches too: dropping those that failed the test would narrow the
    interval, which would reject more, and so on.
    """
    batches = [list(group) for _, group in groupby(differences, key=lambda difference: difference.batch)]
    combined = [_combined(group, load_sd) for group in batches[-AA_MEMORY:]]
    return AaHistory(load_sd, _factor(np.array([value / se for value, se in combined])))


def interval_of(differences: Sequence[AaDifference], history: AaHistory) -> AaInterval:
    """Return the 95 % interval of one batch's A/A difference (of its segments), load variance included."""
    value, se = _combined(differences, history.load_sd)
    half = history.factor * se
    return AaInterval(value, value - half, value + half)


def _combined(differences: Sequence[AaDifference], load_sd: float) -> tuple[float, float]:
    weights = np.array([1.0 / (2.0 * load_sd**2 + difference.se**2) for difference in differences])
    values = np.array([difference.log_difference for difference in differences])
    return float((weights * values).sum() / weights.sum()), float(1.0 / np.sqrt(weights.sum()))


def _factor(scores: Floats) -> float:
    """Return the 95 % rank of the sizes of `scores` (n,) for the next one, (n + 1) * 95 %, interpolated.

    Where it is beyond all, Student's quantile times the scores' size (1 before the first).
    """
    if len(scores) >= MIN_SCORES:
        return float(np.quantile(np.abs(scores), CONFIDENCE, method="weibull"))
    df, size = (len(scores), float(np.sqrt((scores**2).mean()))) if len(scores) else (START_DF, 1.0)
    return student_quantile(0.5 + CONFIDENCE / 2, df) * size
