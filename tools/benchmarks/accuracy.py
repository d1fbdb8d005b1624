"""How well networks of `autovit-xxs` are predicted, by what a LUT ships and by every cheaper way."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from luts.estimate.latencies import LatencyEstimates
from luts.format.lut import Lut
from luts.format.provenance import ROOT
from luts.format.store import read_lut
from orchestrator.export.artifacts.spec import Variant
from orchestrator.journal.log import read_log, samples_table
from orchestrator.journal.runs import Run, runs_root
from orchestrator.measure.engine import EngineOptions, ModelSet
from orchestrator.measure.session import measure
from orchestrator.plan.build import make_plan
from orchestrator.plan.plan import Plan, Policy, features_of, model_id
from orchestrator.report.draw import BLUE, GREEN, MUTED, ORANGE, PINK, RED, SKY, figure, legend
from orchestrator.tasks.models import model_files
from orchestrator.tasks.progress import steps
from orchestrator.tasks.target import Target
from search.blocks import BlockSpec
from search.spaces import get_space
from tools.benchmarks.estimators import ESTIMATORS, Campaign, Score, device_seconds, reached
from tools.benchmarks.shared import bench
from tools.tables import Tables, log

Value = TypeVar("Value")

SPACE = "autovit-xxs"
THREADS = (1, 2)
DESIGN, HELDOUT = 64, 50
PROFILE = f"profile --device host --space {SPACE} --budget 1m --removals all --narrow 0 --from none --reuse"
ALONE_POLICY = Policy(batch_models=24, max_rounds=30, min_passes=3, max_passes=3)
"""Blocks alone take a hundredth of a network, so many share the reference's rounds; more rounds would only narrow
what is far below the error of their sum."""
FEW, FRACTIONS = 20, (0.25, 0.5, 1.0)
CURVE = (6, 8, 10, 12, 16, 20, 25, 30, 40, 50, 60, 80, 100, 120, 150, 200)
"""Numbers of measurements at which learning curves have a point, in addition to their end."""
TARGETS = (0.02, 0.01)
PICTURE = ROOT / "docs" / "pictures" / "accuracy.png"
COLOURS = dict(zip(ESTIMATORS, (PINK, RED, ORANGE, SKY, GREEN, BLUE), strict=True))


def main() -> Tables:
    """Profile with one and two threads, measure all blocks alone, and compare on held-out networks.

    Finished runs are reused and interrupted runs resumed. `measurements` are whole networks, or blocks alone;
    networks of the design come first, then removals and swaps. Minutes are of the device running models.
    """
    plan = make_plan(get_space(SPACE), design=DESIGN, heldout=HELDOUT)
    tables, curves = {}, {}
    for threads in THREADS:
        printed = bench(f"{PROFILE} --threads {threads} --design {DESIGN} --heldout {HELDOUT} --json")
        lut = read_lut(Path(json.loads(printed)["path"]))
        campaign, variant = _campaign(lut, plan, Target("host", threads=threads)), lut.meta.variant
        curve = {name: _curve(campaign, name) for name in ESTIMATORS}
        curves[variant] = curve, campaign.perfect().mape
        tables[f"Errors on held-out networks, {variant}"] = _rows(lut, campaign)
        tables[f"Measurements to an error, {variant}"] = _effort(curve)
    _draw(curves)
    return tables


def _campaign(lut: Lut, plan: Plan, target: Target) -> Campaign:
    specs = get_space(SPACE).block_specs(plan.resolutions)
    run = _measured_alone(lut, plan, [spec.key for spec in specs], target)
    samples, reference = samples_table(read_log(run.journal)), lut.meta.reference_id
    ratios = _by_key(LatencyEstimates.of(samples, reference).ratios.ratios, specs)
    alone_ms = {key: lut.meta.reference_ms * math.exp(ratio.log_ratio) for key, ratio in ratios.items()}
    seconds = _by_key(device_seconds(samples, reference, 1 + ALONE_POLICY.settle_runs), specs)
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
        with target.found() as device:
            measure(
                device,
                variant,
                subject,
                run.journal,
                ALONE_POLICY,
                EngineOptions(math.inf, progress=steps(log)),
            )
        run.finish("blocks measured alone")
    return run


def _curve(campaign: Campaign, name: str) -> list[Score]:
    total = len(campaign.orders[name])
    return [campaign.score(name, count) for count in (*(c for c in CURVE if c < total), total)]


def _rows(lut: Lut, campaign: Campaign) -> list[dict[str, object]]:
    rows = []
    for name in ESTIMATORS:
        total = len(campaign.orders[name])
        for count in sorted({min(FEW, total), *(math.ceil(f * total) for f in FRACTIONS)}):
            rows.append({"estimator": name, "measurements": count} | _errors(campaign.score(name, count)))
    rows.append({"estimator": "perfect predictor", "measurements": None} | _errors(campaign.perfect()))
    noise = 100 * lut.meta.noise_floor
    return [*rows, {"estimator": "second load of a network", "measurements": None, "MAPE, %": noise}]


def _errors(score: Score) -> dict[str, object]:
    within = {f"within {t} %": 100 * share for t, share in zip((2, 5, 10), score.within, strict=True)}
    return {
        "minutes": score.minutes or None,
        "MAPE, %": 100 * score.mape,
        **within,
        "worst, %": 100 * score.worst,
        "Kendall's tau": score.kendall_tau,
    }


def _effort(curves: Mapping[str, Sequence[Score]]) -> list[dict[str, object]]:
    rows = []
    for target in TARGETS:
        for name, curve in curves.items():
            found = reached(curve, target)
            rows.append(
                {
                    "MAPE of at most, %": 100 * target,
                    "estimator": name,
                    "measurements": found and found.used,
                    "minutes": found and found.minutes,
                }
            )
    return rows


def _draw(curves: Mapping[str, tuple[Mapping[str, Sequence[Score]], float]]) -> None:
    from matplotlib.lines import Line2D

    with figure(440 * len(curves), 380) as drawn:
        panels = drawn.subplots(1, len(curves), sharey=True, squeeze=False)[0]
        for panel, (variant, (curve, perfect)) in zip(panels, curves.items(), strict=True):
            for name, points in curve.items():
                errors = [100 * point.mape for point in points]
                panel.plot([p.used for p in points], errors, marker="o", markersize=3, color=COLOURS[name])
            panel.axhline(100 * perfect, color=MUTED, linestyle="--")
            panel.set(xscale="log", yscale="log", xlabel="measurements", title=variant)
            panel.xaxis.set_major_formatter("{x:.0f}")
            panel.yaxis.set_major_formatter("{x:g}")
            panel.grid(axis="y", which="both")
        panels[0].set_ylabel("MAPE on held-out networks, %")
        lines = [Line2D([], [], color=colour, label=name) for name, colour in COLOURS.items()]
        lines.append(Line2D([], [], color=MUTED, linestyle="--", label="perfect predictor"))
        legend(drawn, lines, 440 * len(curves))
        drawn.savefig(PICTURE, dpi=144, facecolor="white")
