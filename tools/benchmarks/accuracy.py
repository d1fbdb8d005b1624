"""How well networks of `autovit-xxs` are predicted, by a LUT's joint fit and by every cheaper way.

All ways learn from the same observations and give costs that add up.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
from matplotlib.lines import Line2D
from scipy.optimize import nnls

from luts.estimate.design import TYPICAL_DEVICE
from luts.estimate.joint import fit_entries
from luts.estimate.latencies import LatencyEstimates
from luts.estimate.likelihood import FitData
from luts.estimate.sources import SourceEntries
from luts.estimate.statistics import kendall_tau, mape, relative_errors, share_within
from luts.format.errors import UsageError
from luts.format.lut import Lut
from luts.format.provenance import ROOT
from luts.format.schema import Floats, KeyFeatures, MeasuredModel
from luts.format.store import read_lut
from orchestrator.export.artifacts.spec import Variant
from orchestrator.journal.log import read_log, samples_table
from orchestrator.journal.runs import Run, runs_root
from orchestrator.measure.engine import EngineOptions, ModelSet
from orchestrator.measure.session import measure
from orchestrator.plan.build import choose_design, make_plan
from orchestrator.plan.plan import Plan, Policy, features_of, model_id
from orchestrator.report.draw import BLUE, GREEN, MUTED, ORANGE, PINK, RED, SKY, figure, legend
from orchestrator.tasks.models import model_files
from orchestrator.tasks.progress import steps
from orchestrator.tasks.target import Target
from search.blocks import BlockSpec
from search.spaces import get_space
from tools.benchmarks.shared import bench, entries_of, predicted_ms
from tools.tables import Tables, log

Value = TypeVar("Value")
Row = dict[str, Any]

SPACE = "autovit-xxs"
THREADS = (1, 2)
DESIGN, HELDOUT = 64, 50
PROFILE = f"profile --device host --space {SPACE} --budget 1m --removals all --narrow 0 --from none --reuse"
ALONE_POLICY = Policy(batch_models=24, max_rounds=30, min_passes=3, max_passes=3)
"""Blocks alone take a hundredth of a network, so many share the reference's rounds; more rounds would only narrow
what is far below the error of their sum."""
FEW = 20
CURVE = (6, 8, 10, 12, 16, 20, 25, 30, 40, 50, 60, 80, 100, 120, 150, 200)
"""Numbers of measurements at which learning curves have a point, in addition to their end."""
TARGETS = (2, 1)
"""Errors in percent to which measurements are counted."""
PERFECT_DRAWS = 4000
"""Draws of the noise that a perfect predictor would meet."""
PICTURE = ROOT / "docs" / "pictures" / "accuracy.png"


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
        models = tuple(self.models[row] for row in kept)
        return replace(self, models=models, log_covariance=self.log_covariance[np.ix_(kept, kept)])

    def of(self, names: Collection[str]) -> Observations:
        """Return the observations of these models, and of blocks with these keys alone."""
        kept = self.only(lambda model: model.model_id in names)
        return replace(kept, alone_ms={key: ms for key, ms in self.alone_ms.items() if key in names})


def macs_linear(observed: Observations) -> SourceEntries:
    """Fit a constant and a price per MAC, attention's products included."""
    return _linear(observed, "macs")


def sum_blocks(observed: Observations) -> SourceEntries:
    """Sum blocks measured alone, as once-for-all (Cai et al. 2020) and FBNet (Wu et al. 2019) do.

    A block that was not measured costs as much per MAC as those that were.
    """
    macs = sum(observed.features[key].macs for key in observed.alone_ms)
    return _completed(observed, observed.alone_ms, sum(observed.alone_ms.values()) / macs)


