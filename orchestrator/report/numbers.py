"""The numbers of figures, captions and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from luts.build import estimates_of
from luts.estimate.statistics import mape, relative_errors, share_within
from luts.format.lut import Lut
from luts.format.schema import MIB
from orchestrator.measure.validate import LatencyComparison
from orchestrator.report.inputs import ReportInputs
from search.algorithms import Evaluated, SearchResult
from search.algorithms.pareto import pareto_front
from search.spaces import Arch

BASE = "base"
MOVED = "data moved"
"""Kinds of the two parts of a latency that are not blocks."""

SERIES_NAMES = ("held out of the LUT", "new random networks", "found by the search")
"""Origins of networks with a prediction and a measurement."""


@dataclass(frozen=True)
class PredictedAndMeasured:
    """A whole network, predicted and measured, in ms, with 95 % intervals (low, high)."""

    label: str
    predicted_ms: float
    predicted: tuple[float, float]
    measured_ms: float
    measured: tuple[float, float]

    @property
    def error(self) -> float:
        """(predicted - measured) / measured."""
        return self.predicted_ms / self.measured_ms - 1.0


@dataclass(frozen=True)
class Series:
    """Networks of one origin. `mape`, `worst` and `within_5` are fractions."""

    name: str
    pairs: tuple[PredictedAndMeasured, ...]

    @property
    def _values(self) -> tuple[list[float], list[float]]:
        return [pair.measured_ms for pair in self.pairs], [pair.predicted_ms for pair in self.pairs]

    @property
    def mape(self) -> float:
        """Mean absolute error."""
        return mape(*self._values)

    @property
    def worst(self) -> float:
        """Largest absolute error."""
        return float(np.abs(relative_errors(*self._values)).max())

    @property
    def within_5(self) -> float:
        """Fraction of predictions within 5 %."""
        return share_within(*self._values, 0.05)


@dataclass(frozen=True)
class LatencyPart:
    """A part of a network's predicted latency; `key` is "" for base and data moved."""

    kind: str
    key: str
    ms: float
    start_ms: float


@dataclass(frozen=True)
class GenerationSpread:
    """Accuracies of a generation: the best so far, and the quartiles of its new networks."""

    index: int
    new: int
    best: float
    low_quartile: float
    median: float
    high_quartile: float


@dataclass(frozen=True)
class AaRow:
    """Relative difference of the reference's two loads in one segment, with the sampling error of both."""

    batch: int
    segment: int
    difference: float
    se: float
    rounds: int
    kept: bool


def agreement(inputs: ReportInputs) -> tuple[Series, ...]:
    """Return predictions and measurements by origin of the networks; empty origins are left out."""
    heldout = _heldout_pairs(inputs.lut.lut) if inputs.lut else ()
    fresh = inputs.validation.comparisons if inputs.validation else ()
    chosen = inputs.measured.models if inputs.measured else ()
    groups = (heldout, tuple(map(_pair, fresh)), tuple(map(_pair, chosen)))
    return tuple(Series(name, pairs) for name, pairs in zip(SERIES_NAMES, groups, strict=True) if pairs)


def _heldout_pairs(lut: Lut) -> tuple[PredictedAndMeasured, ...]:
    model = lut.latency_model
    pairs = []
    for row in lut.models:
        if row.split == "heldout":
            predicted = model.predict(row.blocks, row.boundary_bytes)
            pairs.append(
                PredictedAndMeasured(
                    label=row.model_id,
                    predicted_ms=predicted.ms,
                    predicted=(predicted.low, predicted.high),
                    measured_ms=row.ms,
                    measured=(row.ci_low, row.ci_high),
                )
            )
    return tuple(pairs)


def _pair(row: LatencyComparison) -> PredictedAndMeasured:
    return PredictedAndMeasured(
        label=row.arch,
        predicted_ms=row.predicted_ms,
        predicted=(row.predicted_low, row.predicted_high),
        measured_ms=row.measured_ms,
        measured=(row.measured_low, row.measured_high),
    )


def front(evaluated: Sequence[Evaluated]) -> list[Evaluated]:
    """Return the Pareto front of accuracy and latency, fastest first."""
    return list(pareto_front(evaluated, ("latency", "accuracy")))


def latency_parts(lut: Lut, arch: Arch) -> tuple[LatencyPart, ...]:
    """Return the parts of a predicted latency: base, blocks in order of execution, data moved.

    Raises:
        UsageError: the LUT lacks a block.
    """
    model = lut.latency_model
    blocks = arch.blocks()
    model.predict([block.key for block in blocks], 0)
    moved_ms = model.transfer_ms_per_mib * arch.boundary_bytes() / MIB
    costs = [(BASE, "", model.base_ms)]
    costs += [(block.kind, block.key, model.costs[block.key].ms) for block in blocks]
    costs.append((MOVED, "", moved_ms))
    parts, start_ms = [], 0.0
    for kind, key, ms in costs:
        parts.append(LatencyPart(kind, key, ms, start_ms))
        start_ms += ms
    return tuple(parts)


def history(search: SearchResult) -> tuple[GenerationSpread, ...]:
    """Return the accuracies by generation."""
    rows = []
    for generation in search.history:
        new = [row.accuracy for row in search.evaluated if row.generation == generation.index]
        low, median, high = np.quantile(new, (0.25, 0.5, 0.75)) if new else (generation.mean,) * 3
        rows.append(
            GenerationSpread(
                generation.index, len(new), generation.best, float(low), float(median), float(high)
            )
        )
    return tuple(rows)


def aa_rows(lut: Lut) -> tuple[AaRow, ...]:
    """Return the A/A differences by segment, rejected batches included."""
    estimation = estimates_of(lut)
    kept = {segment.batch for segment in estimation.segments if segment.kept}
    return tuple(
        AaRow(
            batch=row.batch,
            segment=row.segment,
            difference=float(np.expm1(row.log_difference)),
            se=row.se,
            rounds=row.rounds,
            kept=row.batch in kept,
        )
        for row in estimation.differences
    )
