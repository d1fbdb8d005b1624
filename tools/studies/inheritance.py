"""Accuracy with inherited weights against training from scratch, and whether it ranks networks alike."""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Sequence

import numpy as np
from scipy import stats

from orchestrator.report.draw import BLUE, MUTED, figure
from search.algorithms.additive import SmoothedEvaluator
from search.spaces import Arch
from tools.studies._judges import judges
from tools.studies._layers import layers_table
from tools.studies._options import Options
from tools.studies._ranks import tau
from tools.studies._spreads import spread
from tools.studies._supernets import Supernets, Training, open_images

NETWORKS = 20
SAMPLE, QUICK_SAMPLE = 100, 10
"""Random networks that the additive model is fitted to."""
RESAMPLES = 2000


def main(options: Options) -> str:
    """Train supernets of all seeds and every network alone, draw; the section's text."""
    setup = Supernets(options, NETWORKS)
    archs = setup.archs
    runs = [setup.run("none", seed) for seed in range(options.seeds)]
    longer, *shared = setup.inherited([setup.run("none", 0, 2 * options.epochs), *runs])
    alone = setup.alone(archs)
    judged = [_judged(setup, run) for run in runs]
    inherited = [[each[arch] for each in shared] for arch in archs]
    means = [statistics.fmean(values) for values in inherited]
    rows = [
        f"| {number} | {arch.params() / 1e3:.0f} | {arch.macs().conv_linear / 1e6:.2f} | {spread(values)} "
        f"| {100 * scratch:.1f} | {100 * (statistics.fmean(values) - scratch):+.1f} |"
        for number, (arch, values, scratch) in enumerate(zip(archs, inherited, alone, strict=True), 1)
    ]
    seeds = [[each[arch] for arch in archs] for each in shared]
    between = [tau(a, b) for a, b in itertools.combinations(seeds, 2)]
    agreement = f" Between supernets of two seeds tau is {_numbers(between)}." if between else ""
    long, whole = (100 * statistics.fmean(each[arch] for arch in archs) for each in (longer, shared[0]))
    by_judge = "; ".join(
        f"{name} {_numbers([tau(each[name], alone) for each in judged])}" for name in judged[0]
    )
    _draw(archs, inherited, alone, options)
    return f"""### Inherited accuracy against training from scratch

{setup.setting()}
Inherited: mean over supernets, the smallest and largest seed in brackets. From scratch: the network alone
(`bench train --arch`), seed 0, {setup.alone_setting()}. In percent.

| network | thousand parameters | M MACs | inherited | from scratch | difference |
|---|---|---|---|---|---|
{chr(10).join(rows)}

Rank correlation over {len(archs)} networks between mean inherited accuracy and that from scratch: Kendall's tau
{_correlation("tau", means, alone)}, Spearman's rho {_correlation("rho", means, alone)} (95 % by
resampling networks); single supernets reach tau {_numbers([tau(each, alone) for each in seeds])}.{agreement}
By what a search maximises, on the images that training holds out for it, single supernets reach tau: {by_judge}.
Parameters reach tau {tau([arch.params() for arch in archs], alone):.2f}, MACs
{tau([arch.macs().conv_linear for arch in archs], alone):.2f}.

Of the first supernet networks inherit {whole:.2f} % on average, of one with that seed and twice the steps
{long:.2f} %: another doubling gains {long - whole:+.2f} points.

What transformer layers are worth: mean top-1 of the networks, in percent, as trained and with the outputs of layers
set to zero and BN recalibrated.

{layers_table(setup, {"inherited, first supernet": runs[:1], "from scratch": setup.alone_runs(archs)})}

![Inherited accuracy against training from scratch](pictures/inheritance.png)
"""


def _judged(setup: Supernets, run: Training) -> dict[str, list[float]]:
    """What each judge of a search says of the networks, by its name."""
    images = open_images(run.data)
    images.split = setup.images.split
    said = judges(run, images, setup.options.on)
    rng, space = random.Random("additive"), setup.space.with_classes(images.classes)
    sample = [space.sample(rng) for _ in range(QUICK_SAMPLE if setup.options.quick else SAMPLE)]
    likelihood = said.likelihood.accuracies(setup.archs)
    return {
        "top-1": said.accuracy.accuracies(setup.archs),
        "likelihood": likelihood,
        "likelihood, half additive": SmoothedEvaluator(said.likelihood, sample, 0.5).accuracies(setup.archs),
    }


def _correlation(kind: str, a: Sequence[float], b: Sequence[float]) -> str:
    measure = stats.kendalltau if kind == "tau" else stats.spearmanr
    rng = np.random.default_rng(0)
    x, y = np.asarray(a), np.asarray(b)
    drawn = []
    for _ in range(RESAMPLES):
        chosen = rng.integers(0, len(x), len(x))
        if np.ptp(x[chosen]) == 0 or np.ptp(y[chosen]) == 0:
            continue
        drawn.append(measure(x[chosen], y[chosen]).statistic)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{measure(x, y).statistic:.2f} ({low:.2f} to {high:.2f})"


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def _draw(
    archs: Sequence[Arch], inherited: Sequence[Sequence[float]], alone: Sequence[float], options: Options
) -> None:
    with figure(430, 340) as drawn:
        panel = drawn.subplots()
        sizes = [arch.params() / 1e3 for arch in archs]
        for number, (values, scratch, size) in enumerate(zip(inherited, alone, sizes, strict=True), 1):
            x, y = 100 * scratch, 100 * statistics.fmean(values)
            panel.plot([x, x], [100 * min(values), 100 * max(values)], color=MUTED, linewidth=1, zorder=1)
            panel.scatter([x], [y], s=20 + 0.25 * size, color=BLUE, zorder=2)
            panel.annotate(str(number), (x, y), xytext=(6, 4), textcoords="offset points", fontsize=9)
        panel.set(
            xlabel="from scratch, %", ylabel="inherited, %", title="Area: parameters; line: range of seeds"
        )
        panel.grid()
        options.save(drawn, "inheritance")
