"""Units of one class of devices: what the class's latency is, and how far its units lie apart.

Ratios are taken within a session, which is of one unit, so a slow unit does not move them; milliseconds are its
own, and those of a class are the mean of its units.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from luts.estimate.quantiles import student_quantile
from luts.estimate.ratios import CONFIDENCE, LoadRatio
from luts.estimate.reference import QuietLatency

Place = tuple[int, int]
"""Batch and segment."""


def class_latency(units: Sequence[QuietLatency]) -> QuietLatency:
    """The geometric mean of the units' quiet latencies.

    Its 95 % interval is Student's over units, whose spread holds what is uncertain of each; of one unit, its own.
    """
    if len(units) == 1:
        return units[0]
    logs = np.log([unit.ms for unit in units])
    half = student_quantile(0.5 + CONFIDENCE / 2, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs))
    own = np.log([[unit.ms / unit.low, unit.high / unit.ms] for unit in units])
    below, above = np.hypot(half, np.sqrt((own**2).sum(axis=0)) / len(logs))
    ms = float(np.exp(logs.mean()))
    return QuietLatency(ms, ms * float(np.exp(-below)), ms * float(np.exp(above)))


@dataclass(frozen=True)
class Spread:
    """Between units of a class, as relative standard deviations; None where that can't be told.

    `reference` is of the reference's milliseconds, `ratio` of a model's ratio to it, beyond what loads differ.
    """

    units: int
    reference: float | None
    ratio: float | None


def spread(
    quiet: Mapping[str, QuietLatency], loads: Sequence[LoadRatio], unit_of: Mapping[Place, str]
) -> Spread:
    """From the units' quiet latencies, and all loads of kept batches."""
    logs = np.log([unit.ms for unit in quiet.values()])
    return Spread(
        len(quiet), float(logs.std(ddof=1)) if len(logs) > 1 else None, _ratio_spread(loads, unit_of)
    )


def _ratio_spread(loads: Sequence[LoadRatio], unit_of: Mapping[Place, str]) -> float | None:
    """The square root of the variance component of units within models: unbalanced one-way analysis of variance,
    pooled over models (Searle, Casella and McCulloch, Variance Components, 3.6); 0 where loads explain it all."""
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
