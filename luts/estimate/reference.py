"""The reference's quiet latency: the one place where milliseconds enter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from luts.estimate.quantiles import binomial_quantile, normal_quantile
from luts.estimate.ratios import CONFIDENCE

QUIET_QUANTILE = 0.2
"""Interference only ever adds time, so the quiet latency lies low among the sessions; not at the minimum,
which falls as sessions are added and would make a longer run look faster. A fifth stays quiet as long as one
session in five does."""


@dataclass(frozen=True)
class QuietLatency:
    """Milliseconds with a 95 % interval."""

    ms: float
    low: float
    high: float

    def widen(self, ms: float, low: float, high: float) -> tuple[float, float]:
        """The interval of some milliseconds that came from a ratio, with the reference's own uncertainty added
        in quadrature."""
        below = float(np.hypot(ms - low, ms * (1 - self.low / self.ms)))
        above = float(np.hypot(high - ms, ms * (self.high / self.ms - 1)))
        return ms - below, ms + above


def quiet_latency(medians_ms: Sequence[float], load_sd: float) -> QuietLatency:
    """Lower quantile of the reference's medians, one of each session, at least one.

    The interval is that of order statistics (binomial, no assumption about the distribution), widened in
    quadrature by the load variance of a session's two copies, so that a single session has one too.
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
