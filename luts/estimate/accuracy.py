"""How good predictions are: errors and ranks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def relative_errors(measured: Sequence[float], predicted: Sequence[float]) -> NDArray[np.float64]:
    """(predicted - measured) / measured, shape (n,)."""
    truth = np.asarray(measured, dtype=np.float64)
    return np.asarray((np.asarray(predicted, dtype=np.float64) - truth) / truth)


def mape(measured: Sequence[float], predicted: Sequence[float]) -> float:
    """Mean absolute relative error, as a fraction."""
    return float(np.abs(relative_errors(measured, predicted)).mean())


def share_within(measured: Sequence[float], predicted: Sequence[float], tolerance: float) -> float:
    """Share of predictions within +-tolerance (a fraction) of the measurement."""
    return float((np.abs(relative_errors(measured, predicted)) <= tolerance).mean())


def kendall_tau(measured: Sequence[float], predicted: Sequence[float]) -> float | None:
    """Kendall's tau-b; None where it is undefined (fewer than two models, or all tied)."""
    if len(measured) < 2:
        return None
    from scipy.stats import kendalltau

    tau = float(kendalltau(measured, predicted).statistic)
    return tau if np.isfinite(tau) else None
