"""Latencies of whole models from samples: ratios to the reference, its milliseconds, and block removals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from luts.estimate.ratios import (
    AaDifference,
    AaHistory,
    AaInterval,
    LoadRatio,
    LoadVariance,
    Ratio,
    Segment,
    by_model,
    combine_loads,
    covariance,
    history_of,
    interval_of,
    load_variance,
    noise_floor,
    segments_of,
)
from luts.estimate.statistics import (
    CONFIDENCE,
    MIN_ROUNDS,
    Percentiles,
    binomial_quantile,
    normal_quantile,
    percentiles,
    student_quantile,
)
from luts.format.errors import InvalidArtifactError
from luts.format.lut import normalise_samples
from luts.format.schema import Floats, ModelSpec, UnitVariation

QUIET_QUANTILE = 0.2
"""Interference only ever adds time, so the quiet latency is a low quantile over segments; not the minimum,
which falls as segments are added and would make a longer run look faster. A fifth stays quiet as long as one
segment in five does."""


@dataclass(frozen=True)
class QuietLatency:
    """Latency of the reference on an otherwise idle device: milliseconds with a 95 % interval."""

    ms: float
    low: float
    high: float

    def widen(self, ms: float, low: float, high: float) -> tuple[float, float]:
        """Return an interval of milliseconds from a ratio, the reference's own uncertainty added in quadrature."""
        below = float(np.hypot(ms - low, ms * (1 - self.low / self.ms)))
        above = float(np.hypot(high - ms, ms * (self.high / self.ms - 1)))
        return ms - below, ms + above


def quiet_latency(medians_ms: Sequence[float], load_sd: float) -> QuietLatency:
    """Return a lower quantile of the reference's medians, one of each segment, at least one.

    The interval is that of order statistics (binomial, no assumption about the distribution), widened in
    quadrature by the load variance of a segment's two copies, so that a single segment has one too.
    """
    ordered = np.sort(medians_ms)
    count = len(ordered)
    ms = float(np.quantile(ordered, QUIET_QUANTILE))
    tail = (1 - CONFIDENCE) / 2
    lower = max(binomial_quantile(tail, count, QUIET_QUANTILE) - 1, 0)
    upper = min(binomial_quantile(1 - tail, count, QUIET_QUANTILE), count - 1)
    load_part = ms * normal_quantile(1 - tail) * load_sd / np.sqrt(2)
    low = ms - float(np.hypot(ms - ordered[lower], load_part))
    high = ms + float(np.hypot(ordered[upper] - ms, load_part))
    return QuietLatency(ms, max(low, ms * 1e-3), high)


SegmentId = tuple[int, int]
"""Batch and segment number."""


def class_latency(units: Sequence[QuietLatency]) -> QuietLatency:
    """Return the geometric mean of the units' quiet latencies; of one unit, its own.

    Its 95 % interval is Student's over units, whose spread contains the uncertainty of each.
    """
    if len(units) == 1:
        return units[0]
    logs = np.log([unit.ms for unit in units])
    half = student_quantile(0.5 + CONFIDENCE / 2, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs))
    own = np.log([[unit.ms / unit.low, unit.high / unit.ms] for unit in units])
    below, above = np.hypot(half, np.sqrt((own**2).sum(axis=0)) / len(logs))
    ms = float(np.exp(logs.mean()))
    return QuietLatency(ms, ms * float(np.exp(-below)), ms * float(np.exp(above)))


def unit_variation(
    quiet: Mapping[str, QuietLatency], loads: Sequence[LoadRatio], unit_of: Mapping[SegmentId, str]
) -> UnitVariation:
    """Return how much units of a device class differ, from their quiet latencies and all loads of kept batches."""
    logs = np.log([unit.ms for unit in quiet.values()])
    return UnitVariation(
        units=len(quiet),
        reference=float(logs.std(ddof=1)) if len(logs) > 1 else None,
        ratio=_ratio_variation(loads, unit_of),
    )


def _ratio_variation(loads: Sequence[LoadRatio], unit_of: Mapping[SegmentId, str]) -> float | None:
    """Return the square root of the variance component of units within models, 0 where loads explain it all.

    Unbalanced one-way analysis of variance, pooled over models (Searle, Casella and McCulloch, Variance
    Components, 3.6). None where it can't be estimated.
    """
    by_model: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for load in loads:
        if (unit := unit_of.get((load.batch, load.segment))) is not None:
            by_model[load.model][unit].append(load.log_ratio)
    between = within = coefficient = 0.0
    between_df = within_df = 0
    for cells in by_model.values():
        values = [np.array(cell) for cell in cells.values()]
        counts = np.array([len(cell) for cell in values])
        mean = np.concatenate(values).mean()
        between += sum(len(cell) * (cell.mean() - mean) ** 2 for cell in values)
        within += sum(((cell - cell.mean()) ** 2).sum() for cell in values)
        coefficient += counts.sum() - (counts**2).sum() / counts.sum()
        between_df += len(values) - 1
        within_df += int((counts - 1).sum())
    if not between_df or not within_df:
        return None
    excess = between - between_df * within / within_df
    return float(np.sqrt(max(0.0, excess) / coefficient))


