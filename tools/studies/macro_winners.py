"""What a search of NAS-Bench-Macro picks, with and without finals, against simple rules, by smoothed accuracies."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from luts.format.schema import Floats
from search.algorithms import Constraints, SearchResult, SearchSettings, search
from search.algorithms.finals import Finals, Rule, finalists, hold_finals
from search.algorithms.naswot import NaswotScore
from search.spaces import Arch
from search.spaces.nasbench_macro import key_of
from search.spaces.registry import arch_from_json
from tools.studies.macro import (
    BUDGETS,
    CALIBRATION_BATCHES,
    SPACE,
    PricedSpace,
    PublishedResults,
    macro_training,
    priced_by,
    read_truth,
)
from tools.studies.shared import Options
from tools.studies.trainings import Training
from tools.tables import Interval, Rows, Tables, mean_and_range, run_parallel

SETTINGS = SearchSettings(generations=1, additive=0.5)
QUICK_SETTINGS = SearchSettings(population=12, skeletons=6, generations=0, additive=0.5, sample=10)
MANY_BUDGETS = np.linspace(0.05, 0.95, 91)
"""Budgets of rules that need no supernet."""
IMAGES = 1000
"""Images of the search split that networks are judged by."""
FINALS = 8
SCORED = 48
"""Largest networks that NASWOT chooses among."""
REPEATS = 200
"""Draws of the noise of the finals' trainings."""


@dataclass(frozen=True)
class Judged:
    """Searches with one supernet.

    Attributes:
        results: Of each budget.
        top1: Inherited top-1 of the networks that were evaluated.
        seconds: Of one evaluation, on average.
    """

    results: Mapping[float, SearchResult]
    top1: Mapping[Arch, float]
    seconds: float


def find_winners(options: Options) -> Tables:
    """Train supernets and search in each; regret of the picks of all rules, in points of smoothed top-1."""
    truth, priced = read_truth(options.truth), priced_by(options.lut)
    trainings = [macro_training(options, SPACE, options.epochs, seed) for seed in range(options.seeds)]
    judge = partial(judge_networks, priced, options.pick(SETTINGS, QUICK_SETTINGS), options.on)
    judged = run_parallel(judge, trainings, options.jobs)
    world = MacroWorld(truth, priced, options.data)
    rows = []
    for fraction in BUDGETS:
        within, row = world.within(fraction), {"within": f"{fraction:.0%}", "ms": priced.budget_ms(fraction)}
        row |= {name: world.regret(fraction, pick) for name, pick in world.rules(within).items()}
        for name, pick in JUDGES.items():
            row[name] = mean_and_range([world.regret(fraction, pick(each, fraction)) for each in judged])
        rows.append(row)
    many = [
        {
            "rule": name,
            "regret": statistics.fmean(
                world.regret(f, world.rules(world.within(f), score=False)[name]) for f in MANY_BUDGETS
            ),
        }
        for name in ("largest", "deepest")
    ]
    return {
        "Regret by budget": [*rows, _mean_row(rows)],
        "Regret over 91 budgets": many,
        "Finals": [world.finals(judged, fraction) for fraction in BUDGETS],
        "Trainings chosen without a supernet": [world.without_supernet(fraction) for fraction in BUDGETS],
        "Cost of an evaluation": [
            {"seed": seed, "seconds": each.seconds} for seed, each in enumerate(judged)
        ],
        "Noise": [{"sd of one training": 100 * truth.noise}],
    }


def judge_networks(priced: PricedSpace, settings: SearchSettings, on: str, training: Training) -> Judged:
    """Train a supernet, and search at every budget by inherited likelihood, half additive."""
    training.run(on)
    opened = training.evaluators(on, calibration_batches=CALIBRATION_BATCHES, images=IMAGES)
    settings = settings.model_copy(update={"seed": training.recipe.seed})
    judge = _Both(opened.likelihood.accuracies, opened.top1.accuracies, opened.likelihood.fingerprint)
    results = {
        fraction: search(
            SPACE, priced.price, judge, Constraints(latency_ms=priced.budget_ms(fraction)), settings
        )
        for fraction in BUDGETS
    }
    return Judged(results, judge.top1, judge.seconds / max(1, len(judge.top1)))


