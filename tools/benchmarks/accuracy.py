"""How well networks of `autovit-xxs` are predicted, by what a LUT ships and every cheaper way."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from matplotlib.lines import Line2D

from luts.estimate.latencies import LatencyEstimates
from luts.format.lut import Lut
from luts.format.provenance import ROOT
from luts.format.store import read_lut
from orchestrator.devices.common.device import Access
from orchestrator.devices.discover import resolve
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
from search.blocks import BlockSpec
from search.spaces import get_space
from tools.benchmarks._baselines import ESTIMATORS
from tools.benchmarks._estimators import (
    FEW,
    Campaign,
    Score,
    campaign,
    counts,
    curve,
    device_seconds,
    perfect,
    reached,
    score,
)

Value = TypeVar("Value")

DEVICE = "host"
SPACE = "autovit-xxs"
THREADS = (1, 2)
DESIGN = 64
HELDOUT = 50
BUDGET = "1m"
"""Beside all removals and swaps. The three passes that `bench profile` makes whatever its budget take longer."""
ALONE_POLICY = Policy(batch_models=24, max_rounds=30, min_passes=3, max_passes=3)
"""Blocks alone take a hundredth of a network: many share the reference's rounds, and more rounds would only narrow
what is far below the error of their sum."""

BENCH = Path(sys.executable).parent / "bench"
PICTURE = ROOT / "docs" / "pictures" / "accuracy.png"
COLOURS = dict(zip(ESTIMATORS, (PINK, RED, ORANGE, SKY, GREEN, BLUE), strict=True))
TARGETS = (0.02, 0.01)


def main(folders: Sequence[Path] = ()) -> str:
    """Profile with one and two threads, or read the LUTs of such profiles; then compare.

    What `bench profile` and the blocks alone left in the runs' folder is used again, not measured again: a run
    that was cut off goes on, and one that is finished only gives its numbers.
    """
    plan = make_plan(get_space(SPACE), design=DESIGN, heldout=HELDOUT)
    luts = [read_lut(folder) for folder in folders or [_profile(threads) for threads in THREADS]]
    campaigns = [_campaign(lut, plan) for lut in luts]
    curves = [{name: curve(measured, name) for name in ESTIMATORS} for measured in campaigns]
    _draw(luts, campaigns, curves)
    parts = [_part(*of_one) for of_one in zip(luts, campaigns, curves, strict=True)]
    return f"""## Predicted against measured: networks of {SPACE}

{luts[0].meta.versions.runtime} on {luts[0].meta.device.soc or luts[0].meta.device.model}, no phone.
Every way to price a network learns from the same measurements (one `bench profile` for each number of threads, and
every block of the space alone beside the same reference, right after) and is judged by the same held-out networks,
which none has seen. `measurements` are whole models, or blocks alone; networks of the design come first, as a plan
without removals would choose them, then removals and swaps. A perfect predictor would still err by the noise in the
measurements that judge it. Minutes are of the device running models; loads and exports are not in them.

{chr(10).join(parts)}
![Error on held-out networks against models measured](pictures/accuracy.png)
"""


def _profile(threads: int) -> Path:
    """`bench profile`, whose plan is that of `main`; the folder of its LUT."""
    chosen = ["--device", DEVICE, "--space", SPACE, "--threads", str(threads), "--budget", BUDGET]
    models = [
        "--design",
        str(DESIGN),
        "--heldout",
        str(HELDOUT),
        "--removals",
        "all",
        "--narrow",
        "0",
        "--from",
        "none",
    ]
    command = [str(BENCH), "profile", *chosen, *models, "--reuse", "--json"]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return Path(json.loads(answer)["path"])


def _campaign(lut: Lut, plan: Plan) -> Campaign:
    specs = get_space(SPACE).block_specs(plan.resolutions)
    samples = samples_table(read_log(_measured_alone(lut, plan, [spec.key for spec in specs]).journal))
    reference = lut.meta.reference_id
    alone_ms = {
        key: lut.meta.reference_ms * math.exp(ratio.log_ratio)
        for key, ratio in _by_key(LatencyEstimates.of(samples, reference).ratios.ratios, specs).items()
    }
    seconds = device_seconds(samples, reference, 1 + ALONE_POLICY.settle_runs)
    return campaign(lut, plan, features_of(specs), alone_ms, _by_key(seconds, specs))


def _by_key(values: Mapping[str, Value], specs: Sequence[BlockSpec]) -> dict[str, Value]:
    """Values of the blocks measured alone, which journals know by the id of a network of one block."""
    return {spec.key: values[model_id([spec.key])] for spec in specs}


def _measured_alone(lut: Lut, plan: Plan, keys: Sequence[str]) -> Run:
    """Every block of the space alone, beside the LUT's own reference; measured once for each LUT."""
    variant = Variant.parse(lut.meta.variant)
    reference = plan.reference
    specs = {model_id([key]): variant.export_spec((key,)) for key in keys}
    specs[reference.model_id] = variant.export_spec(reference.blocks)
    files = model_files(variant, specs, progress=print)
    identity = hashlib.sha256(f"{lut.meta.created}:{reference.model_id}".encode()).hexdigest()[:12]
    run = Run(runs_root() / f"alone-{variant.name}-{identity}")
    if run.result is None:
        subject = ModelSet(files, reference.model_id, identity.ljust(64, "0"), seed=0)
        with resolve(DEVICE, Access()) as device:
            measure(
                device,
                variant,
                subject,
                run.journal,
                ALONE_POLICY,
                EngineOptions(budget_s=math.inf, progress=steps(print)),
            )
        run.finish("blocks measured alone")
    return run


