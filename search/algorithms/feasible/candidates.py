"""The architectures that a search may evaluate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from search.algorithms.feasible.feasible_set import FeasibleSet
from search.algorithms.feasible.reach import fastest
from search.algorithms.feasible.refusals import too_slow
from search.algorithms.pricing.compiled import Batch, Codes, CompiledSpace
from search.algorithms.pricing.limits import Mask, compile_limits
from search.algorithms.pricing.price import Prices
from search.algorithms.record.settings import Budget
from search.spaces import Arch, Space


class Candidates:
    """What a budget leaves of a space.

    Attributes:
        pool: All of it where the budget leaves few architectures, else as many as asked for, drawn uniformly.
        whole: Whether the pool is all.
        priced: Architectures priced for it: all that may be within the budget where these are few, else draws.
        share: Of the space that is within the budget; exact where the pool is all, else estimated by the draws.
        smallest_ms: Smallest latency within the other budgets: what counts, the bound where it is cautious.
    """

    def __init__(
        self, space: Space, prices: Prices, budget: Budget, draws: int, generator: np.random.Generator
    ):
        """`draws`: the largest pool; `generator`: for these and all later draws.

        Raises:
            InfeasibleError: nothing meets the budget; says the smallest latency that can be reached.
            UsageError: a LUT lacks blocks of the space, or the budget does not name a latency for each LUT.
        """
        self.compiled = CompiledSpace(space, prices, budget.confidence)
        self._limits = compile_limits(self.compiled, budget)
        self._generator = generator
        corner = fastest(self.compiled, self._limits)
        if not self.allow([corner.arch]).all():
            raise too_slow(self.compiled, budget, corner.priced)
        self.smallest_ms = corner.priced.latency_high_ms if budget.cautious else corner.priced.latency_ms
        self._feasible = FeasibleSet(self.compiled, self._limits)
        self.whole = self._feasible.most <= draws
        if self.whole:
            self.pool, self.priced = self._feasible.enumerate(), self._feasible.most
            self.share = len(self.pool) / space.size()
        else:
            drawn = self._feasible.sample(draws, generator)
            codes = np.concatenate([self.compiled.encode([corner.arch]), drawn.codes])
            self.pool, self.priced = _distinct(codes), drawn.proposed
            self.share = self._feasible.most / space.size() * len(drawn.codes) / drawn.proposed

    def allow(self, archs: Sequence[Arch]) -> Mask:
        """Which are within the budget; `UsageError` for one that is not of the space."""
        return self._limits.allow(self.compiled, self.compiled.encode(archs))

    def price(self, archs: Sequence[Arch]) -> Batch:
        """What they cost."""
        return self.compiled.price(self.compiled.encode(archs))

    def repair(self, archs: Sequence[Arch]) -> tuple[list[Arch], Mask]:
        """Architectures near these that fit the budget's bins, and which of them are within it in truth."""
        codes, within = self._feasible.repair(self.compiled.encode(archs), self._generator)
        return self.compiled.decode(codes), within

    def draw(self, count: int) -> list[Arch]:
        """The whole pool in random order where it is all, else about `count` fresh draws."""
        if self.whole:
            return self.compiled.decode(self.pool[self._generator.permutation(len(self.pool))])
        return self.compiled.decode(self._feasible.sample(count, self._generator).codes)


def _distinct(codes: Codes) -> Codes:
    """Each row once, where it first stands."""
    _, first = np.unique(codes, axis=0, return_index=True)
    return np.asfortranarray(codes[np.sort(first)])
