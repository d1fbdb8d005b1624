"""Random search: what AutoViT's Table 6 compares with, at the same number of evaluations."""

from __future__ import annotations

from collections.abc import Sequence

from search.algorithms.study.strategy import Strategy, register_strategy
from search.spaces import Arch


@register_strategy("random")
class RandomSearch(Strategy):
    """Uniform draws from all within the budget."""

    def propose(self, count: int) -> Sequence[Arch]:
        return self.study.fresh(count)
