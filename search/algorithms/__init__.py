"""Architecture search: what is affordable by a LUT, then what is accurate by a supernet."""

from search.algorithms.evaluation.cache import CachedEvaluator
from search.algorithms.evaluation.inherited import inherited_accuracy
from search.algorithms.feasible.errors import InfeasibleError
from search.algorithms.feasible.reach import Reach, reachable
from search.algorithms.interfaces.objective import Evaluator, Executor, InProcess, Objective
from search.algorithms.interfaces.objectives import (
    ObjectiveOpener,
    objective_names,
    open_objective,
    register_objective,
)
from search.algorithms.pricing.compiled import CompiledSpace
from search.algorithms.pricing.costs import Latency, Priced
from search.algorithms.pricing.price import LutPrice, Prices
from search.algorithms.record import Budget, Criterion, Evaluated, SearchResult, SearchSettings, front
from search.algorithms.record.settings import INHERITED_ACCURACY
from search.algorithms.strategies import CoarseToFine, Evolution, ParetoSearch, RandomSearch
from search.algorithms.study.search import Begun, search
from search.algorithms.study.strategy import Strategy, get_strategy, register_strategy, strategy_names
from search.algorithms.study.study import Study

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
