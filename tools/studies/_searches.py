"""The search that studies judge: by `inherited-likelihood`, half of it by an additive model of the choices."""

from __future__ import annotations

from search.algorithms import Budget, CachedEvaluator, SearchSettings, search
from search.algorithms.cost import LutPrice
from search.spaces import Arch, Space

_SETTINGS = SearchSettings(generations=2, additive=0.5)
_QUICK = SearchSettings(population=2, generations=0, draws=100, additive=0.5, sample=10)


def settings_of(quick: bool, seed: int = 0) -> SearchSettings:
    """Of such a search."""
    return (_QUICK if quick else _SETTINGS).model_copy(update={"seed": seed})


def searched(
    space: Space, price: LutPrice, judge: CachedEvaluator, budget: Budget, settings: SearchSettings
) -> Arch:
    """The winner within a budget."""
    return search(space, price, judge, budget, settings).winner.architecture()
