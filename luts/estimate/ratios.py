"""Ratios of models to the reference, with the load as the unit of replication; natural logarithms throughout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from luts.estimate.location import MIN_ROUNDS
from luts.estimate.quantiles import student_quantile
from luts.estimate.variance import LoadGroup, LoadVariance, pooled_load_variance
from luts.format.errors import InvalidArtifactError
from luts.format.numbers import Floats

CONFIDENCE = 0.95
MAD_TO_SD = 1.4826
"""Median absolute deviation to standard deviation, for a normal distribution."""
WINSOR = 4.0
"""A/A differences of rejected batches count for the load variance only up to so many noise floors: a batch
that was thrown away for one gross disturbance must not widen every interval."""


@dataclass(frozen=True)
class LoadRatio:
    """One load of a model against the copies of the reference beside it.

    `loads_each` is the number of load variances in it: 1 + 1 / copies. `shared_variance` is the sampling
    variance of the reference's part, which all loads of the session have in common.
    """

    model: str
    batch: int
    segment: int
    log_ratio: float
    se: float
    rounds: int
    loads_each: float
    shared_variance: float


@dataclass(frozen=True)
class AaDifference:
    """Log difference of the reference's two copies in one session."""

    batch: int
    segment: int
    log_difference: float
    se: float
    rounds: int


@dataclass(frozen=True)
class Ratio:
    """Log ratio of a model to the reference, combined over its loads; a two-sided 95 % interval."""

    log_ratio: float
    se: float
    low: float
    high: float
    loads: int
    rounds: int


@dataclass(frozen=True)
class RatioEstimates:
    """Ratios by model, in order of name (the reference is 0 by definition), and the covariance (n, n) of
    their logarithms in the same order: models measured beside the same loads of the reference share its
    error.

    `noise_floor` is the robust standard deviation of the A/A log differences of all sessions.
    """

    reference_id: str
    ratios: dict[str, Ratio]
    covariance: Floats
    load_variance: LoadVariance
    noise_floor: float
    differences: tuple[AaDifference, ...]


def combine_loads(loads: Sequence[LoadRatio], variance: LoadVariance) -> Ratio:
    """Inverse-variance mean over the loads of one model, weights 1 / (load variance + se^2), t interval."""
    values, own = _values_and_variances(loads, variance)
    weights = 1.0 / own
    mean = float((weights * values).sum() / weights.sum())
    se = float(1.0 / np.sqrt(weights.sum()))
    half = student_quantile(0.5 + CONFIDENCE / 2, variance.df) * se
    return Ratio(mean, se, mean - half, mean + half, len(loads), sum(load.rounds for load in loads))


def _values_and_variances(loads: Sequence[LoadRatio], variance: LoadVariance) -> tuple[Floats, Floats]:
    values = np.array([load.log_ratio for load in loads])
    own = np.array([load.loads_each * variance.sd**2 + load.se**2 for load in loads])
    return values, own


def load_variance(loads: Sequence[LoadRatio], differences: Sequence[AaDifference]) -> LoadVariance:
    """Load variance pooled over all models with two or more loads and all A/A differences."""
    by_model = _by_model(loads)
    groups = [
        LoadGroup(
            values=np.array([load.log_ratio for load in group]),
            standard_errors=np.array([load.se for load in group]),
            loads_each=np.array([load.loads_each for load in group]),
        )
        for group in by_model.values()
    ]
    if differences:
        limit = WINSOR * noise_floor(differences)
        values = np.array([difference.log_difference for difference in differences])
        groups.append(
            LoadGroup(
                values=np.clip(values, -limit, limit),
                standard_errors=np.array([difference.se for difference in differences]),
                loads_each=np.full(len(values), 2.0),
                centre=0.0,
            )
        )
    return pooled_load_variance(groups)


def noise_floor(differences: Sequence[AaDifference]) -> float:
    """Robust standard deviation of A/A log differences, their centre known to be 0."""
    return MAD_TO_SD * float(np.median([abs(difference.log_difference) for difference in differences]))


def _by_model(loads: Sequence[LoadRatio]) -> dict[str, list[LoadRatio]]:
    groups: dict[str, list[LoadRatio]] = {}
    for load in loads:
        groups.setdefault(load.model, []).append(load)
    return groups


def ratio_estimates(
    reference_id: str,
    reference: Ratio | None,
    loads: Sequence[LoadRatio],
    differences: Sequence[AaDifference],
) -> RatioEstimates:
    """Ratios of all models with a usable load.

    Args:
        reference_id: The model that ratios are to.
        reference: Its own, which tells its loads and rounds; None where it was in no kept batch.
        loads: Of the kept batches.
        differences: Those of rejected batches among them.

    Raises InvalidArtifactError when the reference has no pair of loads anywhere: without A/A differences no
    noise floor exists.
    """
    if not differences:
        raise InvalidArtifactError(
            f"reference {reference_id} has no pair of loads with {MIN_ROUNDS} common rounds; "
            "load it twice a batch"
        )
    variance = load_variance(loads, differences)
    groups = _by_model(loads)
    ratios = {name: combine_loads(group, variance) for name, group in groups.items()}
    if reference is not None:
        ratios[reference_id] = reference
    names = sorted(ratios)
    return RatioEstimates(
        reference_id=reference_id,
        ratios={name: ratios[name] for name in names},
        covariance=_covariance([groups.get(name, []) for name in names], variance),
        load_variance=variance,
        noise_floor=noise_floor(differences),
        differences=tuple(differences),
    )


def _covariance(groups: Sequence[Sequence[LoadRatio]], variance: LoadVariance) -> Floats:
    """Covariance of the combined log ratios: the reference's loads and samples are shared within a
    session."""
    columns: dict[tuple[int, int], int] = {}
    for group in groups:
        for load in group:
            columns.setdefault((load.batch, load.segment), len(columns))
    weights = np.zeros((len(groups), len(columns)))
    shared = np.full(len(columns), np.inf)
    own = np.zeros(len(groups))
    for row, group in enumerate(groups):
        if not group:
            continue
        _, total = _values_and_variances(group, variance)
        share = (1.0 / total) / (1.0 / total).sum()
        for load, part, whole in zip(group, share, total, strict=True):
            column = columns[load.batch, load.segment]
            common = min((load.loads_each - 1.0) * variance.sd**2 + load.shared_variance, whole)
            weights[row, column] += part
            shared[column] = min(shared[column], common)
            own[row] += part**2 * (whole - common)
    return np.asarray((weights * shared) @ weights.T + np.diag(own))
