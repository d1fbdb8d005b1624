"""Estimators on the first measurements of a plan: pure, from a LUT's own models and samples."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from luts.estimate.design import TYPICAL_DEVICE
from luts.estimate.latencies import LatencyEstimates
from luts.estimate.statistics import kendall_tau, mape, relative_errors, share_within
from luts.format.errors import UsageError
from luts.format.lut import Lut
from luts.format.schema import KeyFeatures, MeasuredModel
from orchestrator.plan.build import choose_design
from orchestrator.plan.plan import Plan
from tools.benchmarks._baselines import ESTIMATORS, Observations

SHARES = (0.25, 0.5, 1.0)
FEW = 20
CURVE = (6, 8, 10, 12, 16, 20, 25, 30, 40, 50, 60, 80, 100, 120, 150, 200)
"""Numbers of measurements at which learning curves have a point, besides their end."""
TOLERANCES = (0.02, 0.05, 0.10)
DRAWS = 4000
"""Of the noise that a perfect predictor would meet."""

ALONE = "blocks measured alone, sum"


@dataclass(frozen=True)
class Score:
    """Errors on the held-out networks after `used` measurements that took `minutes` of the device."""

    used: int
    minutes: float
    mape: float
    within: tuple[float, ...]
    worst: float
    kendall_tau: float | None


@dataclass(frozen=True)
class Campaign:
    """All that was measured for one variant: what may be fitted, what is held out, and what each took.

    `orders`: by estimator, its measurements in the order in which they would have been made. `seconds`: of device
    time by measurement, models and blocks alike.
    """

    observed: Observations
    heldout: tuple[MeasuredModel, ...]
    heldout_covariance: np.ndarray
    orders: Mapping[str, tuple[str, ...]]
    seconds: Mapping[str, float]


def campaign(
    lut: Lut,
    plan: Plan,
    features: Mapping[str, KeyFeatures],
    alone_ms: Mapping[str, float],
    alone_seconds: Mapping[str, float],
) -> Campaign:
    """A LUT's measurements in the order of the plan that they were made by, beside blocks measured alone.

    Raises UsageError where the LUT is of another plan.
    """
    place = {model.model_id: number for number, model in enumerate(plan.models)}
    foreign = [model.model_id for model in lut.models if model.model_id not in place]
    if foreign:
        raise UsageError(
            f"the LUT holds {foreign[0]}, which the plan does not; profile as this benchmark does"
        )
    estimates = LatencyEstimates.of(lut.samples, lut.meta.reference_id).ratios
    row = {name: number for number, name in enumerate(estimates.ratios)}
    models = sorted(lut.models, key=lambda model: place[model.model_id])
    fitted = tuple(model for model in models if model.split == "fit")
    heldout = tuple(model for model in models if model.split == "heldout")
    used, kept = ([row[model.model_id] for model in group] for group in (fitted, heldout))
    covariance = estimates.covariance
    observed = Observations(fitted, covariance[np.ix_(used, used)], alone_ms, features)
    settled = 1 + int(lut.meta.policy["settle_runs"])
    seconds = device_seconds(lut.samples, lut.meta.reference_id, settled) | dict(alone_seconds)
    return Campaign(observed, heldout, covariance[np.ix_(kept, kept)], _orders(observed), seconds)


def _orders(observed: Observations) -> dict[str, tuple[str, ...]]:
    """Design models before removals and swaps, since they teach more each; blocks alone in no order.

    The plan chose its design models beside removals; here they come in the order in which a plan without any
    would choose them from each other.
    """
    fitted, alone_ms = observed.models, observed.alone_ms
    reference = [model.model_id for model in fitted if model.role == "reference"]
    chosen = [model for model in fitted if model.role == "design"]
    first = [model.blocks for model in fitted if model.role == "reference"]
    candidates = [model.blocks for model in chosen]
    order = choose_design(
        observed.features, TYPICAL_DEVICE, measured=first, candidates=candidates, count=len(candidates)
    )
    designs = [chosen[position].model_id for position in order]
    others = [model for model in fitted if model.role not in ("reference", "design")]
    architectures = (*reference, *designs, *(model.model_id for model in others if model.role != "removal"))
    dropped = [model.model_id for model in others if model.role in ("base", "removal")]
    orders = dict.fromkeys(("MACs, linear", "parameters, linear"), architectures)
    shuffled = sorted(alone_ms, key=lambda key: hashlib.sha256(key.encode()).digest())
    return orders | {
        ALONE: tuple(shuffled),
        "removals, sum": (*reference, *dropped),
        "design": (*reference, *designs),
        "joint": (*reference, *designs, *(model.model_id for model in others)),
    }


def device_seconds(samples: pa.Table, reference: str, runs_each: int) -> dict[str, float]:
    """Seconds of running by model: its samples, the settle runs before each, and its share of the reference's.

    Loads and the pauses of a throttled device are not in it.
    """
    grouped = samples.group_by("model").aggregate([("ns", "sum")])
    total = dict(zip(grouped.column("model").to_pylist(), grouped.column("ns_sum").to_pylist(), strict=True))
    others = sum(ns for name, ns in total.items() if name != reference)
    share = runs_each * (1 + total[reference] / others) / 1e9
    return {name: ns * share for name, ns in total.items() if name != reference} | {reference: 0.0}


def score(measured: Campaign, name: str, count: int) -> Score:
    """The estimator `name` after the first `count` of its measurements."""
    used = set(measured.orders[name][:count])
    chosen = measured.observed.without(
        {model.model_id for model in measured.observed.models} - used,
        set(measured.observed.alone_ms) - used,
    )
    costs = ESTIMATORS[name](chosen)
    truth = [model.ms for model in measured.heldout]
    guess = [costs.predict(model.blocks, model.boundary_bytes) for model in measured.heldout]
    return Score(
        used=len(used),
        minutes=sum(measured.seconds[name] for name in used) / 60,
        mape=mape(truth, guess),
        within=tuple(share_within(truth, guess, tolerance) for tolerance in TOLERANCES),
        worst=float(np.abs(relative_errors(truth, guess)).max()),
        kendall_tau=kendall_tau(truth, guess),
    )


def perfect(measured: Campaign) -> Score:
    """What true latencies would score: the held-out networks' own measurement errors, on average over draws."""
    generator = np.random.default_rng(0)
    noise = generator.multivariate_normal(np.zeros(len(measured.heldout)), measured.heldout_covariance, DRAWS)
    errors = np.abs(np.expm1(noise))
    truth = np.array([model.ms for model in measured.heldout])
    taus = [kendall_tau((truth * np.exp(draw)).tolist(), truth.tolist()) for draw in noise[:200]]
    return Score(
        used=0,
        minutes=0.0,
        mape=float(errors.mean()),
        within=tuple(float((errors <= tolerance).mean()) for tolerance in TOLERANCES),
        worst=float(errors.max(axis=1).mean()),
        kendall_tau=float(np.mean([tau for tau in taus if tau is not None])),
    )


def counts(total: int) -> list[int]:
    """Numbers of measurements that the table tells: the shares, each rounded up."""
    return [math.ceil(share * total) for share in SHARES]


def curve(measured: Campaign, name: str) -> list[Score]:
    """The estimator's errors against its measurements."""
    total = len(measured.orders[name])
    return [score(measured, name, count) for count in (*(c for c in CURVE if c < total), total)]


def reached(scores: Sequence[Score], target: float) -> Score | None:
    """The first point of a curve from which on it stays at or below `target`; None where its end is above."""
    found = None
    for point in reversed(scores):
        if point.mape > target:
            break
        found = point
    return found