def sum_removals(observed: Observations) -> SourceEntries:
    """Sum latency drops by removal (AutoViT, section 3.3.2), averaged where a block was removed twice.

    The paper leaves open what blocks cost that cannot be removed (stem, changes of width, head). Here they share,
    in proportion to their MACs, what removals leave of their networks; so do blocks without a measured removal.
    """
    bases = {model.model_id: model for model in observed.models if model.role in ("reference", "base")}
    drops: dict[str, list[float]] = {}
    for model in observed.models:
        if model.role == "removal" and model.base_id in bases:
            drops.setdefault(model.removed_key, []).append(bases[model.base_id].ms - model.ms)
    cost = {key: float(np.mean(values)) for key, values in drops.items()}
    left_ms = left_macs = 0.0
    for base in bases.values():
        left_ms += base.ms - sum(cost.get(key, 0.0) for key in base.blocks)
        left_macs += sum(observed.features[key].macs for key in base.blocks if key not in cost)
    return _completed(observed, cost, left_ms / left_macs if left_macs else 0.0)


def fit_design(observed: Observations) -> SourceEntries:
    """Fit the reference and the randomised networks of the design jointly."""
    return fit_joint(observed.only(lambda model: model.role in ("reference", "design")))


def fit_joint(observed: Observations) -> SourceEntries:
    """Fit all networks jointly, as a LUT does."""
    fitted = observed.only(lambda model: model.fitted)
    return entries_of(
        "joint", fit_entries(FitData.of(fitted.models, fitted.log_covariance), observed.features)
    )


def _linear(observed: Observations, cost: str) -> SourceEntries:
    """Fit a constant and a price per `cost`, a field of `KeyFeatures`, to networks that are not removals.

    By least squares of relative errors with coefficients >= 0.
    """
    size = {key: getattr(feature, cost) for key, feature in observed.features.items()}
    whole = [model for model in observed.models if model.fitted and model.role != "removal"]
    system = np.array([[1.0, sum(size[key] for key in model.blocks)] for model in whole])
    unit = np.maximum(system.mean(axis=0), 1.0)
    target = np.array([model.ms for model in whole])
    constant, slope = nnls(system / unit / target[:, None], np.ones(len(whole)))[0] / unit
    return SourceEntries("linear", {key: float(slope * n) for key, n in size.items()}, float(constant))


def _completed(observed: Observations, known_ms: Mapping[str, float], ms_per_mac: float) -> SourceEntries:
    features = observed.features.items()
    return SourceEntries("sum", {key: known_ms.get(key, ms_per_mac * each.macs) for key, each in features})


ESTIMATORS: Mapping[str, tuple[Callable[[Observations], SourceEntries], str]] = {
    "MACs, linear": (macs_linear, PINK),
    "parameters, linear": (partial(_linear, cost="params"), RED),
    "blocks measured alone, sum": (sum_blocks, ORANGE),
    "removals, sum": (sum_removals, SKY),
    "design": (fit_design, GREEN),
    "joint": (fit_joint, BLUE),
}
"""Functions and colours by name."""


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
        estimates = LatencyEstimates.of(lut.samples, lut.meta.reference_id)
        row = {name: number for number, name in enumerate(estimates.ratios)}
        models = sorted(lut.models, key=lambda model: position[model.model_id])
        fitted, heldout = (tuple(m for m in models if m.split == split) for split in ("fit", "heldout"))
        used, kept = ([row[model.model_id] for model in group] for group in (fitted, heldout))
        observed = Observations(fitted, estimates.covariance[np.ix_(used, used)], alone_ms, features)
        seconds = device_seconds(lut.samples, lut.meta.reference_id, int(lut.meta.policy["settle_runs"]))
        covariance = estimates.covariance[np.ix_(kept, kept)]
        return cls(observed, heldout, covariance, _orders(observed), seconds | dict(alone_seconds))

    def score(self, name: str, count: int) -> Row:
        """Return the errors on the held-out networks after the first `count` of an estimator's measurements."""
        used = set(self.orders[name][:count])
        costs = ESTIMATORS[name][0](self.observed.of(used))
        predicted = predicted_ms(costs, FitData.of(self.heldout, self.heldout_covariance))
        minutes = sum(self.seconds[each] for each in used) / 60
        return {"estimator": name, "measurements": len(used), "minutes": minutes} | errors(
            [model.ms for model in self.heldout], predicted.tolist()
        )

    def perfect(self) -> Row:
        """Return what true latencies would score: the measurement errors of the held-out networks, over draws."""
        true = np.array([model.ms for model in self.heldout])
        noise = np.random.default_rng(0).multivariate_normal(
            np.zeros(len(true)), self.heldout_covariance, PERFECT_DRAWS
        )
        drawn = pd.DataFrame([errors(true.tolist(), (true * np.exp(draw)).tolist()) for draw in noise])
        return {"estimator": "perfect predictor", **{str(name): mean for name, mean in drawn.mean().items()}}


