"""NAS-Bench-Macro as ground truth: its Pareto front by latency, and how supernets of its space rank networks."""

from __future__ import annotations

import json
import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.schema import Floats
from luts.format.store import load_lut
from orchestrator.report.draw import MUTED, ORANGE
from search.algorithms import CompiledSpace, LutPrice
from search.algorithms.objectives import AdditiveModel
from search.algorithms.pareto import pareto_rows
from search.spaces import Arch, Space, get_space, register_space, register_stage
from search.spaces.nasbench_macro import key_of, operation
from search.spaces.plugins import load_plugin
from search.supernet.recipe.recipe import changed
from tools.studies.shared import Options, draw_lines
from tools.studies.trainings import Training, one_cycle
from tools.tables import Tables, mean_and_range, resampled, run_parallel, tau

load_plugin(__name__)  # worker processes import what is loaded, and then know the space below

SPACE = get_space("nasbench-macro")
BUDGETS = (0.2, 0.4, 0.6, 0.8)
"""Fractions of the networks whose latency is within the budget."""
CALIBRATION_BATCHES = 8
"""Batches of 128 training images for BN statistics."""
NEAR = 0.03
"""Largest relative difference of latencies that count as equal."""


register_stage("macro-place-separate", lambda v: [f"op{v['op']}"])(operation)
SEPARATE: Space = register_space(
    replace(
        SPACE,
        name="nasbench-macro-separate",
        stages=tuple(
            replace(stage, kind="macro-place-separate") if stage.kind == "macro-place" else stage
            for stage in SPACE.stages
        ),
    )
)
"""The same networks with separate weights for each operation of a place, as in single-path one-shot search."""


@dataclass(frozen=True)
class PublishedResults:
    """Published results on CIFAR-10 by network key.

    Attributes:
        top1: Mean top-1 over trainings, 0 to 1.
        macs: Multiply-accumulates.
        trainings: Top-1 of each training.
    """

    top1: dict[str, float]
    macs: dict[str, int]
    trainings: dict[str, tuple[float, ...]]
    fingerprint: str = "nas-bench-macro"

    @cached_property
    def smoothed(self) -> dict[str, float]:
        """Top-1 without most of the noise of training, see `smooth_interactions`.

        The largest of thousands of noisy means is above what that network reaches, so picks are judged by this.
        """
        grids = np.array([list(values) for _, values in sorted(self.trainings.items())]).T
        smooth = smooth_interactions([grid.reshape((3,) * 8) for grid in grids[:2]])
        return dict(zip(sorted(self.trainings), smooth.reshape(-1).tolist(), strict=True))

    @cached_property
    def noise(self) -> float:
        """Standard deviation of one training."""
        return math.sqrt(statistics.fmean(statistics.variance(each) for each in self.trainings.values()))

    def accuracy(self, arch: Arch) -> float:
        """Return the published top-1, 0 to 1, as a search objective."""
        return self.top1[key_of(arch)]

    def accuracies(self, archs: Sequence[Arch]) -> Floats:
        """Return the published top-1 of several networks."""
        return np.array([self.accuracy(arch) for arch in archs])


def smooth_interactions(trainings: Sequence[Floats]) -> Floats:
    """Return the mean of two trainings of every network, each order of interaction shrunk by its reliability.

    The values of all networks, (3,) * places, are a sum of a mean, an effect of each single choice, of each pair of
    choices, and so on. The effects of one order are multiplied by the covariance between the trainings over the
    variance of their mean, which is the best linear estimate of what further trainings would give.
    """
    first, second = (_by_order(values) for values in trainings)
    total = np.array(first[0] + second[0]) / 2
    for one, other in zip(first[1:], second[1:], strict=True):
        mean = (one + other) / 2
        total = total + max(0.0, float((one * other).mean() / (mean**2).mean())) * mean
    return total


def _by_order(values: Floats) -> list[Floats]:
    """Return the parts of values (3,) * places by order of interaction, from 0 to the number of places."""
    parts: dict[int, Floats] = {0: values}
    for axis in range(values.ndim):
        longer: dict[int, Floats] = {}
        for order, part in parts.items():
            mean = np.broadcast_to(part.mean(axis=axis, keepdims=True), part.shape)
            longer[order] = longer.get(order, 0.0) + mean
            longer[order + 1] = longer.get(order + 1, 0.0) + (part - mean)
        parts = longer
    return [parts[order] for order in sorted(parts)]