@dataclass(frozen=True)
class LatencyEstimates:
    """Segments and the estimates that follow from them; each is computed once, on first use.

    Attributes:
        reference_id: The model that ratios are relative to.
        segments: In order of batch and segment, those of rejected batches included.
        tables: Samples of these segments, each table normalised.
        unit_of: For a class of devices, the unit by batch and segment; empty for a single device.
    """

    reference_id: str
    segments: Sequence[Segment]
    tables: Sequence[pa.Table]
    unit_of: Mapping[SegmentId, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls, samples: pa.Table, reference_id: str, unit_of: Mapping[SegmentId, str] | None = None
    ) -> LatencyEstimates:
        """Return the estimates of samples; raises InvalidArtifactError where they do not fit their schema."""
        samples = normalise_samples(samples)
        return cls(reference_id, segments_of(samples), (samples,), unit_of or {})

    def without(self, models: Collection[str]) -> LatencyEstimates:
        """Return the estimates as if these models had not been measured."""
        if not any(name in models for segment in self.segments for name in segment.models):
            return self
        names = self.samples.column("model").cast(pa.string())
        left_out = pc.is_in(names, value_set=pa.array(list(models), pa.string()))
        return LatencyEstimates.of(self.samples.filter(pc.invert(left_out)), self.reference_id, self.unit_of)

    @cached_property
    def samples(self) -> pa.Table:
        """All samples, normalised."""
        return self.tables[0] if len(self.tables) == 1 else normalise_samples(pa.concat_tables(self.tables))

    @cached_property
    def differences(self) -> list[AaDifference]:
        """A/A differences of the segments in which both copies of the reference ran often enough."""
        differences = (segment.aa_difference(self.reference_id) for segment in self.segments)
        return [difference for difference in differences if difference is not None]

    @cached_property
    def loads(self) -> list[LoadRatio]:
        """Every load of a model next to the reference, in kept batches."""
        return [ratio for segment in self._kept for ratio in segment.load_ratios(self.reference_id)]

    def load_ratios(self, model: str, denominator: str) -> list[LoadRatio]:
        """Return every load of a model next to another one, in kept batches."""
        return [ratio for segment in self._kept for ratio in segment.load_ratios(denominator, model)]

    @cached_property
    def load_variance(self) -> LoadVariance:
        """Variance of one load. Raises InvalidArtifactError: the reference has no pair of loads."""
        if not self.differences:
            raise InvalidArtifactError(
                f"reference {self.reference_id} has no pair of loads with {MIN_ROUNDS} common rounds; "
                "load it twice a batch",
                code="no_reference_pair",
            )
        return load_variance(self.loads, self.differences)

    @cached_property
    def noise_floor(self) -> float:
        """Robust standard deviation of the A/A log differences of all segments."""
        return noise_floor(self.differences)

    @cached_property
    def ratios(self) -> dict[str, Ratio]:
        """Ratios to the reference of all models with a usable load, in order of name; raises as `load_variance`."""
        variance = self.load_variance
        ratios = {name: combine_loads(group, variance) for name, group in by_model(self.loads).items()}
        rows = [segment.log_ns[row] for segment in self._kept for row in segment.rows(self.reference_id)]
        if rows:
            rounds = int(sum(np.isfinite(row).sum() for row in rows))
            ratios[self.reference_id] = Ratio(0.0, 0.0, 0.0, 0.0, len(rows), rounds)
        return {name: ratios[name] for name in sorted(ratios)}

    @cached_property
    def covariance(self) -> Floats:
        """(n, n) covariance of the logarithms of `ratios`: loads next to the same reference share its error."""
        groups = by_model(self.loads)
        return covariance([groups.get(name, []) for name in self.ratios], self.load_variance)

    @cached_property
    def quiet(self) -> QuietLatency:
        """The reference's quiet latency; for a class of devices, the mean over its units.

        Raises InvalidArtifactError: the reference was in no kept batch.
        """
        return class_latency(list(self._quiet_by_unit.values()))

    @cached_property
    def unit_variation(self) -> UnitVariation | None:
        """How much units of a class differ; None where a single device was measured."""
        return unit_variation(self._quiet_by_unit, self.loads, self.unit_of) if self.unit_of else None

    @cached_property
    def _quiet_by_unit(self) -> dict[str, QuietLatency]:
        """Quiet latencies by unit, "" for a single device; segments without a unit count for ratios only."""
        medians_ms: dict[str, list[float]] = defaultdict(list)
        for segment in self._kept:
            unit = self.unit_of.get((segment.batch, segment.segment), None if self.unit_of else "")
            ms = segment.median_ms(self.reference_id)
            if ms is not None and unit is not None:
                medians_ms[unit].append(ms)
        if not medians_ms:
            raise InvalidArtifactError(
                f"reference {self.reference_id} has no kept sample; measure it in every batch",
                code="no_reference_samples",
            )
        sd = self.load_variance.sd
        return {unit: quiet_latency(medians_ms[unit], sd) for unit in sorted(medians_ms)}

    def percentiles(self, model: str) -> Percentiles:
        """Return percentiles of a model's timed calls in kept batches, in ms as measured."""
        rows = [segment.log_ns[row] for segment in self._kept for row in segment.rows(model)]
        loads = [np.exp(row[np.isfinite(row)]) / 1e6 for row in rows]
        return percentiles([load for load in loads if len(load)])

    @cached_property
    def aa_history(self) -> AaHistory:
        """What the A/A test of the next batch needs to know of these; the load variance is of kept ones."""
        if not self.segments:
            return history_of([])
        return history_of(self.differences, load_variance(self.loads, self.differences).sd)

    def aa_interval(self, history: AaHistory) -> AaInterval:
        """Return the 95 % interval of the A/A difference; all segments must be of one batch.

        Raises InvalidArtifactError: no segment of the batch holds both copies of the reference.
        """
        if not self.differences:
            raise InvalidArtifactError(
                f"batch holds no pair of loads of reference {self.reference_id} with {MIN_ROUNDS} rounds; "
                "repeat it",
                code="no_reference_pair",
            )
        return interval_of(self.differences, history)

    @cached_property
    def _kept(self) -> list[Segment]:
        return [segment for segment in self.segments if segment.kept]


