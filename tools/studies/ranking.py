"""Does inherited accuracy rank networks as training them from scratch does (NAS-Bench-Macro)?"""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from orchestrator.report.draw import BLUE, MUTED, figure
from search.spaces import Arch, get_space
from search.spaces.nasbench_macro import key_of
from tools.studies._macro import SPACE, Truth, open_truth
from tools.studies._macro_supernets import (
    CALIBRATION_BATCHES,
    SEPARATE,
    MacroSupernet,
    same_in,
    side_by_side,
    supernets,
)
from tools.studies._options import Options

NETWORKS = 300
QUICK_NETWORKS = 3
RESAMPLES = 2000
SHARINGS = {"entangled": SPACE.name, "separate": SEPARATE.name}


@dataclass(frozen=True)
class Scores:
    """What the networks inherit, in their order: shares of images, and mean probabilities of the labels."""

    accuracy: Sequence[float]
    likelihood: Sequence[float]


Inherited = Mapping[int, Scores]
"""By number of epochs."""


def main(options: Options) -> str:
    """Train supernets of both kinds, judge random networks in each; the section's text."""
    truth = open_truth(options.truth)
    archs = networks(QUICK_NETWORKS if options.quick else NETWORKS)
    true = [truth.accuracy(arch) for arch in archs]
    runs = {name: supernets(options, space) for name, space in SHARINGS.items()}
    found = side_by_side(inherited, [run for each in runs.values() for run in each], options)
    by_sharing = {
        name: found[place * options.seeds : (place + 1) * options.seeds] for place, name in enumerate(runs)
    }
    _draw(by_sharing, true, archs, options)
    return section(by_sharing, true, archs, truth, options)


def networks(count: int) -> list[Arch]:
    """Random ones, those that begin alike one after another."""
    return sorted(random.Random("ranking").sample(list(SPACE), count), key=key_of)


def inherited(run: MacroSupernet, on: str, worker: int) -> Inherited:
    """Train a supernet; what the networks inherit after each of the epochs that are kept."""
    run.train(on, worker)
    space = get_space(run.space)
    archs = [same_in(space, arch) for arch in networks(QUICK_NETWORKS if run.quick else NETWORKS)]
    found = {}
    for epoch in run.epochs_kept:
        judges = run.judge(epoch, on, worker)
        both = [
            (judges.accuracy.accuracies([arch])[0], judges.likelihood.accuracies([arch])[0]) for arch in archs
        ]
        found[epoch] = Scores(*map(tuple, zip(*both, strict=True)))
    return found


def tau(a: Sequence[float], b: Sequence[float]) -> float:
    """Kendall's, with ties (tau-b)."""
    return float(stats.kendalltau(a, b).statistic)


def interval(
    values: Sequence[float], true: Sequence[float], less: Sequence[float] | None = None
) -> tuple[float, float]:
    """95 % of tau over networks drawn again; of how much it is above that of `less`, where that is given."""
    rng, rows = np.random.default_rng(0), np.array([true, values, *([] if less is None else [less])])
    taus = []
    for _ in range(RESAMPLES):
        again = rows[:, rng.integers(0, len(true), len(true))]
        found = [tau(row, again[0]) for row in again[1:]]
        taus.append(found[0] - sum(found[1:]))
    low, high = np.nanpercentile(taus, [2.5, 97.5])
    return float(low), float(high)


def section(
    by_sharing: Mapping[str, Sequence[Inherited]],
    true: Sequence[float],
    archs: Sequence[Arch],
    truth: Truth,
    options: Options,
) -> str:
    """What was found, the losers named first."""
    last = max(by_sharing["entangled"][0])
    simple = {
        "MACs": [truth.macs[key_of(arch)] for arch in archs],
        "parameters": [arch.params() for arch in archs],
    }
    rows = []
    for epoch in by_sharing["entangled"][0]:
        cells = []
        for each in by_sharing.values():
            scores = [found[epoch] for found in each]
            top1 = 100 * statistics.fmean(statistics.fmean(one.accuracy) for one in scores)
            by_likelihood = _spread([tau(one.likelihood, true) for one in scores])
            cells.append(
                f"{_spread([tau(one.accuracy, true) for one in scores])} | {by_likelihood} | {top1:.1f}"
            )
        rows.append(f"| {epoch} | " + " | ".join(cells) + " |")
    final = {
        f"{name} weights, {how}": values
        for name, each in by_sharing.items()
        for how, values in (("accuracy", each[0][last].accuracy), ("likelihood", each[0][last].likelihood))
    }
    order = sorted((final | simple).items(), key=lambda item: tau(item[1], true))
    end = [_with_interval(name, values, true) for name, values in order]
    above = [
        f"{name} {tau(values, true) - tau(simple['MACs'], true):+.2f} ({{:+.2f}} to {{:+.2f}})".format(
            *interval(values, true, simple["MACs"])
        )
        for name, values in final.items()
    ]
    seeds = "one seed" if options.seeds == 1 else f"{options.seeds} seeds, mean with the smallest and largest"
    return f"""### Does inheritance rank? (NAS-Bench-Macro)

Space `nasbench-macro`, {len(archs)} random networks, whose published accuracy on CIFAR-10 (each trained from
scratch, mean of two trainings) is the truth. Supernets trained here by the recipe `one-cycle`, {options.epochs}
epochs, one uniform subnet a step, bf16; judged on the search split (a tenth of the training images) with BN
statistics from {128 * CALIBRATION_BATCHES} training images, by top-1 and by the mean probability of the labels
(objective `inherited-likelihood`). `entangled`: one set of weights a place, kernel 3 the centre of kernel 5,
expansion 3 the first half of 6; `separate`: a set for each operation. Kendall's tau with the truth and mean
inherited top-1 in percent after so many epochs of the one schedule, {seeds}:

| epochs | entangled: tau by top-1 | by likelihood | top-1 | separate: tau by top-1 | by likelihood | top-1 |
|---|---|---|---|---|---|---|
{chr(10).join(rows)}

After the last epoch, seed 0, the worst first, 95 % by resampling networks: {"; ".join(end)}. Above MACs:
{"; ".join(above)}.

![Rank correlation over epochs](pictures/ranking.png)
"""


def _with_interval(name: str, values: Sequence[float], true: Sequence[float]) -> str:
    low, high = interval(values, true)
    return f"{name} {tau(values, true):.2f} ({low:.2f} to {high:.2f})"


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.2f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.2f} to {max(values):.2f})"


def _draw(
    by_sharing: Mapping[str, Sequence[Inherited]],
    true: Sequence[float],
    archs: Sequence[Arch],
    options: Options,
) -> None:
    with figure(430, 320) as drawn:
        panel = drawn.subplots()
        for (name, each), color in zip(by_sharing.items(), (BLUE, MUTED), strict=True):
            for number, found in enumerate(each):
                taus = [tau(scores.likelihood, true) for scores in found.values()]
                panel.plot(
                    list(found),
                    taus,
                    color=color,
                    marker="o",
                    markersize=3,
                    label=None if number else f"{name} weights",
                )
        macs = tau([arch.macs().conv_linear for arch in archs], true)
        panel.axhline(macs, color=MUTED, linestyle=":", label="MACs")
        epochs = list(by_sharing["entangled"][0])
        panel.set_xscale("log", base=2)
        panel.set_xticks(epochs, [str(epoch) for epoch in epochs])
        panel.set(xlabel="epochs of the supernet", ylabel="Kendall's tau, likelihood")
        panel.grid()
        panel.legend(frameon=False)
        options.save(drawn, "ranking")
