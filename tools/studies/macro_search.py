"""Searches of NAS-Bench-Macro whose best network is known: what they find, and how many evaluations they need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np

from luts.format.schema import Floats
from luts.format.store import load_lut
from search.algorithms import Constraints, SearchSettings, search, strategy_names
from search.algorithms.objectives import AdditiveModel
from search.blocks import parse_keys
from search.spaces import Arch
from search.spaces.nasbench_macro import key_of
from search.spaces.published import Published
from tools.studies.macro import (
    BUDGETS,
    CALIBRATION_BATCHES,
    NEAR,
    SPACE,
    PricedSpace,
    PublishedResults,
    priced_by,
    read_truth,
    supernet,
)
from tools.studies.shared import Options
from tools.studies.trainings import Training
from tools.tables import RESAMPLES, Interval, Tables, mean_and_range, run_parallel, tau

NEARBY = np.linspace(1 - NEAR, 1 + NEAR, 61)
"""Budgets around one, relative: one budget's largest network is better or worse by chance."""

SETTINGS = SearchSettings(generations=2, additive=0.5)
QUICK_SETTINGS = SearchSettings(population=2, generations=0, draws=100, additive=0.5, sample=10)


def find_winners(options: Options) -> Tables:
    """Train supernets, search in each at every budget, measure the winners; top-1 in percent, range over supernets.

    A search and the simple rules hold the budget with 95 % confidence; the best network holds it by the prediction.
    """
    truth, priced = read_truth(options.truth), priced_by(options.lut)
    trainings = [supernet(options, SPACE, options.epochs, seed) for seed in range(options.seeds)]
    find = partial(winners, priced, options.pick(SETTINGS, QUICK_SETTINGS), options.on)
    found = run_parallel(find, trainings, options.jobs)
    measured_ms = _measured_ms([arch for each in found for arch in each.values()], options)
    true = 100 * truth.accuracies(priced.archs)
    macs = np.array([truth.macs[key_of(arch)] for arch in priced.archs])
    rules = {
        "most MACs": macs,
        "most parameters": np.array([arch.params() for arch in priced.archs]),
        "additive model of truth": np.array(
            AdditiveModel(priced.archs, (true / 100).tolist()).predict(priced.archs)
        ),
    }
    rows = []
    for fraction in BUDGETS:
        budget_ms = priced.budget_ms(fraction)
        picked, by_macs = ([each[f"{fraction:.0%}{kind}"] for each in found] for kind in ("", " of MACs"))
        accuracies = 100 * truth.accuracies(picked)
        equal = np.array([mean_of_equal_latency(priced, true, arch) for arch in picked])
        nearby = [true[highest(priced, macs, budget_ms * factor)] for factor in NEARBY]
        rows.append(
            {
                "within": f"{fraction:.0%}",
                "ms": budget_ms,
                "found": mean_and_range(accuracies),
                "equal latency": mean_and_range(equal),
                "gain": mean_and_range(accuracies - equal),
                "best": true[priced.latency_ms <= budget_ms].max(),
                "found within MACs": mean_and_range(100 * truth.accuracies(by_macs)),
                **{rule: true[highest(priced, score, budget_ms)] for rule, score in rules.items()},
                "most MACs, nearby budgets": float(np.mean(nearby)),
                "measured ms": ", ".join(f"{measured_ms[key_of(arch)]:.3f}" for arch in picked),
            }
        )
    taus = [
        {"of": "latency and MACs", "tau": tau(priced.latency_ms, macs)},
        {"of": "latency and accuracy", "tau": tau(priced.latency_ms, true)},
        {"of": "MACs and accuracy", "tau": tau(macs, true)},
    ]
    return {"Winners on NAS-Bench-Macro": rows, "Kendall's tau": taus}


def winners(priced: PricedSpace, settings: SearchSettings, on: str, training: Training) -> Mapping[str, Arch]:
    """Train a supernet; return the winner of a search at every budget of latency, and of MACs."""
    training.run(on)
    objective = training.evaluators(on, calibration_batches=CALIBRATION_BATCHES).likelihood
    settings = settings.model_copy(update={"seed": training.recipe.seed})
    all_macs = [arch.macs().conv_linear for arch in priced.archs]
    found = {}
    for fraction in BUDGETS:
        macs = int(np.quantile(all_macs, fraction, method="higher"))
        budgets = {
            f"{fraction:.0%}": Constraints(latency_ms=priced.budget_ms(fraction)),
            f"{fraction:.0%} of MACs": Constraints(latency_ms=2 * float(priced.latency_ms.max()), macs=macs),
        }
        for name, budget in budgets.items():
            found[name] = search(SPACE, priced.price, objective, budget, settings).winner.architecture()
    return found


def highest(priced: PricedSpace, score: Floats, budget_ms: float) -> int:
    """Return the network with the highest score among those that hold the budget with 95 % confidence."""
    return int(np.where(priced.bound_ms <= budget_ms, score, -np.inf).argmax())