def read_truth(path: Path | None) -> PublishedResults:
    """Read `nas-bench-macro.json`.

    Raises:
        UsageError: no file was given.
        InvalidArtifactError: it cannot be read, or lacks networks of the space.
    """
    if path is None:
        message = "this study needs published accuracies; add --truth nas-bench-macro.json"
        raise UsageError(message, code="no_truth")
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        rows = {key: table[key] for key in map(key_of, SPACE)}
        trainings = {key: tuple(value / 100 for value in row["test_acc"]) for key, row in rows.items()}
        top1 = {key: statistics.fmean(values) for key, values in trainings.items()}
        return PublishedResults(top1, {key: int(row["flops"]) for key, row in rows.items()}, trainings)
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{path}: not the table of NAS-Bench-Macro ({error!r}); download it again"
        raise InvalidArtifactError(message, code="invalid_truth") from error


@dataclass(frozen=True)
class PricedSpace:
    """Every network of the space, its predicted latency, and the upper end of its 95 % interval."""

    price: LutPrice
    archs: tuple[Arch, ...]
    latency_ms: Floats
    bound_ms: Floats

    @classmethod
    def of(cls, price: LutPrice) -> PricedSpace:
        """Price all networks; raises UsageError if the LUT is of another space."""
        compiled, archs = CompiledSpace(SPACE, price), tuple(SPACE)
        prices = compiled.price(compiled.encode(archs))
        return cls(price, archs, prices.latency_ms[0], prices.latency_high_ms[0])

    def budget_ms(self, fraction: float) -> float:
        """Return the latency that this fraction of the networks meets."""
        return float(np.quantile(self.latency_ms, fraction, method="higher"))

    def equally_fast(self, values: Floats, latency_ms: float) -> Floats:
        """Return the values of all networks within 3 % of a latency."""
        return values[np.abs(self.latency_ms / latency_ms - 1) <= NEAR]


def priced_by(lut: str) -> PricedSpace:
    """Price all networks by the LUT of that name; raises UsageError if it is of another space."""
    table = load_lut(lut)
    return PricedSpace.of(LutPrice(table.latency_model, table.meta.device.name, lut))


def macro_training(options: Options, space: Space, epochs: int, seed: int, **changes: object) -> Training:
    """Return a training in `SPACE` or `SEPARATE`: of a supernet by one uniform subnet a step, or of `arch` alone.

    `changes`, `arch` among them, override fields of the recipe.
    """
    changes = options.pick({}, {"batch_size": 512}) | changes
    recipe = changed(one_cycle("one-cycle", epochs, seed), changes, {})
    return Training(space.name, recipe, options.images)


def draw_front(options: Options) -> Tables:
    """Compare the best network within each budget with those of equal latency (top-1 in percent)."""
    truth, priced = read_truth(options.truth), priced_by(options.lut)
    top1, ms = 100 * truth.accuracies(priced.archs), priced.latency_ms
    front = pareto_rows(np.column_stack([ms, -top1]))
    with options.draw("front", 620, 380) as (panel,):
        panel.scatter(ms, top1, s=3, color=MUTED, alpha=0.35, linewidths=0)
        panel.step(ms[front], top1[front], where="post", marker="o", markersize=4, color=ORANGE)
        panel.set(xlabel="predicted latency, ms", ylabel="published top-1, %", ylim=(85, 94))
        panel.grid()
    rows = []
    for fraction in (*BUDGETS, 1.0):
        best = [index for index in front if ms[index] <= priced.budget_ms(fraction)][-1]
        key, near = key_of(priced.archs[best]), priced.equally_fast(top1, ms[best])
        rows.append(
            {
                "within": f"{fraction:.0%}",
                "ms": ms[best],
                "best": top1[best],
                "million MACs": truth.macs[key] / 1e6,
                "network": key,
                "equally fast, mean": near.mean(),
                "equally fast, sd": near.std(ddof=1),
            }
        )
    return {
        "Pareto front of NAS-Bench-Macro": rows,
        "Networks": [{"networks": len(top1), "on the front": len(front)}],
    }


