"""Architecture search: what is affordable by a LUT, then what is accurate by a supernet."""

from search.algorithms.cost import CompiledSpace, Latency, LutPrice, Priced, Prices
from search.algorithms.evaluation import CachedEvaluator
from search.algorithms.feasible import InfeasibleError, Reach, reachable
from search.algorithms.objectives import (
    Evaluator,
    Executor,
    InProcess,
    Objective,
    ObjectiveOpener,
    inherited_accuracy,
    objective_names,
    open_objective,
    register_objective,
)
from search.algorithms.record import (
    INHERITED_ACCURACY,
    Budget,
    Criterion,
    Evaluated,
    SearchResult,
    SearchSettings,
    front,
)
from search.algorithms.strategies import CoarseToFine, Evolution, ParetoSearch, RandomSearch
from search.algorithms.study import (
    Begun,
    Strategy,
    Study,
    get_strategy,
    register_strategy,
    search,
    strategy_names,
)

__all__ = [
    "INHERITED_ACCURACY",
    "Begun",
    "Budget",
    "CachedEvaluator",
    "CoarseToFine",
    "CompiledSpace",
    "Criterion",
    "Evaluated",
    "Evaluator",
    "Evolution",
    "Executor",
    "InProcess",
    "InfeasibleError",
    "Latency",
    "LutPrice",
    "Objective",
    "ObjectiveOpener",
    "ParetoSearch",
    "Priced",
    "Prices",
    "RandomSearch",
    "Reach",
    "SearchResult",
    "SearchSettings",
    "Strategy",
    "Study",
    "front",
    "get_strategy",
    "inherited_accuracy",
    "objective_names",
    "open_objective",
    "reachable",
    "register_objective",
    "register_strategy",
    "search",
    "strategy_names",
]
