"""Evaluations that strategies need to come near the truly best network within a latency (NAS-Bench-Macro)."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import partial

import numpy as np

from luts.format.processes import end_with_parent
from luts.format.schema import Floats
from search.algorithms import Budget, SearchSettings, search, strategy_names
from search.spaces import Arch
from tools.studies._macro import BUDGETS, SPACE, Priced, Truth, open_truth, priced
from tools.studies._options import Options

REGRETS = (0.001, 0.003)
"""Top-1 below the best within the budget, that counts as near."""

GENERATIONS = 20
QUICK_GENERATIONS = 1
PERCENTILES = (50, 90)
DEFAULT = SearchSettings().strategy
RESAMPLES = 2000
CHUNK = 25
"""Searches that a process is handed at a time, with the table and all latencies."""


def main(options: Options) -> str:
    """Search with every strategy, budget and seed; the section's text."""
    truth, costs = open_truth(options.truth), priced(options.lut)
    generations = QUICK_GENERATIONS if options.quick else GENERATIONS
    spawned = multiprocessing.get_context("spawn")
    names = [name for name in strategy_names() if name != "pareto"] + ["pareto"]
    rows, compared = [], []
    with ProcessPoolExecutor(options.jobs, spawned, end_with_parent) as pool:
        for share in BUDGETS:
            budget_ms = costs.budget_ms(share)
            within = [a for a, ms in zip(costs.archs, costs.latency_ms, strict=True) if ms <= budget_ms]
            best = max(truth.accuracy(arch) for arch in within)
            near = [sum(best - truth.accuracy(arch) <= regret for arch in within) for regret in REGRETS]
            needed = {}
            for name in names:
                one = partial(evaluations, truth, costs, budget_ms, best, name, generations)
                seeds = pool.map(one, range(options.seeds), chunksize=CHUNK)
                needed[name] = np.array(list(seeds), dtype=float)
                rows.append(
                    f"| {share:.0%}, {budget_ms:.2f} ms | {100 * best:.2f} | {near[0]}, {near[1]} | {name} | "
                    + " | ".join(_cell(column) for column in needed[name].T)
                    + " |"
                )
            compared += [
                (share, regret, name, fewer(needed[name][:, column], needed[DEFAULT][:, column]))
                for column, regret in enumerate(REGRETS)
                for name in names
                if name != DEFAULT
            ]
    most = SearchSettings(generations=generations).evaluations
    return f"""### Strategies where the truth is known (NAS-Bench-Macro)

{costs.made_up}Space `nasbench-macro` (6,561 networks), latency by {costs.name}; the objective is the
published top-1 on CIFAR-10, mean of the table's trainings, so nothing was trained here. Evaluations until the best
so far is within 0.1 or 0.3 points of the best network within the budget, of {most} at most: median and 90th
percentile of {options.seeds} seeds, in brackets the share of seeds that came so near.

| networks within | best, % | so near are | strategy | to 0.1 points | to 0.3 points |
|---|---|---|---|---|---|
{chr(10).join(rows)}

How often one seed of another strategy needs fewer evaluations than one seed of {DEFAULT}, the default, ties by
half, 95 % by resampling seeds. {_verdicts(compared)}
"""


def fewer(needed: Floats, than: Floats) -> tuple[float, float, float]:
    """Share of the pairs of a seed of each in which the first needs fewer evaluations, and its 95 % interval."""
    pairs = (needed[:, None] < than) + 0.5 * (needed[:, None] == than)
    rng = np.random.default_rng(0)
    drawn = [
        pairs[rng.integers(0, len(needed), len(needed))][:, rng.integers(0, len(than), len(than))].mean()
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(pairs.mean()), float(low), float(high)


def _verdicts(compared: Sequence[tuple[float, float, str, tuple[float, float, float]]]) -> str:
    """Which strategies are better than the default where, which are worse, and which can't be told apart."""
    told: dict[str, list[str]] = {"Better than it": [], "Worse": [], "Not told apart": []}
    for share, regret, name, (mean, low, high) in compared:
        verdict = "Better than it" if low > 0.5 else "Worse" if high < 0.5 else "Not told apart"
        told[verdict].append(
            f"{name} at {share:.0%} to {100 * regret:.1f} points {mean:.0%} ({low:.0%} to {high:.0%})"
        )
    return " ".join(f"{verdict}: {', '.join(those) or 'none'}." for verdict, those in told.items())


def evaluations(
    truth: Truth, costs: Priced, budget_ms: float, best: float, strategy: str, generations: int, seed: int
) -> Sequence[float]:
    """Evaluations until the best so far is as near to `best` as each of `REGRETS`; infinite where it never is."""
    settings = SearchSettings(strategy=strategy, generations=generations, seed=seed)
    judge = NearEnough(truth, best)
    with suppress(_Reached):
        search(SPACE, costs.price, judge, Budget(latency_ms=budget_ms, cautious=False), settings)
    return [judge.needed.get(regret, np.inf) for regret in REGRETS]


class _Reached(Exception):
    """Nothing that comes later counts."""


class NearEnough:
    """The truth as an objective; ends the search with `_Reached` once a network is as near as is asked of any.

    Attributes:
        needed: Evaluations until one was as near to the best as each of `REGRETS`, where one was.
    """

    fingerprint = Truth.fingerprint

    def __init__(self, truth: Truth, best: float):
        self.needed: dict[float, float] = {}
        self._truth, self._best, self._evaluated = truth, best, 0

    def accuracy(self, arch: Arch) -> float:
        """The published one."""
        self._evaluated += 1
        accuracy = self._truth.accuracy(arch)
        for regret in REGRETS:
            if self._best - accuracy <= regret + 1e-12:
                self.needed.setdefault(regret, self._evaluated)
        if len(self.needed) == len(REGRETS):
            raise _Reached
        return accuracy


def _cell(needed: Floats) -> str:
    reached = f"({np.isfinite(needed).mean():.0%})"
    texts = [
        f"{value:.0f}" if np.isfinite(value) else "never"
        for value in np.percentile(needed, PERCENTILES, method="higher")
    ]
    return f"{texts[0]}, {texts[1]} {reached}"
