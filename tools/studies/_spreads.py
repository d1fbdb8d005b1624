"""Means over seeds, with how far they spread, as text."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from luts.estimate.statistics import student_quantile


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean of shares in percent, with the smallest and largest."""
    low, high = min(values), max(values)
    mean = f"{100 * statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ({100 * low:.{digits}f} to {100 * high:.{digits}f})"


def gains(values: Sequence[float], base: Sequence[float]) -> str:
    """Mean difference in points of pairs with the same seed, with the smallest and largest."""
    differences = [100 * (value - other) for value, other in zip(values, base, strict=True)]
    mean = f"{statistics.fmean(differences):+.1f}"
    return mean if len(differences) == 1 else f"{mean} ({min(differences):+.1f} to {max(differences):+.1f})"


def points(values: Sequence[float]) -> str:
    """Mean of points, with the 95 % interval of that where there are several (Student's)."""
    mean = f"{statistics.fmean(values):+.2f}"
    if len(values) == 1:
        return mean
    half = student_quantile(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean} ± {half:.2f}"
