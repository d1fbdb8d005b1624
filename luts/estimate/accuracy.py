"""How good predictions are: errors and ranks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from luts.format.numbers import Floats
from luts.format.schema import HeldoutError


def relative_errors(measured: Sequence[float], predicted: Sequence[float]) -> Floats:
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


def heldout_error(measured: Sequence[float], predicted: Sequence[float]) -> HeldoutError | None:
    """All of these for models that were never fitted; None without any."""
    if not measured:
        return None
    return HeldoutError(
        models=len(measured),
        mape=mape(measured, predicted),
        within_5=share_within(measured, predicted, 0.05),
        within_10=share_within(measured, predicted, 0.10),
        kendall_tau=kendall_tau(measured, predicted),
    )