def errors(measured: Sequence[float], predicted: Sequence[float]) -> Row:
    """Return the measures of error of predictions, in percent but for Kendall's tau."""
    return {
        "MAPE, %": 100 * mape(measured, predicted),
        **{f"within {t} %": 100 * share_within(measured, predicted, t / 100) for t in (2, 5, 10)},
        "worst, %": 100 * float(np.abs(relative_errors(measured, predicted)).max()),
        "Kendall's tau": kendall_tau(measured, predicted),
    }


def _orders(observed: Observations) -> dict[str, tuple[str, ...]]:
    """Return designs before removals and swaps, since they teach more each; blocks alone in a shuffled order."""
    fitted = observed.models
    reference = [model for model in fitted if model.role == "reference"]
    chosen = [model for model in fitted if model.role == "design"]
    order = choose_design(
        observed.features,
        TYPICAL_DEVICE,
        measured=[model.blocks for model in reference],
        candidates=[model.blocks for model in chosen],
        count=len(chosen),
    )
    names = [model.model_id for model in (*reference, *(chosen[index] for index in order))]
    others = [model for model in fitted if model.role not in ("reference", "design")]
    whole = (*names, *(model.model_id for model in others if model.role != "removal"))
    dropped = [model.model_id for model in others if model.role in ("base", "removal")]
    shuffled = sorted(observed.alone_ms, key=lambda key: hashlib.sha256(key.encode()).digest())
    return {
        "MACs, linear": whole,
        "parameters, linear": whole,
        "blocks measured alone, sum": tuple(shuffled),
        "removals, sum": (*names[: len(reference)], *dropped),
        "design": tuple(names),
        "joint": (*names, *(model.model_id for model in others)),
    }


def device_seconds(samples: pa.Table, reference: str, settle_runs: int) -> dict[str, float]:
    """Return the running time of every model in seconds: samples, settle runs, a part of the reference's time.

    Loads, and pauses of a throttled device, are not included.
    """
    total = samples.select(["model", "ns"]).to_pandas().groupby("model")["ns"].sum()
    others = total.drop(reference)
    factor = (1 + settle_runs) * (1 + total[reference] / others.sum()) / 1e9
    return {**(others * factor).to_dict(), reference: 0.0}


def reached(curve: Sequence[Row], target: float) -> Row | None:
    """Return the first point from which on a curve stays at or below `target`; None if its end is above."""
    found = None
    for point in reversed(curve):
        if point["MAPE, %"] > target:
            break
        found = point
    return found


def main() -> Tables:
    """Profile with one and two threads, measure all blocks alone, and compare on held-out networks.

    Finished runs are reused and interrupted runs resumed. `measurements` are whole networks, or blocks alone;
    networks of the design come first, then removals and swaps. Minutes are of the device running models.
    """
    plan = make_plan(get_space(SPACE), design=DESIGN, heldout=HELDOUT)
    tables: dict[str, Sequence[Row]] = {}
    curves: dict[str, tuple[Mapping[str, Sequence[Row]], float]] = {}
    for threads in THREADS:
        printed = bench(f"{PROFILE} --threads {threads} --design {DESIGN} --heldout {HELDOUT} --json")
        lut = read_lut(Path(json.loads(printed)["path"]))
        campaign, variant = _campaign(lut, plan, Target("host", threads=threads)), lut.meta.variant
        curve = {
            name: [
                campaign.score(name, n) for n in sorted({*(n for n in CURVE if n < len(order)), len(order)})
            ]
            for name, order in campaign.orders.items()
        }
        perfect = campaign.perfect()
        curves[variant] = curve, perfect["MAPE, %"]
        rows = [
            campaign.score(name, count)
            for name, order in campaign.orders.items()
            for count in sorted({min(FEW, len(order)), math.ceil(len(order) / 2), len(order)})
        ]
        second = {"estimator": "second load of a network", "MAPE, %": 100 * lut.meta.noise_floor}
        tables[f"Errors on held-out networks, {variant}"] = [*rows, perfect, second]
        tables[f"Measurements to an error, {variant}"] = [
            {"MAPE of at most, %": target, "estimator": name}
            | {column: found and found[column] for column in ("measurements", "minutes")}
            for target in TARGETS
            for name, points in curve.items()
            for found in [reached(points, target)]
        ]
    _draw(curves)
    return tables


