"""Does inherited accuracy rank networks as training them from scratch does (NAS-Bench-Macro)?"""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.report.draw import BLUE, MUTED, figure
from search.algorithms.additive import AdditiveModel
from search.spaces import Arch, get_space
from search.spaces.nasbench_macro import key_of
from tools.studies._judges import CALIBRATION_BATCHES
from tools.studies._macro import SPACE, Truth, open_truth
from tools.studies._macro_supernets import (
    SEPARATE,
    MacroSupernet,
    same_in,
    supernets,
)
from tools.studies._options import Options
from tools.studies._processes import side_by_side
from tools.studies._ranks import tau

NETWORKS = 300
QUICK_NETWORKS = 3
RESAMPLES = 2000
SHORTEST = 2
"""Epochs; after one, tau was 0.3."""
FOLDS = 10
SHARINGS = {"entangled": SPACE.name, "separate": SEPARATE.name}


@dataclass(frozen=True)
class Scores:
    """What the networks inherit, in their order.

    Attributes:
        accuracy: Shares of images.
        likelihood: Mean probabilities of the labels.
        smoothed: Half of the likelihood, and half of an additive model's of it that has not seen the network.
    """

    accuracy: Sequence[float]
    likelihood: Sequence[float]
    smoothed: Sequence[float]


JUDGES = {"accuracy": "top-1", "likelihood": "likelihood", "smoothed": "likelihood, half additive"}
"""What each of the `Scores` is called."""


BySharing = Mapping[str, Mapping[int, Sequence[Scores]]]
"""Of the supernets of all seeds, by how weights are shared and by epochs."""


def main(options: Options) -> str:
    """Train supernets of both kinds, judge random networks in each; the section's text."""
    truth = open_truth(options.truth)
    archs = networks(QUICK_NETWORKS if options.quick else NETWORKS)
    true = [truth.accuracy(arch) for arch in archs]
    runs = [
        (name, run)
        for epochs in lengths(options.epochs)
        for name, space in SHARINGS.items()
        for run in supernets(options, space, epochs)
    ]
    scores = side_by_side(inherited, [run for _, run in runs], options)
    found: dict[str, dict[int, list[Scores]]] = {name: {} for name in SHARINGS}
    for (name, run), judged in zip(runs, scores, strict=True):
        found[name].setdefault(run.epochs, []).append(judged)
    _draw(found, true, archs, options)
    return section(found, true, archs, truth, options)


def lengths(epochs: int) -> list[int]:
    """Of trainings: the longest halved again and again, down to two epochs."""
    return sorted({epochs, *itertools.takewhile(lambda n: n >= SHORTEST, (epochs >> i for i in range(32)))})


def networks(count: int) -> list[Arch]:
    """Random ones, those that begin alike one after another."""
    return sorted(random.Random("ranking").sample(list(SPACE), count), key=key_of)


def inherited(run: MacroSupernet, on: str, worker: int) -> Scores:
    """Train a supernet; what the networks inherit."""
    run.train(on, worker)
    space = get_space(run.space)
    archs = [same_in(space, arch) for arch in networks(QUICK_NETWORKS if run.quick else NETWORKS)]
    judges = run.judge(on, worker)
    both = [
        (judges.accuracy.accuracies([arch])[0], judges.likelihood.accuracies([arch])[0]) for arch in archs
    ]
    accuracy, likelihood = zip(*both, strict=True)
    return Scores(accuracy, likelihood, smoothed(archs, likelihood))


