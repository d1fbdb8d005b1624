"""Whether two judges put networks in the same order."""

from __future__ import annotations

from numpy.typing import ArrayLike
from scipy import stats


def tau(a: ArrayLike, b: ArrayLike) -> float:
    """Kendall's, with ties (tau-b)."""
    return float(stats.kendalltau(a, b).statistic)