def _campaign(lut: Lut, plan: Plan, target: Target) -> Campaign:
    specs = get_space(SPACE).block_specs(plan.resolutions)
    run = _measured_alone(lut, plan, [spec.key for spec in specs], target)
    samples, reference = samples_table(read_log(run.journal)), lut.meta.reference_id
    ratios = _by_key(LatencyEstimates.of(samples, reference).ratios, specs)
    alone_ms = {key: lut.meta.reference_ms * math.exp(ratio.log_ratio) for key, ratio in ratios.items()}
    seconds = _by_key(device_seconds(samples, reference, ALONE_POLICY.settle_runs), specs)
    return Campaign.of(lut, plan, features_of(specs), alone_ms, seconds)


def _by_key(values: Mapping[str, Value], specs: Sequence[BlockSpec]) -> dict[str, Value]:
    """Return values by block key, which journals know by the id of a network of one block."""
    return {spec.key: values[model_id([spec.key])] for spec in specs}


def _measured_alone(lut: Lut, plan: Plan, keys: Sequence[str], target: Target) -> Run:
    """Measure every block of the space alone, next to the LUT's own reference, once for each LUT."""
    variant, reference = Variant.parse(lut.meta.variant), plan.reference
    specs = {model_id([key]): variant.export_spec((key,)) for key in keys}
    specs[reference.model_id] = variant.export_spec(reference.blocks)
    files = model_files(variant, specs, progress=log)
    identity = hashlib.sha256(f"{lut.meta.created}:{reference.model_id}".encode()).hexdigest()[:12]
    run = Run(runs_root() / f"alone-{variant.name}-{identity}")
    if run.result is None:
        subject = ModelSet(files, reference.model_id, identity.ljust(64, "0"), seed=0)
        options = EngineOptions(math.inf, progress=steps(log))
        with target.found() as device:
            measure(device, variant, subject, run.journal, ALONE_POLICY, options)
        run.finish("blocks measured alone")
    return run


def _draw(curves: Mapping[str, tuple[Mapping[str, Sequence[Row]], float]]) -> None:
    with figure(440 * len(curves), 380) as drawn:
        panels = drawn.subplots(1, len(curves), sharey=True, squeeze=False)[0]
        for panel, (variant, (curve, perfect)) in zip(panels, curves.items(), strict=True):
            for name, points in curve.items():
                x, y = ([point[column] for point in points] for column in ("measurements", "MAPE, %"))
                panel.plot(x, y, marker="o", markersize=3, color=ESTIMATORS[name][1])
            panel.axhline(perfect, color=MUTED, linestyle="--")
            panel.set(xscale="log", yscale="log", xlabel="measurements", title=variant)
            panel.xaxis.set_major_formatter("{x:.0f}")
            panel.yaxis.set_major_formatter("{x:g}")
            panel.grid(axis="y", which="both")
        panels[0].set_ylabel("MAPE on held-out networks, %")
        lines = [Line2D([], [], color=colour, label=name) for name, (_, colour) in ESTIMATORS.items()]
        lines.append(Line2D([], [], color=MUTED, linestyle="--", label="perfect predictor"))
        legend(drawn, lines, 440 * len(curves))
        drawn.savefig(PICTURE, dpi=144, facecolor="white")