class _Both:
    """An evaluator of likelihood that also records top-1 and the time that both take."""

    def __init__(
        self,
        likelihoods: Callable[[Sequence[Arch]], list[float]],
        accuracies: Callable[[Sequence[Arch]], list[float]],
        fingerprint: str,
    ):
        self.fingerprint = fingerprint
        self._likelihoods, self._accuracies = likelihoods, accuracies
        self.top1: dict[Arch, float] = {}
        self.seconds = 0.0

    def accuracies(self, archs: Sequence[Arch]) -> list[float]:
        """Return likelihoods; networks that begin alike follow each other, and share what is cached."""
        found, start = {}, time.monotonic()
        for arch in sorted(archs, key=key_of):
            (found[arch],), (self.top1[arch],) = self._likelihoods([arch]), self._accuracies([arch])
        self.seconds += time.monotonic() - start
        return [found[arch] for arch in archs]


JUDGES: Mapping[str, Callable[[Judged, float], Arch]] = {
    "search": lambda judged, fraction: judged.results[fraction].winner.architecture(),
    "inherited top-1": lambda judged, fraction: max(
        (row.architecture() for row in judged.results[fraction].evaluated), key=judged.top1.__getitem__
    ),
}
"""Picks of a supernet among the same evaluated networks."""


@dataclass(frozen=True)
class MacroWorld:
    """All networks with smoothed accuracies, and their published trainings for finals."""

    truth: PublishedResults
    priced: PricedSpace
    images: str | None

    def accuracy(self, arch: Arch) -> float:
        """Return the smoothed top-1 in percent."""
        return 100 * self.truth.smoothed[key_of(arch)]

    @cached_property
    def _by_size(self) -> Sequence[tuple[Arch, float, float]]:
        """All networks with their upper bound in ms and accuracy, the largest first."""
        rows = zip(self.priced.archs, self.priced.bound_ms.tolist(), strict=True)
        found = [(arch, bound_ms, self.accuracy(arch)) for arch, bound_ms in rows]
        return sorted(found, key=lambda row: (-row[0].macs().conv_linear, -row[0].params(), key_of(row[0])))

    def within(self, fraction: float) -> list[Arch]:
        """Return the networks whose upper bound is within a budget, the largest first."""
        budget_ms = self.priced.budget_ms(fraction)
        return [arch for arch, bound_ms, _ in self._by_size if bound_ms <= budget_ms]

    def regret(self, fraction: float, pick: Arch) -> float:
        """Return how far a pick is below the best network within the budget, in points."""
        budget_ms = self.priced.budget_ms(fraction)
        best = max(accuracy for _, bound_ms, accuracy in self._by_size if bound_ms <= budget_ms)
        return best - self.accuracy(pick)

    def rules(self, within: Sequence[Arch], *, score: bool = True) -> dict[str, Arch]:
        """Return the picks of rules that train nothing; NASWOT only with `score`."""
        picks = {"largest": within[0], "deepest": max(within, key=_depth)}
        if score:
            for name, images in {"NASWOT": self.images, "NASWOT, noise": None}.items():
                picks[name] = max(within[:SCORED], key=NaswotScore.open(images).accuracy)
        return picks

    def finals(self, judged: Sequence[Judged], fraction: float) -> dict[str, object]:
        """Return regrets of finals at a budget: by published trainings, and by simulated noise around the truth."""
        chosen = [finalists(each.results[fraction], FINALS, lambda _: True) for each in judged]
        largest = self.regret(fraction, self.within(fraction)[0])
        published = [self._held(each, first, confirm=1) for each in chosen for first in (0, 1)]
        unconfirmed = [self._held(each, first, confirm=0) for each in chosen for first in (0, 1)]
        simulated = [
            self._held(each, None, confirm=1, draw=draw) for each in chosen for draw in range(REPEATS)
        ]
        gains = [largest - self.regret(fraction, pick) for pick in simulated]
        return {
            "within": f"{fraction:.0%}",
            "largest": largest,
            "finals, best taken": mean_and_range([self.regret(fraction, pick) for pick in unconfirmed]),
            "finals, confirmed": mean_and_range([self.regret(fraction, pick) for pick in published]),
            "simulated noise": largest - statistics.fmean(gains),
            "worse than the largest by 0.1": statistics.fmean(gain < -0.1 for gain in gains),
            "other than the largest": statistics.fmean(
                pick != self.within(fraction)[0] for pick in simulated
            ),
        }

    def _held(self, chosen: Mapping[str, Rule], first: int | None, confirm: int, draw: int = 0) -> Arch:
        """Return the winner of finals by published trainings in an order, or by simulated ones."""
        rng = np.random.default_rng(draw)

        def train(archs: Sequence[str], seed: int) -> dict[str, float]:
            keys = {arch: key_of(arch_from_json(arch)) for arch in archs}
            if first is not None:
                return {arch: self.truth.trainings[key][(first + seed) % 2] for arch, key in keys.items()}
            noise = rng.normal(0, self.truth.noise, len(archs))
            return {
                arch: float(np.clip(self.truth.smoothed[key] + error, 0, 1))
                for (arch, key), error in zip(keys.items(), noise, strict=True)
            }

        held = Finals(recipe="", fingerprint="", finals=hold_finals(chosen, train, 0, confirm))
        return arch_from_json(held.winner.arch)

    def without_supernet(self, fraction: float) -> dict[str, object]:
        """Return regrets of as many trainings as finals take, without a supernet, by simulated noise."""
        within = self.within(fraction)
        rules: dict[str, Rule] = {within[0].to_json(): "largest"}
        rules |= {each.to_json(): "search" for each in within[1:FINALS]}
        large = [self._held(rules, None, confirm=1, draw=draw) for draw in range(REPEATS)]
        row: dict[str, object] = {"within": f"{fraction:.0%}"}
        row["8 largest, confirmed"] = statistics.fmean(self.regret(fraction, pick) for pick in large)
        for trainings in (FINALS + 2, 2 * FINALS):
            picks = [self.by_gaussian_process(within, trainings, draw) for draw in range(REPEATS // 10)]
            row[f"Gaussian process, {trainings} trainings"] = statistics.fmean(
                self.regret(fraction, pick) for pick in picks
            )
        return row

    def by_gaussian_process(self, within: Sequence[Arch], trainings: int, draw: int) -> Arch:
        """Return the best of networks that are trained one after another by expected improvement.

        A Gaussian process on one-hot choices and MACs chooses the next; the first is the largest. The network with
        the highest posterior mean is returned.
        """
        from scipy.stats import norm
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel

        rng = np.random.default_rng(draw)
        features = np.array([_features(arch) for arch in within])
        true = np.array([self.accuracy(arch) for arch in within])
        start = [0, *rng.choice(np.arange(1, len(within)), 3, replace=False).tolist()]
        noise = 100 * self.truth.noise
        seen = {at: true[at] + rng.normal(0, noise) for at in start}
        kernel = ConstantKernel(1.0) * RBF(3.0) + DotProduct(1.0) + WhiteKernel(noise**2, "fixed")
        while True:
            known = list(seen)
            model = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
            mean, sd = model.fit(features[known], [seen[at] for at in known]).predict(
                features, return_std=True
            )
            if len(seen) == trainings:
                return within[int(mean.argmax())]
            z = (mean - max(seen.values())) / sd
            gain = sd * (z * norm.cdf(z) + norm.pdf(z))
            gain[known] = -np.inf
            at = int(gain.argmax())
            seen[at] = true[at] + rng.normal(0, noise)


def _depth(arch: Arch) -> tuple[int, int]:
    return sum(block.costs.mixes_positions for block in arch.blocks()), arch.macs().conv_linear


def _features(arch: Arch) -> Floats:
    choices = np.eye(3)[[int(digit) for digit in key_of(arch)]].reshape(-1)
    return np.append(choices, arch.macs().conv_linear / 2e7)


def _mean_row(rows: Rows) -> dict[str, object]:
    """Return the mean of every column of regrets; of columns over supernets that of their means."""
    row: dict[str, object] = {"within": "mean", "ms": None}
    for name in rows[0]:
        if name not in row:
            values = [each[name] for each in rows]
            row[name] = statistics.fmean(v.value if isinstance(v, Interval) else v for v in values)
    return row
