"""Architecture search: what is affordable by a LUT, then what is accurate by a supernet."""

from search.algorithms.cache import CachedEvaluator
from search.algorithms.coarse_to_fine import search
from search.algorithms.interfaces import Evaluator, Price, Priced
from search.algorithms.price import LutPrice
from search.algorithms.record import Budget, SearchResult, SearchSettings

__all__ = [
    "Budget",
    "CachedEvaluator",
    "Evaluator",
    "LutPrice",
    "Price",
    "Priced",
    "SearchResult",
    "SearchSettings",
    "search",
]
