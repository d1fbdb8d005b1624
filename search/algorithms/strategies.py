"""The search itself: one interface, strategies by name, each with the same number of evaluations."""

from __future__ import annotations

from collections.abc import Callable

from search.algorithms.baselines import evolution, random_search
from search.algorithms.coarse_to_fine import coarse_to_fine
from search.algorithms.interfaces import Evaluator
from search.algorithms.pareto import pareto_search
from search.algorithms.price import Prices
from search.algorithms.record import Budget, SearchResult, SearchSettings
from search.algorithms.run import Run
from search.spaces import Space

Begun = Callable[[float], None]
"""Called before the first evaluation with the share of the space that is within the budget."""


def search(
    space: Space,
    prices: Prices,
    evaluator: Evaluator,
    budget: Budget,
    settings: SearchSettings,
    begun: Begun | None = None,
) -> SearchResult:
    """Find the most accurate architecture within a budget; among equals the faster, then the smaller.

    `space` may be a part of a registered one (fewer resolutions, heads or choices). The result depends on the
    arguments alone, so a killed search that is repeated with a caching evaluator goes on where it was.
    Accuracies are asked for one generation at a time.

    Raises:
        InfeasibleError: nothing meets the budget; says the smallest latency that can be reached.
        UsageError: a LUT lacks blocks of the space, or the budget does not name a latency for each LUT.
    """
    run = Run(space, prices, evaluator, budget, settings)
    if begun is not None:
        begun(run.share)
    match settings.strategy:
        case "coarse-to-fine":
            return run.result(coarse_to_fine(run))
        case "evolution":
            evolution(run)
        case "random":
            random_search(run)
        case "pareto":
            pareto_search(run)
    return run.result()
