"""Ways to price networks from measurements, and their errors on held-out networks after a number of measurements.

All learn from the same observations and give costs that add up. `joint` is the LUT's own fit; the others are the
cheaper ways that it has to beat.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from scipy.optimize import nnls

from luts.estimate.design import TYPICAL_DEVICE
from luts.estimate.joint import fit_entries
from luts.estimate.latencies import LatencyEstimates
from luts.estimate.likelihood import FitData
from luts.estimate.statistics import kendall_tau, mape, relative_errors, share_within
from luts.format.errors import UsageError
from luts.format.latency import latency_ms
from luts.format.lut import Lut
from luts.format.schema import Floats, KeyFeatures, MeasuredModel
from orchestrator.plan.build import choose_design
from orchestrator.plan.plan import Plan

TOLERANCES = (0.02, 0.05, 0.10)
DRAWS = 4000
"""Draws of the noise that a perfect predictor would meet."""


@dataclass(frozen=True)
class Observations:
    """What an estimator may learn from.

    Attributes:
        models: Measured networks.
        log_covariance: (m, m), of their log latencies, in the same order.
        alone_ms: Milliseconds of blocks measured alone, by key.
        features: Features of all keys of the space.
    """

    models: tuple[MeasuredModel, ...]
    log_covariance: Floats
    alone_ms: Mapping[str, float]
    features: Mapping[str, KeyFeatures]

    def only(self, wanted: Callable[[MeasuredModel], bool]) -> Observations:
        """Return the observations of models for which `wanted` holds."""
        kept = [row for row, model in enumerate(self.models) if wanted(model)]
        return replace(
            self,
            models=tuple(self.models[row] for row in kept),
            log_covariance=self.log_covariance[np.ix_(kept, kept)],
        )

    def of(self, names: Collection[str]) -> Observations:
        """Return the observations of these models, and of blocks with these keys alone."""
        kept = self.only(lambda model: model.model_id in names)
        return replace(kept, alone_ms={key: ms for key, ms in self.alone_ms.items() if key in names})


@dataclass(frozen=True)
class Costs:
    """Learned costs in milliseconds; every key of the space has one."""

    entry_ms: Mapping[str, float]
    base_ms: float = 0.0
    transfer_ms_per_mib: float = 0.0

    def predict(self, blocks: Sequence[str], boundary_bytes: int) -> float:
        """Return the latency of a network in ms. Raises UsageError for an unknown block."""
        return latency_ms(self.entry_ms, self.base_ms, self.transfer_ms_per_mib, blocks, boundary_bytes)


def macs_linear(observed: Observations) -> Costs:
    """Fit a constant and a price per MAC, attention's products included."""
    return _linear(observed, {key: feature.macs for key, feature in observed.features.items()})


def parameters_linear(observed: Observations) -> Costs:
    """Fit a constant and a price per parameter."""
    return _linear(observed, {key: feature.params for key, feature in observed.features.items()})


def blocks_alone(observed: Observations) -> Costs:
    """Sum blocks measured alone, as once-for-all (Cai et al. 2020) and FBNet (Wu et al. 2019) do.

    A block that was not measured costs as much per MAC as those that were.

    Raises:
        UsageError: no block was measured alone.
    """
    if not observed.alone_ms:
        raise UsageError("no block was measured alone; measure some", code="no_measurements")
    macs = sum(observed.features[key].macs for key in observed.alone_ms)
    return _completed(observed, observed.alone_ms, sum(observed.alone_ms.values()) / macs)


