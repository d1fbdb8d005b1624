"""Does inherited accuracy rank networks as training them from scratch does (NAS-Bench-Macro)?"""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence

import numpy as np

from orchestrator.report.draw import MUTED
from search.algorithms.objectives import AdditiveModel
from search.spaces import Arch, get_space
from search.spaces.nasbench_macro import key_of
from tools.studies.macro import CALIBRATION_BATCHES, SEPARATE, SPACE, read_truth, supernet
from tools.studies.shared import Options, draw_lines, resampled, run_parallel, tau
from tools.studies.trainings import Training, evaluators
from tools.tables import Tables, mean_and_range

NETWORKS, QUICK_NETWORKS = 300, 3
FEWEST_EPOCHS = 2
FOLDS = 10
WEIGHTS = {"entangled": SPACE.name, "separate": SEPARATE.name}
"""Weights of one place: one set of which smaller operations are a part, or a set for each operation."""
SMOOTHED = "likelihood, half additive"

Estimates = dict[str, list[float]]
"""Values of the networks, by what estimates their accuracy."""


def main(options: Options) -> Tables:
    """Train supernets of both kinds for several lengths; rank correlation of their estimates with the truth."""
    truth, archs = read_truth(options.truth), networks(QUICK_NETWORKS if options.quick else NETWORKS)
    true = [truth.accuracy(arch) for arch in archs]
    kinds = [(epochs, weights) for epochs in lengths(options.epochs) for weights in WEIGHTS]
    trainings = [
        supernet(options, WEIGHTS[weights], epochs, seed)
        for epochs, weights in kinds
        for seed in range(options.seeds)
    ]
    items = [(training, archs) for training in trainings]
    found = iter(run_parallel(_estimates, items, options))
    rows, by_networks = [], []
    for epochs, weights in kinds:
        of_seeds = [next(found) for _ in range(options.seeds)]
        row: dict[str, object] = {"epochs": epochs, "weights": weights}
        for name in of_seeds[0]:
            row[f"tau by {name}"] = mean_and_range([tau(each[name], true) for each in of_seeds])
        row["mean top-1"] = 100 * statistics.fmean(value for each in of_seeds for value in each["top-1"])
        rows.append(row)
        by_networks += [
            {
                "epochs": epochs,
                "by": f"{name}, {weights} weights, seed 0",
                "tau": resampled(tau, values, true),
            }
            for name, values in of_seeds[0].items()
        ]
    for name, sizes in (
        ("MACs", [truth.macs[key_of(a)] for a in archs]),
        ("parameters", [a.params() for a in archs]),
    ):
        by_networks.append({"epochs": None, "by": name, "tau": resampled(tau, sizes, true)})
    macs = tau([truth.macs[key_of(arch)] for arch in archs], true)
    with options.draw("ranking", 430, 320) as (panel,):
        draw_lines(panel, rows, "epochs", f"tau by {SMOOTHED}", "weights")
        panel.axhline(macs, color=MUTED, linestyle=":", label="MACs")
        panel.set_xscale("log", base=2)
    return {"Kendall's tau over epochs": rows, "Intervals over networks": by_networks}


def lengths(epochs: int) -> list[int]:
    """Return the epochs of all trainings: the longest, halved again and again down to two."""
    halves = [epochs >> shift for shift in range(32)]
    return sorted({epochs, *(each for each in halves if each >= FEWEST_EPOCHS)})


def networks(number: int) -> list[Arch]:
    """Return random networks; those that begin alike follow one another."""
    return sorted(random.Random("ranking").sample(list(SPACE), number), key=key_of)


def smoothed(archs: Sequence[Arch], values: Sequence[float]) -> list[float]:
    """Return the mean of each value and its prediction by an additive model of the networks in the other folds."""
    folds = np.random.default_rng(0).permutation(len(archs)) % FOLDS
    found = np.array(values)
    for fold in set(folds):
        others, own = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        model = AdditiveModel([archs[i] for i in others], [values[i] for i in others])
        found[own] = (found[own] + model.predict([archs[i] for i in own])) / 2
    return [float(value) for value in found]


def _estimates(item: tuple[Training, Sequence[Arch]], on: str, number: int) -> Estimates:
    """Train a supernet; return inherited top-1, likelihood and smoothed likelihood of the networks."""
    training, archs = item
    training.run(on, number)
    space = get_space(training.space)
    same = [Arch(space, arch.resolution, arch.head, arch.classes, arch.stages) for arch in archs]
    opened = evaluators(training, on, number, calibration_batches=CALIBRATION_BATCHES)
    both = [(opened.top1.accuracies([a])[0], opened.likelihood.accuracies([a])[0]) for a in same]
    top1, likelihood = (list(values) for values in zip(*both, strict=True))
    return {"top-1": top1, "likelihood": likelihood, SMOOTHED: smoothed(archs, likelihood)}
