"""Searches of NAS-Bench-Macro whose best network is known: what they find, and how many evaluations they need."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np

from luts.format.schema import Floats
from search.algorithms import Constraints, SearchSettings, search, strategy_names
from search.algorithms.record import usual_settings
from search.spaces import Arch
from tools.studies.macro import (
    BUDGETS,
    SPACE,
    PricedSpace,
    PublishedResults,
    priced_by,
    read_truth,
)
from tools.studies.shared import Options
from tools.tables import RESAMPLES, Interval, Tables, run_parallel

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
    changes = {"generations": goal.generations, "seed": seed}
    settings = usual_settings(strategy).model_copy(update=changes)
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
