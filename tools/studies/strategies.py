"""Evaluations that strategies need to come near the truly best network within a latency (NAS-Bench-Macro)."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np

from search.algorithms import Budget, SearchSettings, search, strategy_names
from tools.studies._macro import BUDGETS, SPACE, Priced, Truth, open_truth, priced
from tools.studies._options import Options

REGRETS = (0.001, 0.003)
"""Top-1 below the best within the budget, that counts as near."""

GENERATIONS = 20
QUICK_GENERATIONS = 1
PERCENTILES = (50, 90)


def main(options: Options) -> str:
    """Search with every strategy, budget and seed; the section's text."""
    truth, costs = open_truth(options.truth), priced(options.lut)
    generations = QUICK_GENERATIONS if options.quick else GENERATIONS
    spawned = multiprocessing.get_context("spawn")
    names = [name for name in strategy_names() if name != "pareto"] + ["pareto"]
    rows = []
    with ProcessPoolExecutor(options.jobs, mp_context=spawned) as pool:
        for share in BUDGETS:
            budget_ms = costs.budget_ms(share)
            within = [a for a, ms in zip(costs.archs, costs.latency_ms, strict=True) if ms <= budget_ms]
            best = max(truth.accuracy(arch) for arch in within)
            near = [sum(best - truth.accuracy(arch) <= regret for arch in within) for regret in REGRETS]
            for name in names:
                one = partial(evaluations, truth, costs, budget_ms, best, name, generations)
                needed = np.array(list(pool.map(one, range(options.seeds))), dtype=float)
                rows.append(
                    f"| {share:.0%}, {budget_ms:.2f} ms | {100 * best:.2f} | {near[0]}, {near[1]} | {name} | "
                    + " | ".join(_cell(column) for column in needed.T)
                    + " |"
                )
    most = SearchSettings(generations=generations).evaluations
    made_up = "SIMULATED latencies, not measured on any device. " if costs.simulated else ""
    return f"""### Strategies where the truth is known (NAS-Bench-Macro)

{made_up}Space `nasbench-macro` (6,561 networks), latency by {costs.name}; the objective is the
published top-1 on CIFAR-10, mean of the table's trainings, so nothing was trained here. Evaluations until the best
so far is within 0.1 or 0.3 points of the best network within the budget, of {most} at most: median and 90th
percentile of {options.seeds} seeds, in brackets the share of seeds that came so near.

| networks within | best, % | so near are | strategy | to 0.1 points | to 0.3 points |
|---|---|---|---|---|---|
{chr(10).join(rows)}
"""


def evaluations(
    truth: Truth, costs: Priced, budget_ms: float, best: float, strategy: str, generations: int, seed: int
) -> Sequence[float]:
    """Evaluations until the best so far is as near to `best` as each of `REGRETS`; infinite where it never is."""
    settings = SearchSettings(strategy=strategy, generations=generations, seed=seed)
    result = search(SPACE, costs.price, truth, Budget(latency_ms=budget_ms, cautious=False), settings)
    so_far = np.maximum.accumulate([row.accuracy for row in result.evaluated])
    near = [np.flatnonzero(best - so_far <= regret + 1e-12) for regret in REGRETS]
    return [float(first[0]) + 1 if len(first) else np.inf for first in near]


def _cell(needed: np.ndarray) -> str:
    reached = f"({np.isfinite(needed).mean():.0%})"
    texts = [
        f"{value:.0f}" if np.isfinite(value) else "never"
        for value in np.percentile(needed, PERCENTILES, method="higher")
    ]
    return f"{texts[0]}, {texts[1]} {reached}"