@dataclass(frozen=True)
class RemovalCost:
    """Latency that vanishes with the block, in units of the reference's; `se` is its standard error.

    `migrated_operations` is the largest number of operations that migrated in a removal; None where the runtime
    does not report it.
    """

    ms: float
    se: float
    low: float
    high: float
    migrated_operations: int | None = None


def block_removals(specs: Sequence[ModelSpec], estimation: LatencyEstimates) -> dict[str, RemovalCost]:
    """Return removal costs by key. Removals with migrated operations count only where there are no others."""
    groups: dict[str, list[ModelSpec]] = {}
    for spec in specs:
        if spec.role == "removal":
            groups.setdefault(spec.removed_key, []).append(spec)
    removals = {}
    for key, group in groups.items():
        usable = [spec for spec in group if not spec.migrated_operations] or group
        costs = [removal_cost(estimation, spec.base_id, spec.model_id) for spec in usable]
        counts = [spec.migrated_operations for spec in usable if spec.migrated_operations is not None]
        cost = combine_removals(costs, estimation.load_variance.df)
        removals[key] = replace(cost, migrated_operations=max(counts, default=None))
    return removals


def removal_cost(estimation: LatencyEstimates, base_id: str, removal_id: str) -> RemovalCost:
    """Return the cost of the removed block in units of the reference's latency (multiply by its milliseconds).

    base * (1 - exp(d)), d = log(removal / base), paired within rounds where both ran in one segment: drift
    and the reference's noise drop out of d. Without a common segment d is the difference of the two ratios.
    The error is propagated to first order: base^2 (exp(d)^2 var(d) + (1 - exp(d))^2 var(log base)).
    """
    ratios, variance = estimation.ratios, estimation.load_variance
    base, removal = ratios[base_id], ratios[removal_id]
    paired = estimation.load_ratios(removal_id, base_id)
    if paired:
        contrast = combine_loads(paired, variance)
        d, d_se = contrast.log_ratio, contrast.se
    else:
        d, d_se = removal.log_ratio - base.log_ratio, float(np.hypot(removal.se, base.se))
    scale, remaining = float(np.exp(base.log_ratio)), float(np.exp(d))
    ms = scale * (1.0 - remaining)
    se = scale * float(np.hypot(remaining * d_se, (1.0 - remaining) * base.se))
    half = student_quantile(0.5 + CONFIDENCE / 2, variance.df) * se
    return RemovalCost(ms, se, ms - half, ms + half)


def combine_removals(costs: Sequence[RemovalCost], df: float) -> RemovalCost:
    """Return the inverse-variance mean of several removals of the same block (other places, other bases).

    Where they disagree by more than their errors (a block costs differently in another context), the error is
    widened by the Birge ratio, so that the interval is of the block and not of one place.
    """
    values = np.array([cost.ms for cost in costs])
    weights = 1.0 / np.array([cost.se for cost in costs]) ** 2
    mean = float((weights * values).sum() / weights.sum())
    birge = 1.0
    if len(costs) > 1:
        birge = max(1.0, float(np.sqrt((weights * (values - mean) ** 2).sum() / (len(costs) - 1))))
    se = birge / float(np.sqrt(weights.sum()))
    half = student_quantile(0.5 + CONFIDENCE / 2, df) * se
    return RemovalCost(mean, se, mean - half, mean + half)
