"""NAS-Bench-Macro as ground truth: its Pareto front by latency, and how supernets of its space rank networks."""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.schema import Floats, Integers
from luts.format.store import load_lut
from orchestrator.report.draw import MUTED, ORANGE
from search.algorithms import CompiledSpace, LutPrice
from search.algorithms.objectives import AdditiveModel
from search.algorithms.pareto import pareto_rows
from search.spaces import Arch, Space, Value, get_space, register_space, register_stage
from search.spaces.nasbench_macro import key_of, operation
from search.spaces.plugins import load_plugin
from search.supernet.recipe.recipe import changed
from tools.studies.shared import Options, draw_lines, run_parallel, tau
from tools.studies.trainings import Training, evaluators, one_cycle
from tools.tables import Tables, mean_and_range, resampled

load_plugin(__name__)  # worker processes import what is loaded, and then know the space below

SPACE = get_space("nasbench-macro")
BUDGETS = (0.2, 0.4, 0.6, 0.8)
"""Fractions of the networks whose latency is within the budget."""
CALIBRATION_BATCHES = 8
"""Batches of 128 training images for BN statistics."""
NEAR = 0.03
"""Largest relative difference of latencies that count as equal."""


def _own_slots(v: dict[str, Value]) -> list[str]:
    """Give each operation of a place its own weights."""
    return [f"op{v['op']}"]


register_stage("macro-place-separate", _own_slots)(operation)
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
class GroundTruth:
    """Published results on CIFAR-10, by network key.

    Attributes:
        top1: Mean accuracy over trainings, 0 to 1.
        macs: Multiply-accumulates.
    """

    top1: dict[str, float]
    macs: dict[str, int]
    fingerprint: str = "nas-bench-macro"

    def accuracy(self, arch: Arch) -> float:
        """Return the published top-1, 0 to 1, as a search objective."""
        return self.top1[key_of(arch)]

    def accuracies(self, archs: Sequence[Arch]) -> Floats:
        """Return the published top-1 of several networks."""
        return np.array([self.accuracy(arch) for arch in archs])


def read_truth(path: Path | None) -> GroundTruth:
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
        top1 = {key: statistics.fmean(row["test_acc"]) / 100 for key, row in table.items()}
        macs = {key: int(row["flops"]) for key, row in table.items()}
        if missing := {key_of(arch) for arch in SPACE} - top1.keys():
            raise ValueError(f"{len(missing)} networks are missing, such as {min(missing)}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"{path}: not the table of NAS-Bench-Macro ({error}); download it again"
        raise InvalidArtifactError(message, code="invalid_truth") from error
    return GroundTruth(top1, macs)


@dataclass(frozen=True)
class PricedSpace:
    """Every network of the space with its latency by a LUT.

    Attributes:
        archs: In the order of the space.
        latency_ms: Predicted latency of each.
        bound_ms: Upper end of its 95 % interval.
    """

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


def priced_by(lut: str) -> PricedSpace:
    """Price all networks by the LUT of that name; raises UsageError if it is of another space."""
    table = load_lut(lut)
    return PricedSpace.of(LutPrice(table.latency_model, table.meta.device.name, lut))


def supernet(options: Options, space: str, epochs: int, seed: int) -> Training:
    """Return the training of a supernet of `SPACE` or `SEPARATE`, one uniform subnet per step."""
    recipe = one_cycle("one-cycle", epochs, seed)
    if options.quick:
        recipe = changed(recipe, {"batch_size": 512}, {})
    return Training(space, recipe, options.images)


LOWEST_DRAWN = 85.0
"""Lowest top-1 of the figure, in percent."""


def draw_front(options: Options) -> Tables:
    """Compare the best network within each budget with those of equal latency (top-1 in percent)."""
    truth, priced = read_truth(options.truth), priced_by(options.lut)
    top1 = 100 * truth.accuracies(priced.archs)
    front = pareto_rows(np.column_stack([priced.latency_ms, -top1]))
    _draw_front(priced, top1, front, options)
    rows = []
    for fraction in (*BUDGETS, 1.0):
        best = [index for index in front if priced.latency_ms[index] <= priced.budget_ms(fraction)][-1]
        latency_ms, key = priced.latency_ms[best], key_of(priced.archs[best])
        near = top1[np.abs(priced.latency_ms / latency_ms - 1) <= NEAR]
        rows.append(
            {
                "within": f"{fraction:.0%}",
                "ms": latency_ms,
                "best": top1[best],
                "million MACs": truth.macs[key] / 1e6,
                "network": key,
                "equally fast, mean": near.mean(),
                "equally fast, sd": near.std(ddof=1),
            }
        )
    counts = [{"networks": len(top1), "on the front": len(front), f"below {LOWEST_DRAWN:g} %": _below(top1)}]
    return {"Pareto front of NAS-Bench-Macro": rows, "Networks": counts}


def _below(top1: Floats) -> int:
    return int((top1 < LOWEST_DRAWN).sum())


def _draw_front(priced: PricedSpace, top1: Floats, front: Integers, options: Options) -> None:
    with options.draw("front", 620, 380) as (panel,):
        panel.scatter(priced.latency_ms, top1, s=3, color=MUTED, alpha=0.35, linewidths=0)
        panel.step(
            priced.latency_ms[front], top1[front], where="post", marker="o", markersize=4, color=ORANGE
        )
        panel.set(xlabel="predicted latency, ms", ylabel="published top-1, %", ylim=(LOWEST_DRAWN, 94))
        panel.grid()


NETWORKS, QUICK_NETWORKS = 300, 3
FEWEST_EPOCHS = 2
FOLDS = 10
WEIGHTS = {"entangled": SPACE.name, "separate": SEPARATE.name}
"""Weights of one place: one set of which smaller operations are a part, or a set for each operation."""
SMOOTHED = "likelihood, half additive"

Estimates = dict[str, list[float]]
"""Values of the networks, by what estimates their accuracy."""


def rank_networks(options: Options) -> Tables:
    """Train supernets of both kinds for several lengths; rank correlation of their estimates with the truth."""
    truth, archs = read_truth(options.truth), sample_networks(QUICK_NETWORKS if options.quick else NETWORKS)
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