def removals(observed: Observations) -> Costs:
    """Sum latency drops by removal (AutoViT, section 3.3.2), averaged where a block was removed twice.

    The paper leaves open what blocks cost that cannot be removed (stem, changes of width, head). Here they share,
    in proportion to their MACs, what removals leave of their networks; so do blocks without a measured removal.

    Raises:
        UsageError: no base of a removal was measured.
    """
    by_id = {model.model_id: model for model in observed.models}
    bases = sorted(model.model_id for model in observed.models if model.role in ("reference", "base"))
    if not bases:
        raise UsageError("no base of removals was measured; measure one", code="no_measurements")
    drops: dict[str, list[float]] = {}
    for model in observed.models:
        if model.role == "removal" and model.base_id in bases:
            drops.setdefault(model.removed_key, []).append(by_id[model.base_id].ms - model.ms)
    cost = {key: float(np.mean(values)) for key, values in drops.items()}
    left_ms = left_macs = 0.0
    for name in bases:
        left_ms += by_id[name].ms - sum(cost.get(key, 0.0) for key in by_id[name].blocks)
        left_macs += sum(observed.features[key].macs for key in by_id[name].blocks if key not in cost)
    return _completed(observed, cost, left_ms / left_macs if left_macs else 0.0)


def design(observed: Observations) -> Costs:
    """Fit the reference and the randomised networks of the design jointly."""
    return joint(observed.only(lambda model: model.role in ("reference", "design")))


def joint(observed: Observations) -> Costs:
    """Fit all networks jointly, as a LUT does."""
    fitted = observed.only(lambda model: model.fitted)
    fit = fit_entries(FitData.of(fitted.models, fitted.log_covariance), observed.features)
    return Costs(dict(zip(fit.keys, fit.ms.tolist(), strict=True)), fit.base_ms, fit.transfer_ms_per_mib)


ESTIMATORS: Mapping[str, Callable[[Observations], Costs]] = {
    "MACs, linear": macs_linear,
    "parameters, linear": parameters_linear,
    "blocks measured alone, sum": blocks_alone,
    "removals, sum": removals,
    "design": design,
    "joint": joint,
}


def _linear(observed: Observations, size: Mapping[str, int]) -> Costs:
    """Return least squares of relative errors with coefficients >= 0, over networks that are not removals."""
    whole = [model for model in observed.models if model.fitted and model.role != "removal"]
    system = np.array([[1.0, sum(size[key] for key in model.blocks)] for model in whole])
    unit = np.maximum(system.mean(axis=0), 1.0)
    target = np.array([model.ms for model in whole])
    constant, slope = nnls(system / unit / target[:, None], np.ones(len(whole)))[0] / unit
    return Costs({key: float(slope * amount) for key, amount in size.items()}, float(constant))


