"""A search under way, as a strategy sees it: what may be evaluated, what has been, and what of it is best."""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Sequence

import numpy as np

from search.algorithms.feasible.candidates import Candidates
from search.algorithms.pricing.price import Prices
from search.algorithms.record.result import Evaluated, Generation
from search.algorithms.record.settings import Budget, SearchSettings
from search.spaces import Arch, Space


class Study:
    """What a strategy knows of a search, and what it may propose with.

    Attributes:
        space: What is searched, which may be a part of a registered space.
        settings: How it is searched.
        candidates: The architectures within the budget, and what each costs.
        rng: For a strategy's own choices.
        generator: For its draws of arrays.
        evaluated: All that was evaluated, in that order.
        history: One entry for each generation.
    """

    def __init__(self, space: Space, prices: Prices, budget: Budget, settings: SearchSettings):
        """Compile the prices and find what the budget allows.

        Raises:
            InfeasibleError: nothing meets the budget; says the smallest latency that can be reached.
            UsageError: a LUT lacks blocks of the space, or the budget does not name a latency for each LUT.
        """
        self.space, self.settings = space, settings
        self.rng = random.Random(settings.seed)
        self.generator = np.random.default_rng(settings.seed)
        self.candidates = Candidates(space, prices, budget, settings.draws, self.generator)
        self.evaluated: dict[Arch, Evaluated] = {}
        self.history: list[Generation] = []

    def add(self, archs: Sequence[Arch], accuracies: Sequence[float]) -> dict[Arch, Evaluated]:
        """Take note of one generation of new architectures."""
        batch = self.candidates.price(archs)
        new = {}
        for row, (arch, accuracy) in enumerate(zip(archs, accuracies, strict=True)):
            cost = batch[row]
            new[arch] = Evaluated(
                arch=arch.to_json(),
                accuracy=accuracy,
                latency_ms=cost.latency_ms,
                latency_high_ms=cost.latency_high_ms,
                further_latency_ms=tuple(latency.ms for latency in cost.further),
                further_latency_high_ms=tuple(latency.high_ms for latency in cost.further),
                params=cost.params,
                macs=cost.macs,
                memory_bytes=cost.memory_bytes,
                generation=len(self.history),
            )
        self.evaluated |= new
        best = max(row.accuracy for row in self.evaluated.values())
        mean = sum(accuracies) / len(accuracies)
        self.history.append(Generation(index=len(self.history), new=len(new), best=best, mean=mean))
        return new

    def loss(self, row: Evaluated) -> float:
        """L(s) + lambda C(s), see `SearchSettings.loss`."""
        return self.settings.loss(row.accuracy, row.latency_ms)

    def ranked(self) -> list[Arch]:
        """All evaluated architectures, best first; among equals the faster, then the smaller."""

        def key(arch: Arch) -> tuple[float, float, int, str]:
            row = self.evaluated[arch]
            return self.loss(row), row.latency_ms, row.params, row.arch

        return sorted(self.evaluated, key=key)

    def fresh(self, count: int, besides: Container[Arch] = ()) -> list[Arch]:
        """Up to `count` architectures within the budget at random, none evaluated and none of `besides`."""
        drawn: dict[Arch, None] = {}
        for _ in range(1 if self.candidates.whole else self.settings.redraws):
            if len(drawn) == count:
                break
            for arch in self.candidates.draw(count):
                if len(drawn) < count and arch not in self.evaluated and arch not in besides:
                    drawn[arch] = None
        return list(drawn)

    def breed(self, proposals: Sequence[Callable[[], Arch]]) -> list[Arch]:
        """A new architecture of each proposal, repaired where it breaks the budget; one that gives nothing new
        in `settings.redraws` attempts gives way to a draw from all within the budget."""
        chosen: dict[Arch, None] = {}
        waiting = list(proposals)
        for _ in range(self.settings.redraws):
            if not waiting:
                break
            archs, within = self.candidates.repair([propose() for propose in waiting])
            rejected = []
            for propose, arch, fits in zip(waiting, archs, within, strict=True):
                if fits and arch not in self.evaluated and arch not in chosen:
                    chosen[arch] = None
                else:
                    rejected.append(propose)
            waiting = rejected
        return [*chosen, *self.fresh(len(waiting), chosen)]

    def children(self, parent: Callable[[], Arch], mutate: Callable[[Arch], Arch]) -> list[Arch]:
        """The next generation of an evolution: crossovers and mutations of parents, as many as the settings say."""
        crossover = self.space.crossover
        proposals: list[Callable[[], Arch]] = [
            lambda: crossover(parent(), parent(), self.rng)
        ] * self.settings.crossovers
        return self.breed(proposals + [lambda: mutate(parent())] * self.settings.mutations)
