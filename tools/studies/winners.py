"""What searches with finals find in `autovit-cifar16`, against simple rules and random networks of one latency."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from luts.format.store import load_lut
from search.algorithms import CompiledSpace, Constraints, LutPrice, SearchSettings, search
from search.algorithms.finals import Finals, finalists, hold_finals
from search.algorithms.record import SearchResult
from search.spaces import Arch, get_space
from search.spaces.registry import arch_from_json
from tools.studies.shared import Options
from tools.studies.trainings import SupernetStudy, Training
from tools.tables import Rows, Tables, mean_and_range, resampled, run_parallel, tau

WITHIN, NEAR = 0.2, 0.03
"""The budget is met by a fifth of random networks; networks of equal latency are those up to 3 % below it."""
DRAWS = 2000
SETTINGS = SearchSettings(generations=2, additive=0.5)
QUICK_SETTINGS = SearchSettings(population=4, skeletons=4, generations=0, draws=100, additive=0.5, sample=10)
CALIBRATION_BATCHES, IMAGES = 8, 1000
"""Training batches for BN statistics of inherited weights, and images of the search split to judge them by."""
FIRST_FINAL = 100
"""Seeds of finals start here, twice that for the second supernet, and so on; smaller ones judge the picks."""


def compare_winners(options: Options) -> Tables:
    """Search in supernets, hold finals, and train all picks afresh (validation top-1 in percent).

    Every pick is judged by trainings that chose nothing, one for each seed, at least two.
    """
    study = SupernetStudy(options, space="autovit-cifar16")
    world = _World(study)
    same, seeds = world.near[: options.pick(20, 3)], range(max(2, options.seeds))
    of_same = study.alone_accuracies(same, seeds)
    tables: dict[str, Rows] = {
        "Networks of one latency": _spread(of_same),
        "How short a training may be": world.lengths(same, of_same),
    }
    judged = run_parallel(
        partial(_judge, world.price, world.budget, options.pick(SETTINGS, QUICK_SETTINGS), options.on),
        [study.training(seed) for seed in range(options.seeds)],
        options.jobs,
    )
    results = [result for result, _ in judged]
    held = [world.finals(result, seed) for seed, result in enumerate(results)]
    largest, deepest = results[0].largest, results[0].deepest
    assert largest is not None
    assert deepest is not None
    picks = {
        "largest": [largest.architecture()],
        "deepest": [deepest.architecture()],
        "search": [result.winner.architecture() for result in results],
        "finals, best taken": [arch_from_json(each.best.arch) for each in held],
        "finals, confirmed": [arch_from_json(each.winner.arch) for each in held],
    }
    archs = list(dict.fromkeys(arch for each in picks.values() for arch in each))
    top1 = of_same | study.alone_accuracies(archs, seeds)
    tables["Picks"] = [
        {
            "rule": rule,
            "supernet": number,
            "M MACs": arch.macs().conv_linear / 1e6,
            "predicted, of the budget": world.of_budget(arch),
            "top-1": mean_and_range(top1[arch]),
        }
        for rule, each in picks.items()
        for number, arch in enumerate(each)
    ]
    tables["Gain over the largest, points"] = [
        {"rule": rule} | _gain([top1[arch] for arch in each], top1[picks["largest"][0]])
        for rule, each in (picks | {"random, same latency": same}).items()
    ]
    tables["Finals"] = [
        {"supernet": number, "trained": len(each.finals), "verdict": each.verdict()}
        for number, each in enumerate(held)
    ]
    tables["Cost of an evaluation"] = [
        {"supernet": number, "seconds": seconds} for number, (_, seconds) in enumerate(judged)
    ]
    return tables


class _World:
    """Latencies of random networks, and finals."""

    def __init__(self, study: SupernetStudy):
        self.study, options = study, study.options
        lut = load_lut(options.lut)
        self.price = LutPrice(lut.latency_model, lut.meta.device.name, options.lut)
        self._compiled = CompiledSpace(study.space, self.price)
        rng = random.Random("same latency")
        drawn = list(dict.fromkeys(study.space.sample(rng) for _ in range(DRAWS)))
        latency_ms = self._compiled.price(self._compiled.encode(drawn)).latency_ms[0]
        self.budget_ms = float(np.quantile(latency_ms, WITHIN))
        self.budget = Constraints(latency_ms=self.budget_ms, cautious=False)
        fraction = dict(zip(drawn, (latency_ms / self.budget_ms).tolist(), strict=True))
        self.near = [arch for arch, of_budget in fraction.items() if 1 - NEAR <= of_budget <= 1]

    def of_budget(self, arch: Arch) -> float:
        """Return a predicted latency as a fraction of the budget."""
        return float(self._compiled.price(self._compiled.encode([arch])).latency_ms[0][0]) / self.budget_ms

    def finals(self, result: SearchResult, number: int) -> Finals:
        """Hold the finals of a search, by top-1 on the search split."""
        options = self.study.options

        def train(archs: Sequence[str], seed: int) -> dict[str, float]:
            trainings = [self.study.alone(arch_from_json(arch), seed) for arch in archs]
            values = run_parallel(partial(Training.top1_alone, on=options.on), trainings, options.jobs)
            return dict(zip(archs, values, strict=True))

        chosen = finalists(result, options.pick(8, 3), lambda _: True)
        finals = hold_finals(chosen, train, FIRST_FINAL * (number + 1), confirm=1)
        return Finals(recipe="", fingerprint="", finals=finals)

    def lengths(self, archs: Sequence[Arch], top1: Mapping[Arch, Sequence[float]]) -> Rows:
        """Return how one short training of each network ranks them, by the mean of the others' full trainings."""
        study, full = self.study, self.study.options.alone_epochs or self.study.options.epochs
        later = [statistics.fmean(top1[arch][1:]) for arch in archs]
        values = {
            epochs: study.alone_accuracies(archs, [0], epochs)
            for epochs in sorted({max(1, full // 4), max(1, full // 2)})
        }
        one = {epochs: [each[arch][0] for arch in archs] for epochs, each in values.items()}
        one[full] = [top1[arch][0] for arch in archs]
        macs = [float(arch.macs().conv_linear) for arch in archs]
        rows = [{"epochs": epochs, "tau": resampled(tau, each, later)} for epochs, each in one.items()]
        return [*rows, {"epochs": "none: MACs", "tau": resampled(tau, macs, later)}]


def _judge(
    price: LutPrice, budget: Constraints, settings: SearchSettings, on: str, training: Training
) -> tuple[SearchResult, float]:
    """Train a supernet and search in it; return the result and the seconds of an evaluation."""
    training.run(on)
    judge = training.evaluators(on, calibration_batches=CALIBRATION_BATCHES, images=IMAGES).likelihood
    settings, start = settings.model_copy(update={"seed": training.recipe.seed}), time.monotonic()
    result = search(get_space(training.space).with_classes(10), price, judge, budget, settings)
    return result, (time.monotonic() - start) / len(result.evaluated)


def _spread(top1: Mapping[Arch, Sequence[float]]) -> Rows:
    """Return how networks differ, and trainings of one network (one-way analysis of variance)."""
    from scipy.stats import f_oneway

    values = np.array(list(top1.values()))
    within = float(values.var(axis=1, ddof=1).mean())
    between = max(0.0, float(values.mean(axis=1).var(ddof=1)) - within / values.shape[1])
    return [
        {
            "networks": len(values),
            "trainings of each": values.shape[1],
            "mean top-1": float(values.mean()),
            "sd of networks": between**0.5,
            "sd of trainings": within**0.5,
            "p of no difference": float(f_oneway(*values).pvalue),
        }
    ]


def _gain(picked: Sequence[Sequence[float]], largest: Sequence[float]) -> dict[str, object]:
    """Return the mean gain over the largest network, and the standard error that trainings' noise gives it."""
    values, of_largest = np.unique(np.array(picked), axis=0), np.array(largest)
    variances = [float(each.var(ddof=1)) / each.size for each in (*values, of_largest)]
    means = np.array(picked).mean(axis=1)
    return {
        "gain": float(means.mean() - of_largest.mean()),
        "of each pick": mean_and_range(means - of_largest.mean()),
        "standard error": (sum(variances[:-1]) / len(values) ** 2 + variances[-1]) ** 0.5,
    }
