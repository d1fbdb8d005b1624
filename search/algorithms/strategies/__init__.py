"""The strategies of the package, which register themselves as a user's do."""

from search.algorithms.strategies.coarse_to_fine import CoarseToFine
from search.algorithms.strategies.evolution import Evolution
from search.algorithms.strategies.pareto import ParetoSearch
from search.algorithms.strategies.random_search import RandomSearch

__all__ = ["CoarseToFine", "Evolution", "ParetoSearch", "RandomSearch"]
