"""A search under way: what may be evaluated, what has been, and what of it is best."""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Sequence

import numpy as np

from luts.errors import InfeasibleError
from search.algorithms.compiled import Codes, CompiledSpace
from search.algorithms.feasible import FeasibleSet
from search.algorithms.interfaces import Evaluator
from search.algorithms.limits import compile_limits
from search.algorithms.price import Prices
from search.algorithms.reach import Corner, fastest
from search.algorithms.record import Budget, Coarse, Evaluated, Generation, SearchResult, SearchSettings
from search.spaces import Arch, Space


class Run:
    """The state that all strategies share. Nothing is evaluated twice and nothing beyond the budget.

    Attributes:
        pool: Architectures within the budget: all where the budget leaves at most `settings.draws`, else as many
            drawn uniformly.
    """

    def __init__(
        self,
        space: Space,
        prices: Prices,
        evaluator: Evaluator,
        budget: Budget,
        settings: SearchSettings,
    ):
        """Compile the prices and find what the budget allows.

        Raises:
            InfeasibleError: nothing meets the budget; says the smallest latency that can be reached.
            UsageError: a LUT lacks blocks of the space, or the budget does not name a latency for each LUT.
        """
        self.space, self.evaluator, self.budget = space, evaluator, budget
        self.settings = settings
        self.rng = random.Random(settings.seed)
        self.draws = np.random.default_rng(settings.seed)
        self.compiled = CompiledSpace(space, prices, budget.confidence)
        limits = compile_limits(self.compiled, budget)
        self.fastest = fastest(self.compiled, limits)
        fastest_codes = self.compiled.encode([self.fastest.arch])
        if not limits.allow(self.compiled, fastest_codes).all():
            raise InfeasibleError(_refusal(space, budget, self.fastest))
        self.feasible = FeasibleSet(self.compiled, limits)
        self.whole = self.feasible.most <= settings.draws
        if self.whole:
            self.pool, self.priced = self.feasible.enumerate(), self.feasible.most
            self.share = len(self.pool) / space.size()
        else:
            drawn = self.feasible.sample(settings.draws, self.draws)
            codes = np.concatenate([fastest_codes, drawn.codes])
            self.pool, self.priced = distinct(codes), drawn.proposed
            self.share = self.feasible.most / space.size() * len(drawn.codes) / drawn.proposed
        self.evaluated: dict[Arch, Evaluated] = {}
        self.history: list[Generation] = []

    @property
    def children(self) -> int:
        """Architectures of a generation after the first."""
        return self.settings.crossovers + self.settings.mutations

    def evaluate(self, archs: Sequence[Arch]) -> None:
        """Evaluate one generation of new architectures."""
        batch = self.compiled.price(self.compiled.encode(archs))
        index = len(self.history)
        for row, accuracy in enumerate(self.evaluator.accuracies(archs)):
            cost = batch[row]
            found = Evaluated(
                arch=archs[row].to_json(),
                accuracy=accuracy,
                latency_ms=cost.latency_ms,
                latency_high_ms=cost.latency_high_ms,
                further_latency_ms=tuple(latency.ms for latency in cost.further),
                further_latency_high_ms=tuple(latency.high_ms for latency in cost.further),
                params=cost.params,
                macs=cost.macs,
                memory_bytes=cost.memory_bytes,
                generation=index,
            )
            self.evaluated[archs[row]] = found
        new = [self.evaluated[arch].accuracy for arch in archs]
        best = max(found.accuracy for found in self.evaluated.values())
        self.history.append(Generation(index=index, new=len(new), best=best, mean=sum(new) / len(new)))

    def loss(self, found: Evaluated) -> float:
        """L(s) + lambda C(s): the share of wrong answers and what the latency is worth."""
        return 1.0 - found.accuracy + self.settings.loss_per_ms * found.latency_ms

    def ranked(self) -> list[Arch]:
        """All evaluated architectures, best first; among equals the faster, then the smaller."""
        found = self.evaluated
        return sorted(
            found, key=lambda a: (self.loss(found[a]), found[a].latency_ms, found[a].params, found[a].arch)
        )

    def breed(self, makers: Sequence[Callable[[], Arch]]) -> list[Arch]:
        """A child of each maker, repaired where it breaks the budget; a maker that gives nothing new in
        `settings.redraws` attempts gives way to a draw from all within the budget."""
        chosen: dict[Arch, None] = {}
        waiting = list(makers)
        for _ in range(self.settings.redraws):
            if not waiting:
                break
            made = self.compiled.encode([make() for make in waiting])
            codes, within = self.feasible.repair(made, self.draws)
            barren = []
            for make, arch, fits in zip(waiting, self.compiled.decode(codes), within, strict=True):
                if fits and arch not in self.evaluated and arch not in chosen:
                    chosen[arch] = None
                else:
                    barren.append(make)
            waiting = barren
        return [*chosen, *self.fresh(len(waiting), chosen)]

    def fresh(self, count: int, besides: Container[Arch] = ()) -> list[Arch]:
        """Up to `count` architectures within the budget at random, none evaluated and none of `besides`."""
        found: dict[Arch, None] = {}
        for _ in range(1 if self.whole else self.settings.redraws):
            if len(found) == count:
                break
            for arch in self.compiled.decode(self._shuffled(count)):
                if len(found) < count and arch not in self.evaluated and arch not in besides:
                    found[arch] = None
        return list(found)

    def _shuffled(self, count: int) -> Codes:
        if self.whole:
            return self.pool[self.draws.permutation(len(self.pool))]
        return self.feasible.sample(count, self.draws).codes

    def result(self, skeletons: int = 0) -> SearchResult:
        """The record of what was done up to now."""
        latency_ms = (
            self.fastest.priced.latency_high_ms if self.budget.cautious else self.fastest.priced.latency_ms
        )
        return SearchResult(
            space=self.space.name,
            space_digest=self.space.digest,
            evaluator=self.evaluator.fingerprint,
            price=self.compiled.fingerprint,
            budget=self.budget,
            settings=self.settings,
            coarse=Coarse(
                priced=self.priced,
                feasible=len(self.pool),
                feasible_share=min(1.0, self.share),
                skeletons=skeletons,
                smallest_ms=latency_ms,
            ),
            history=tuple(self.history),
            evaluated=tuple(self.evaluated.values()),
            winner=self.evaluated[self.ranked()[0]],
        )


def distinct(codes: Codes) -> Codes:
    """Each row once, where it first stands."""
    _, first = np.unique(codes, axis=0, return_index=True)
    return np.asfortranarray(codes[np.sort(first)])


def _refusal(space: Space, budget: Budget, found: Corner) -> str:
    asked = [f"{budget.latency_ms:g} ms", *(f"{ms:g} ms" for ms in budget.further_latency_ms)]
    asked += [f"{budget.params} parameters"] if budget.params is not None else []
    asked += [f"{budget.macs} conv+linear MACs"] if budget.macs is not None else []
    asked += [f"{budget.memory_bytes} bytes of activations"] if budget.memory_bytes is not None else []
    reach = f"the smallest latency that can be reached is {found.priced.latency_ms:.4g} ms"
    if budget.cautious:
        reach += (
            f" (its upper bound at {100 * budget.confidence:g} %, which is what counts, "
            f"{found.priced.latency_high_ms:.4g} ms)"
        )
    return f"no architecture of {space.name} meets {' and '.join(asked)}; {reach}; allow more"