def smoothed(archs: Sequence[Arch], values: Sequence[float]) -> list[float]:
    """As `SmoothedEvaluator` with a share of a half; networks are predicted by models of the other folds."""
    folds = np.random.default_rng(0).permutation(len(archs)) % FOLDS
    found = np.array(values)
    for fold in set(folds):
        others, own = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        model = AdditiveModel([archs[i] for i in others], [values[i] for i in others])
        found[own] = (found[own] + model.predict([archs[i] for i in own])) / 2
    return [float(value) for value in found]


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
    found: BySharing, true: Sequence[float], archs: Sequence[Arch], truth: Truth, options: Options
) -> str:
    """What was found, the losers named first."""
    rows = [
        f"| {epochs} | {name} | {_cells(by_epochs[epochs], true)} |"
        for epochs in found["entangled"]
        for name, by_epochs in found.items()
    ]
    simple = {
        "MACs": [truth.macs[key_of(arch)] for arch in archs],
        "parameters": [arch.params() for arch in archs],
    }
    best = {
        f"{name} weights, {epochs} epochs, by {called}": values
        for name, by_epochs in found.items()
        for how, called in JUDGES.items()
        for epochs, values in [_best(by_epochs, how, true)]
    }
    order = sorted((best | simple).items(), key=lambda item: tau(item[1], true))
    above = [
        f"{name} {tau(values, true) - tau(simple['MACs'], true):+.2f} ({{:+.2f}} to {{:+.2f}})".format(
            *interval(values, true, simple["MACs"])
        )
        for name, values in best.items()
    ]
    seeds = "one seed" if options.seeds == 1 else f"{options.seeds} seeds: mean, the smallest and largest"
    return f"""### Does inheritance rank? (NAS-Bench-Macro)

Space `nasbench-macro`, {len(archs)} random networks, whose published accuracy on CIFAR-10 (each trained from
scratch, mean of two trainings) is the truth. Supernets trained here by the recipe `one-cycle`, one uniform subnet a
step, bf16, each row by a whole schedule of so many epochs; judged on the search split (a tenth of the training
images) with BN statistics from {128 * CALIBRATION_BATCHES} training images, by top-1, by the mean probability of
the labels (objective `inherited-likelihood`), and by that with half of an additive model of the choices
(`--additive 50%`), fitted to nine tenths of these networks and asked for the others. `entangled`: one set of
weights a place, kernel 3 the centre of kernel 5, expansion 3 the first half of 6; `separate`: a set for each
operation. Kendall's tau with the truth, and mean inherited top-1 in percent, {seeds}:

| epochs | weights | tau by {" | by ".join(JUDGES.values())} | mean top-1 |
|---|---|---|---|---|---|
{chr(10).join(rows)}

The length of training with the largest mean tau of each kind (chosen by this very truth), seed 0, the worst first,
95 % by resampling networks:
{"; ".join(_with_interval(name, values, true) for name, values in order)}. Above MACs: {"; ".join(above)}.

![Rank correlation over epochs](pictures/ranking.png)
"""


def _cells(scores: Sequence[Scores], true: Sequence[float]) -> str:
    """Of one length of training."""
    taus = [_spread([tau(getattr(one, how), true) for one in scores]) for how in JUDGES]
    top1 = statistics.fmean(statistics.fmean(one.accuracy) for one in scores)
    return f"{' | '.join(taus)} | {100 * top1:.1f}"


def _best(
    by_epochs: Mapping[int, Sequence[Scores]], how: str, true: Sequence[float]
) -> tuple[int, Sequence[float]]:
    """The epochs after which the seeds' mean tau is largest, and values of the first seed."""
    values = {epochs: [getattr(one, how) for one in scores] for epochs, scores in by_epochs.items()}
    best = max(values, key=lambda epochs: statistics.fmean(tau(one, true) for one in values[epochs]))
    return best, values[best][0]


def _with_interval(name: str, values: Sequence[float], true: Sequence[float]) -> str:
    low, high = interval(values, true)
    return f"{name} {tau(values, true):.2f} ({low:.2f} to {high:.2f})"


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.2f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.2f} to {max(values):.2f})"


def _draw(found: BySharing, true: Sequence[float], archs: Sequence[Arch], options: Options) -> None:
    with figure(430, 320) as drawn:
        panel = drawn.subplots()
        for (name, by_epochs), color in zip(found.items(), (BLUE, MUTED), strict=True):
            for seed in range(options.seeds):
                panel.plot(
                    list(by_epochs),
                    [tau(scores[seed].smoothed, true) for scores in by_epochs.values()],
                    color=color,
                    marker="o",
                    markersize=3,
                    label=None if seed else f"{name} weights",
                )
        macs = tau([arch.macs().conv_linear for arch in archs], true)
        panel.axhline(macs, color=MUTED, linestyle=":", label="MACs")
        epochs = list(found["entangled"])
        panel.set_xscale("log", base=2)
        panel.set_xticks(epochs, [str(each) for each in epochs])
        panel.set(xlabel="epochs of training", ylabel=f"Kendall's tau, by {JUDGES['smoothed']}")
        panel.grid()
        panel.legend(frameon=False)
        options.save(drawn, "ranking")
