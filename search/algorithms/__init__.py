"""Architecture search: what is affordable by a LUT, then what is accurate by a supernet."""

from search.algorithms.cache import CachedEvaluator
from search.algorithms.compiled import CompiledSpace
from search.algorithms.interfaces import Evaluator, Latency, Priced
from search.algorithms.pareto import front
from search.algorithms.price import LutPrice
from search.algorithms.reach import Reach, reachable
from search.algorithms.record import Budget, SearchResult, SearchSettings
from search.algorithms.strategies import search

__all__ = [
    "Budget",
    "CachedEvaluator",
    "CompiledSpace",
    "Evaluator",
    "Latency",
    "LutPrice",
    "Priced",
    "Reach",
    "SearchResult",
    "SearchSettings",
    "front",
    "reachable",
    "search",
]