def _completed(observed: Observations, known_ms: Mapping[str, float], ms_per_mac: float) -> Costs:
    return Costs(
        {key: known_ms.get(key, ms_per_mac * feature.macs) for key, feature in observed.features.items()}
    )


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
    """All measurements of one variant.

    Attributes:
        observed: What may be fitted.
        heldout: Networks that judge.
        heldout_covariance: Of their log latencies.
        orders: By estimator, its measurements in the order in which they would have been made.
        seconds: Device time of every model, and of every block alone.
    """

    observed: Observations
    heldout: tuple[MeasuredModel, ...]
    heldout_covariance: Floats
    orders: Mapping[str, tuple[str, ...]]
    seconds: Mapping[str, float]

    @classmethod
    def of(
        cls,
        lut: Lut,
        plan: Plan,
        features: Mapping[str, KeyFeatures],
        alone_ms: Mapping[str, float],
        alone_seconds: Mapping[str, float],
    ) -> Campaign:
        """Sort a LUT's measurements, and blocks measured alone, in the order of the plan.

        Raises:
            UsageError: the LUT is of another plan.
        """
        position = {model.model_id: number for number, model in enumerate(plan.models)}
        if unknown := [model.model_id for model in lut.models if model.model_id not in position]:
            raise UsageError(
                f"network {unknown[0]} of the LUT is not in the plan; profile as this benchmark does",
                code="other_plan",
            )
        ratios = LatencyEstimates.of(lut.samples, lut.meta.reference_id).ratios
        row = {name: number for number, name in enumerate(ratios.ratios)}
        models = sorted(lut.models, key=lambda model: position[model.model_id])
        fitted, heldout = (tuple(m for m in models if m.split == split) for split in ("fit", "heldout"))
        used, kept = ([row[model.model_id] for model in group] for group in (fitted, heldout))
        observed = Observations(fitted, ratios.covariance[np.ix_(used, used)], alone_ms, features)
        settle_runs = 1 + int(lut.meta.policy["settle_runs"])
        seconds = device_seconds(lut.samples, lut.meta.reference_id, settle_runs) | dict(alone_seconds)
        return cls(observed, heldout, ratios.covariance[np.ix_(kept, kept)], _orders(observed), seconds)

    def score(self, name: str, count: int) -> Score:
        """Return the errors of an estimator after the first `count` of its measurements."""
        used = set(self.orders[name][:count])
        costs = ESTIMATORS[name](self.observed.of(used))
        truth = [model.ms for model in self.heldout]
        predicted = [costs.predict(model.blocks, model.boundary_bytes) for model in self.heldout]
        return Score(
            used=len(used),
            minutes=sum(self.seconds[each] for each in used) / 60,
            mape=mape(truth, predicted),
            within=tuple(share_within(truth, predicted, tolerance) for tolerance in TOLERANCES),
            worst=float(np.abs(relative_errors(truth, predicted)).max()),
            kendall_tau=kendall_tau(truth, predicted),
        )

    def perfect(self) -> Score:
        """Return what true latencies would score: the measurement errors of the held-out networks, over draws."""
        generator = np.random.default_rng(0)
        noise = generator.multivariate_normal(np.zeros(len(self.heldout)), self.heldout_covariance, DRAWS)
        errors = np.abs(np.expm1(noise))
        truth = np.array([model.ms for model in self.heldout])
        taus = [kendall_tau((truth * np.exp(draw)).tolist(), truth.tolist()) for draw in noise[:200]]
        return Score(
            used=0,
            minutes=0.0,
            mape=float(errors.mean()),
            within=tuple(float((errors <= tolerance).mean()) for tolerance in TOLERANCES),
            worst=float(errors.max(axis=1).mean()),
            kendall_tau=float(np.mean([tau for tau in taus if tau is not None])),
        )


def _orders(observed: Observations) -> dict[str, tuple[str, ...]]:
    """Return designs before removals and swaps, since they teach more each; blocks alone in a shuffled order."""
    fitted = observed.models
    reference = [model for model in fitted if model.role == "reference"]
    chosen = [model for model in fitted if model.role == "design"]
    candidates = [model.blocks for model in chosen]
    order = choose_design(
        observed.features,
        TYPICAL_DEVICE,
        measured=[model.blocks for model in reference],
        candidates=candidates,
        count=len(candidates),
    )
    names = [model.model_id for model in reference] + [chosen[index].model_id for index in order]
    others = [model for model in fitted if model.role not in ("reference", "design")]
    whole = (*names, *(model.model_id for model in others if model.role != "removal"))
    dropped = [model.model_id for model in others if model.role in ("base", "removal")]
    return {
        "MACs, linear": whole,
        "parameters, linear": whole,
        "blocks measured alone, sum": tuple(
            sorted(observed.alone_ms, key=lambda key: hashlib.sha256(key.encode()).digest())
        ),
        "removals, sum": (*names[: len(reference)], *dropped),
        "design": tuple(names),
        "joint": (*names, *(model.model_id for model in others)),
    }


def device_seconds(samples: pa.Table, reference: str, runs_each: int) -> dict[str, float]:
    """Return the running time of every model in seconds: samples, settle runs, a part of the reference's time.

    Loads, and pauses of a throttled device, are not included.
    """
    grouped = samples.group_by("model").aggregate([("ns", "sum")])
    total = dict(zip(grouped.column("model").to_pylist(), grouped.column("ns_sum").to_pylist(), strict=True))
    others = sum(ns for name, ns in total.items() if name != reference)
    factor = runs_each * (1 + total[reference] / others) / 1e9
    return {name: ns * factor for name, ns in total.items() if name != reference} | {reference: 0.0}


def reached(scores: Sequence[Score], target: float) -> Score | None:
    """Return the first point from which on a curve stays at or below `target`; None if its end is above."""
    found = None
    for point in reversed(scores):
        if point.mape > target:
            break
        found = point
    return found