def mean_of_equal_latency(priced: PricedSpace, values: Floats, arch: Arch) -> float:
    """Return the mean value of all networks within 3 % of a network's predicted latency."""
    latency_ms = float(priced.latency_ms[priced.archs.index(arch)])
    return float(priced.equally_fast(values, latency_ms).mean())


def _measured_ms(archs: Sequence[Arch], options: Options) -> Mapping[str, float]:
    """Return measured latencies by network key, relative to the LUT's reference and in its milliseconds."""
    lut = load_lut(options.lut)
    reference = Published("reference", "the LUT", tuple(parse_keys(lut.reference.blocks)))
    measured = options.measure({"reference": reference, **{key_of(arch): arch for arch in archs}})
    return {row.model: row.ratio * lut.meta.reference_ms for row in measured}


REGRETS = (0.001, 0.003)
"""Differences in top-1 to the best network within the budget that count as near."""
DEFAULT = SearchSettings().strategy


@dataclass(frozen=True)
class SearchGoal:
    """A search whose end is known: networks within a budget, of which the best has the accuracy `best`."""

    truth: PublishedResults
    priced: PricedSpace
    budget_ms: float
    best: float
    generations: int


def compare_strategies(options: Options) -> Tables:
    """Search with every strategy, budget and seed; evaluations until the best network so far is near enough.

    The last column is the fraction of pairs of seeds in which the strategy needs fewer evaluations than the
    default, ties counted half, with the 95 % interval by resampling seeds.
    """
    truth, priced = read_truth(options.truth), priced_by(options.lut)
    names = [DEFAULT, *(name for name in strategy_names() if name != DEFAULT)]
    rows = []
    for fraction in BUDGETS:
        budget_ms = priced.budget_ms(fraction)
        within = truth.accuracies(priced.archs)[priced.latency_ms <= budget_ms]
        goal = SearchGoal(truth, priced, budget_ms, float(within.max()), options.pick(20, 1))
        tasks = [(name, seed) for name in names for seed in range(options.seeds)]
        found = run_parallel(partial(evaluations, goal), tasks, options.jobs)
        needed = dict(
            zip(names, np.array(found).reshape(len(names), options.seeds, len(REGRETS)), strict=True)
        )
        for name in names:
            for column, regret in enumerate(REGRETS):
                own = needed[name][:, column]
                median, ninth = np.percentile(own, (50, 90), method="higher")
                rows.append(
                    {
                        "within": f"{fraction:.0%}",
                        "ms": budget_ms,
                        "best": 100 * goal.best,
                        "points below it": 100 * regret,
                        "networks so near": int((goal.best - within <= regret).sum()),
                        "strategy": name,
                        "median": median,
                        "90th percentile": ninth,
                        "reached": float(np.isfinite(own).mean()),
                        f"fewer than {DEFAULT}": fewer(own, needed[DEFAULT][:, column]),
                    }
                )
    return {"Evaluations of strategies on NAS-Bench-Macro": rows}


def fewer(needed: Floats, than: Floats) -> Interval:
    """Return the fraction of pairs in which the first needs fewer evaluations, with its 95 % interval."""
    pairs = (needed[:, None] < than) + 0.5 * (needed[:, None] == than)
    rng = np.random.default_rng(0)
    drawn = [
        pairs[rng.integers(0, len(needed), len(needed))][:, rng.integers(0, len(than), len(than))].mean()
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(float(pairs.mean()), float(low), float(high))


def evaluations(goal: SearchGoal, task: tuple[str, int]) -> Sequence[float]:
    """Search with a strategy and a seed; return the evaluations until a network is within each of `REGRETS`.

    Infinite where none ever is.
    """
    strategy, seed = task
    settings = SearchSettings(strategy=strategy, generations=goal.generations, seed=seed)
    budget = Constraints(latency_ms=goal.budget_ms, cautious=False)
    objective = NearEnough(goal)
    with suppress(_ReachedError):
        search(SPACE, goal.priced.price, objective, budget, settings)
    return [objective.needed.get(regret, np.inf) for regret in REGRETS]


class _ReachedError(Exception):
    """Ends a search: every regret has been reached."""


class NearEnough:
    """The published accuracy as an objective that stops the search once a network is near enough.

    Attributes:
        needed: Evaluations until a network was within each of `REGRETS` of the best one.
    """

    fingerprint = PublishedResults.fingerprint

    def __init__(self, goal: SearchGoal):
        """Count evaluations from zero."""
        self.needed: dict[float, float] = {}
        self._goal, self._evaluated = goal, 0

    def accuracy(self, arch: Arch) -> float:
        """Return the published accuracy, 0 to 1."""
        self._evaluated += 1
        accuracy = self._goal.truth.accuracy(arch)
        for regret in REGRETS:
            if self._goal.best - accuracy <= regret + 1e-12:
                self.needed.setdefault(regret, self._evaluated)
        if len(self.needed) == len(REGRETS):
            raise _ReachedError
        return accuracy
