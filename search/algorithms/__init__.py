"""Architecture search: which architectures meet the constraints, and which of them is the best."""

from luts.format.errors import InfeasibleError
from search.algorithms.bounds import LatencyBounds, latency_bounds
from search.algorithms.cost import CompiledSpace, LutPrice, Prices
from search.algorithms.evaluation import CachedEvaluator
from search.algorithms.objectives import (
    Evaluator,
    InProcess,
    Objective,
    ObjectiveOpener,
    StreamingEvaluator,
    inherited_accuracy,
    objective_names,
    open_objective,
    register_objective,
)
from search.algorithms.pareto import pareto_front
from search.algorithms.record import (
    AUTOVIT_SETTINGS,
    INHERITED_ACCURACY,
    Constraints,
    Criterion,
    Evaluated,
    PricedArch,
    SearchResult,
    SearchSettings,
)
from search.algorithms.strategies import (
    AutoVitSearch,
    Evolution,
    LargeFirst,
    LargestNetworks,
    ParetoSearch,
    RandomSearch,
)
from search.algorithms.study import (
    OnStart,
    Strategy,
    Study,
    get_strategy,
    register_strategy,
    search,
    strategy_names,
)

__all__ = [
    "AUTOVIT_SETTINGS",
    "INHERITED_ACCURACY",
    "AutoVitSearch",
    "CachedEvaluator",
    "CompiledSpace",
    "Constraints",
    "Criterion",
    "Evaluated",
    "Evaluator",
    "Evolution",
    "InProcess",
    "InfeasibleError",
    "LargeFirst",
    "LargestNetworks",
    "LatencyBounds",
    "LutPrice",
    "Objective",
    "ObjectiveOpener",
    "OnStart",
    "ParetoSearch",
    "PricedArch",
    "Prices",
    "RandomSearch",
    "SearchResult",
    "SearchSettings",
    "Strategy",
    "StreamingEvaluator",
    "Study",
    "get_strategy",
    "inherited_accuracy",
    "latency_bounds",
    "objective_names",
    "open_objective",
    "pareto_front",
    "register_objective",
    "register_strategy",
    "search",
    "strategy_names",
]
