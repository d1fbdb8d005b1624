"""Split-conformal prediction intervals from held-out whole models (Vovk et al. 2005; Lei et al. 2018)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from luts.format.schema import Conformal


def half_width(measured: Sequence[float], predicted: Sequence[float], level: float) -> float | None:
    """Relative half-width q so that predicted * (1 +- q) holds a new measurement with probability >= level.

    The score is |measured - predicted| / predicted; q is its ceil((n + 1) level)-th smallest value. With
    fewer than level / (1 - level) held-out models that rank lies beyond n, q would be infinite: None.
    """
    truth = np.asarray(measured, dtype=np.float64)
    guess = np.asarray(predicted, dtype=np.float64)
    rank = math.ceil((len(truth) + 1) * level - 1e-9)
    if rank > len(truth):
        return None
    return float(np.sort(np.abs(truth - guess) / guess)[rank - 1])


def conformal_widths(measured: Sequence[float], predicted: Sequence[float]) -> Conformal:
    """Those that a LUT states."""
    return Conformal(
        half_width_90=half_width(measured, predicted, 0.90),
        half_width_95=half_width(measured, predicted, 0.95),
    )