FOLDS = 10
WEIGHTS = {"entangled": SPACE, "separate": SEPARATE}
"""Weights of one place: one set of which smaller operations are a part, or a set for each operation."""
SMOOTHED = "likelihood, half additive"


def rank_networks(options: Options) -> Tables:
    """Train supernets of both kinds for several lengths; rank correlation of their estimates with the truth."""
    truth, archs = read_truth(options.truth), sample_networks(options.pick(300, 3))
    true, seeds = truth.accuracies(archs), range(options.seeds)
    kinds = [(epochs, weights) for epochs in lengths(options.epochs) for weights in WEIGHTS]
    trainings = [
        macro_training(options, WEIGHTS[weights], epochs, seed) for epochs, weights in kinds for seed in seeds
    ]
    estimate = partial(_estimates, archs=archs, on=options.on)
    found = iter(run_parallel(estimate, trainings, options.jobs))
    rows, by_networks = [], []
    for epochs, weights in kinds:
        of_seeds = [next(found) for _ in seeds]
        row: dict[str, object] = {"epochs": epochs, "weights": weights}
        for name, values in of_seeds[0].items():
            row[f"tau by {name}"] = mean_and_range([tau(each[name], true) for each in of_seeds])
            by = f"{name}, {weights} weights, {epochs} epochs, seed 0"
            by_networks.append({"by": by, "tau": resampled(tau, values, true)})
        row["mean top-1"] = 100 * statistics.fmean(value for each in of_seeds for value in each["top-1"])
        rows.append(row)
    macs = [float(truth.macs[key_of(arch)]) for arch in archs]
    by_networks.append({"by": "MACs", "tau": resampled(tau, macs, true)})
    by_networks.append({"by": "parameters", "tau": resampled(tau, [a.params() for a in archs], true)})
    with options.draw("ranking", 430, 320) as (panel,):
        draw_lines(panel, rows, "epochs", f"tau by {SMOOTHED}", "weights")
        panel.axhline(tau(macs, true), color=MUTED, linestyle=":", label="MACs")
        panel.set_xscale("log", base=2)
    return {"Kendall's tau over epochs": rows, "Intervals over networks": by_networks}


def compare_lengths(options: Options) -> Tables:
    """Train random networks alone for several lengths; rank correlation of top-1 with smoothed accuracies."""
    truth, archs = read_truth(options.truth), sample_networks(options.pick(30, 3))
    smooth = [truth.smoothed[key_of(arch)] for arch in archs]
    epochs, seeds = lengths(options.epochs), range(options.seeds)
    trainings = [
        macro_training(options, SPACE, length, seed, arch=arch.to_json())
        for length in epochs
        for seed in seeds
        for arch in archs
    ]
    top1 = run_parallel(partial(Training.top1_alone, on=options.on), trainings, options.jobs)
    rows = [
        {
            "epochs": length,
            "tau over seeds": mean_and_range([tau(each, smooth) for each in of_length]),
            "tau over networks, seed 0": resampled(tau, of_length[0], smooth),
            "mean top-1": 100 * float(of_length.mean()),
        }
        for length, of_length in zip(epochs, np.reshape(top1, (len(epochs), len(seeds), -1)), strict=True)
    ]
    return {"How short a training may be": rows}


def lengths(epochs: int) -> list[int]:
    """Return the epochs of all trainings: the longest, halved again and again down to two."""
    halves = [epochs >> shift for shift in range(32)]
    return sorted({epochs, *(each for each in halves if each >= 2)})


def sample_networks(number: int) -> list[Arch]:
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


def _estimates(training: Training, archs: Sequence[Arch], on: str) -> dict[str, list[float]]:
    """Train a supernet; return inherited top-1, likelihood and smoothed likelihood of the networks."""
    training.run(on)
    space = get_space(training.space)
    same = [Arch(space, arch.resolution, arch.head, arch.classes, arch.stages) for arch in archs]
    opened = training.evaluators(on, calibration_batches=CALIBRATION_BATCHES)
    both = [(opened.top1.accuracies([a])[0], opened.likelihood.accuracies([a])[0]) for a in same]
    top1, likelihood = (list(values) for values in zip(*both, strict=True))
    return {"top-1": top1, "likelihood": likelihood, SMOOTHED: smoothed(archs, likelihood)}
