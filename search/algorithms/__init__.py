"""Architecture search: which architectures meet the constraints, and which of them is the best."""

from luts.format.errors import InfeasibleError
from search.algorithms import strategies
from search.algorithms.bounds import latency_bounds
from search.algorithms.cost import CompiledSpace, LutPrice
from search.algorithms.evaluation import CachedEvaluator
from search.algorithms.objectives import (
    Evaluator,
    InProcess,
    Objective,
    ObjectiveOpener,
    objective_names,
    open_objective,
    register_objective,
)
from search.algorithms.pareto import pareto_front
from search.algorithms.record import (
    AUTOVIT_SETTINGS,
    Constraints,
    Criterion,
    Evaluated,
    PricedArch,
    SearchResult,
    SearchSettings,
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
