"""Attribution by removal, as in AutoViT: latency of a model minus that of the model without the block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from luts.estimate.estimation import Estimation
from luts.estimate.quantiles import student_quantile
from luts.estimate.ratios import CONFIDENCE, combine_loads
from luts.format.schema import ModelSpec


@dataclass(frozen=True)
class RemovalCost:
    """Milliseconds (of the reference's scale) that vanish with the block; `se` is their standard error."""

    ms: float
    se: float
    low: float
    high: float


@dataclass(frozen=True)
class BlockRemoval:
    """What removals tell of one block: its cost, and the most operations that migrated in a removal that it rests
    on (None where no runtime told)."""

    cost: RemovalCost
    migrated_operations: int | None


def block_removals(specs: Sequence[ModelSpec], estimation: Estimation) -> dict[str, BlockRemoval]:
    """By key, in units of the reference's latency; by removals without migrated operations where there are any."""
    groups: dict[str, list[ModelSpec]] = {}
    for spec in specs:
        if spec.role == "removal":
            groups.setdefault(spec.removed_key, []).append(spec)
    removals = {}
    for key, group in groups.items():
        telling = [spec for spec in group if not spec.migrated_operations] or group
        costs = [removal_cost(estimation, spec.base_id, spec.model_id) for spec in telling]
        counts = [spec.migrated_operations for spec in telling if spec.migrated_operations is not None]
        cost = combine_removals(costs, estimation.ratios.load_variance.df)
        removals[key] = BlockRemoval(cost, max(counts, default=None))
    return removals


def removal_cost(estimation: Estimation, base_id: str, removal_id: str) -> RemovalCost:
    """Cost of the removed block in units of the reference's latency (multiply by its milliseconds).

    base * (1 - exp(d)), d = log(removal / base), paired within rounds where both ran in one session: drift
    and the reference's noise drop out of d. Without a common session d is the difference of the two ratios.
    The error is propagated to first order: base^2 (exp(d)^2 var(d) + (1 - exp(d))^2 var(log base)).
    """
    ratios, variance = estimation.ratios.ratios, estimation.ratios.load_variance
    base, removal = ratios[base_id], ratios[removal_id]
    paired = estimation.load_ratios(removal_id, base_id)
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
