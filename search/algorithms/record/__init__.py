"""What a search is asked and what it gives, as values and as a JSON file."""

from search.algorithms.record.front import front
from search.algorithms.record.result import (
    Coarse,
    Evaluated,
    Generation,
    LutPin,
    Provenance,
    SearchInputs,
    SearchResult,
)
from search.algorithms.record.settings import Budget, Criterion, SearchSettings

__all__ = [
    "Budget",
    "Coarse",
    "Criterion",
    "Evaluated",
    "Generation",
    "LutPin",
    "Provenance",
    "SearchInputs",
    "SearchResult",
    "SearchSettings",
    "front",
]