def _part(lut: Lut, measured: Campaign, curves: Mapping[str, Sequence[Score]]) -> str:
    rows = []
    for name in ESTIMATORS:
        total = len(measured.orders[name])
        for count in sorted({min(FEW, total), *counts(total)}):
            rows.append(_row(name, str(count), score(measured, name, count)))
    rows.append(_row("perfect predictor", "-", perfect(measured)))
    rows.append(f"| a second load of the same network | - | - | {lut.meta.noise_floor:.2%} | | | | | |")
    table = "\n".join(rows)
    return f"""### {lut.meta.variant}

{len(measured.observed.models)} models fitted, {len(measured.heldout)} held out, reference
{lut.meta.reference_ms:.2f} ms, {lut.samples.num_rows:,} samples.

| estimator | measurements | minutes | MAPE | within 2 % | within 5 % | within 10 % | worst | Kendall tau |
|---|---|---|---|---|---|---|---|---|
{table}

{_effort(curves)}
"""


def _row(name: str, count: str, score: Score) -> str:
    within = " | ".join(f"{share:.0%}" for share in score.within)
    tau = "-" if score.kendall_tau is None else f"{score.kendall_tau:.3f}"
    minutes = f"{score.minutes:.1f}" if score.minutes else "-"
    return f"| {name} | {count} | {minutes} | {score.mape:.2%} | {within} | {score.worst:.2%} | {tau} |"


def _effort(curves: Mapping[str, Sequence[Score]]) -> str:
    lines = ["| MAPE of at most | " + " | ".join(ESTIMATORS) + " |", "|---" * (1 + len(ESTIMATORS)) + "|"]
    for target in TARGETS:
        cells = []
        for name in ESTIMATORS:
            found = reached(curves[name], target)
            cells.append("not reached" if found is None else f"{found.used} in {found.minutes:.1f} min")
        lines.append(f"| {target:.0%} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _draw(
    luts: Sequence[Lut], campaigns: Sequence[Campaign], curves: Sequence[Mapping[str, Sequence[Score]]]
) -> None:
    with figure(440 * len(luts), 380) as drawn:
        panels = drawn.subplots(1, len(luts), sharey=True, squeeze=False)[0]
        for panel, lut, measured, found in zip(panels, luts, campaigns, curves, strict=True):
            for name, points in found.items():
                used, errors = [p.used for p in points], [100 * p.mape for p in points]
                panel.plot(used, errors, marker="o", markersize=3, color=COLOURS[name])
            panel.axhline(100 * perfect(measured).mape, color=MUTED, linestyle="--")
            panel.set(xscale="log", yscale="log", xlabel="measurements", title=lut.meta.variant)
            panel.xaxis.set_major_formatter("{x:.0f}")
            panel.yaxis.set_major_formatter("{x:g}")
            panel.grid(axis="y", which="both")
        panels[0].set_ylabel("MAPE on held-out networks, %")
        lines = [Line2D([], [], color=colour, label=name) for name, colour in COLOURS.items()]
        lines.append(Line2D([], [], color=MUTED, linestyle="--", label="perfect predictor"))
        legend(drawn, lines, 440 * len(luts))
        PICTURE.parent.mkdir(parents=True, exist_ok=True)
        drawn.savefig(PICTURE, dpi=144, facecolor="white")


if __name__ == "__main__":
    print(main([Path(argument) for argument in sys.argv[1:]]))
