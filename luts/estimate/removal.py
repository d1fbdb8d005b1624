"""Attribution by removal, as in AutoViT: latency of a model minus that of the model without the block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from luts.estimate.quantiles import student_quantile
from luts.estimate.ratios import CONFIDENCE, RatioEstimates, combine_loads, load_ratios
from luts.estimate.rounds import Session


@dataclass(frozen=True)
class RemovalCost:
    """Milliseconds (of the reference's scale) that vanish with the block; `se` is their standard error."""

    ms: float
    se: float
    low: float
    high: float


def removal_cost(
    found: Sequence[Session], estimates: RatioEstimates, base_id: str, removal_id: str
) -> RemovalCost:
    """Cost of the removed block in units of the reference's latency (multiply by its milliseconds).

    base * (1 - exp(d)), d = log(removal / base), paired within rounds where both ran in one session: drift
    and the reference's noise drop out of d. Without a common session d is the difference of the two ratios.
    The error is propagated to first order: base^2 (exp(d)^2 var(d) + (1 - exp(d))^2 var(log base)).
    """
    base, removal, variance = estimates.ratios[base_id], estimates.ratios[removal_id], estimates.load_variance
    paired = load_ratios(found, base_id, frozenset({removal_id}))
    if paired:
        contrast = combine_loads(paired, variance)
        d, d_se = contrast.log_ratio, contrast.se
    else:
        d, d_se = removal.log_ratio - base.log_ratio, float(np.hypot(removal.se, base.se))
    scale, kept_share = float(np.exp(base.log_ratio)), float(np.exp(d))
    ms = scale * (1.0 - kept_share)
    se = scale * float(np.hypot(kept_share * d_se, (1.0 - kept_share) * base.se))
    half = student_quantile(0.5 + CONFIDENCE / 2, variance.df) * se
    return RemovalCost(ms, se, ms - half, ms + half)


def combine_removals(costs: Sequence[RemovalCost], df: float) -> RemovalCost:
    """Several removals of the same block (other places, other bases): inverse-variance mean.

    Where they disagree by more than their errors (a block costs differently in another context), the error is
    widened by the Birge ratio, so that the interval speaks of the block and not of one place.
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
