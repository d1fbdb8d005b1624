"""Search strategies: coarse to fine (AutoViT, Algorithm 2), evolution, NSGA-II, random search, largest networks."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import numpy as np

from luts.format.schema import Integers
from search.algorithms.cost import Codes, CompiledSpace
from search.algorithms.pareto import best_first, criterion_costs
from search.algorithms.record import Evaluated
from search.algorithms.study import Strategy, Study, register_strategy
from search.spaces import Arch, Space


@register_strategy("coarse-to-fine")
class CoarseToFine(Strategy):
    """Skeletons within the constraints, then evolution around them."""

    def propose(self, count: int) -> Sequence[Arch]:
        """Return the best of each skeleton first, then children of the best architectures."""
        study, settings = self.study, self.study.settings
        if not study.evaluated:
            return self._best_of_skeletons(count)
        parents = study.ranked()[: settings.parents]
        return study.children(
            lambda: study.rng.choice(parents),
            lambda arch: study.space.mutate(arch, study.rng, settings.p_depth, settings.p_block),
        )

    def _best_of_skeletons(self, count: int) -> list[Arch]:
        """Return the best candidate of each of the top K skeletons, then others of the pool at random.

        The best has the most MACs: at equal cost, more computation is more likely to be accurate.
        """
        compiled, pool = self.study.candidates.compiled, self.study.candidates.pool
        costs = compiled.price(pool)
        order = np.lexsort((*pool.T[::-1], costs.latency_ms[0], -costs.macs))
        _, first = np.unique(skeletons(compiled, pool[order]), axis=0, return_index=True)
        best = order[np.sort(first)[: min(self.study.settings.skeletons, count)]]
        others = np.setdiff1d(order, best)
        wanted = min(len(others), count - len(best))
        rows = np.concatenate([best, self.study.generator.choice(others, wanted, replace=False)])
        self.skeletons = len(best)
        return compiled.decode(pool[rows])


def skeletons(compiled: CompiledSpace, codes: Codes) -> Integers:
    """Return (N, 1 + stages): the (resolution, head) pair and the stages' widths, 0 for a stage that is missing."""
    widths = [np.array([*map(stage.width, stage.options), 0]) for stage in compiled.stages]
    return np.column_stack([codes[:, 0], *(own[codes[:, 1 + at]] for at, own in enumerate(widths))])


P_CHOICE = 0.1
"""Probability that plain evolution changes a choice (AutoViT, section 4.3, after Guo et al. 2020)."""


@register_strategy("evolution")
class Evolution(Strategy):
    """A random population, then crossovers and mutations of the best (Guo et al. 2020, single path one-shot).

    Where the original draws again until a child meets the constraints, a child is repaired: strategies are compared
    at the same number of evaluations.
    """

    def propose(self, count: int) -> Sequence[Arch]:
        """Return random architectures first, then children of the best."""
        study = self.study
        if not study.evaluated:
            return study.fresh(count)
        parents = study.ranked()[: study.settings.parents]
        return study.children(
            lambda: study.rng.choice(parents), lambda arch: mutate_choices(study.space, arch, study.rng)
        )


def mutate_choices(space: Space, arch: Arch, rng: random.Random, probability: float = P_CHOICE) -> Arch:
    """Return a copy with every choice redrawn with this probability; widths may shrink until it is repaired."""
    total = rng.choice(space.stage_counts) if rng.random() < probability else len(arch.stages)
    rows = []
    for index, stage in enumerate(space.stages[:total]):
        if index >= len(arch.stages):
            rows.append(rng.choice(stage.options))
            continue
        rows.append(
            tuple(
                rng.choice(allowed) if rng.random() < probability else value
                for (_, allowed), value in zip(stage.choices, arch.stages[index], strict=True)
            )
        )
    resolution = rng.choice(space.resolutions) if rng.random() < probability else arch.resolution
    head = rng.choice(space.heads) if rng.random() < probability else arch.head
    return Arch(arch.search_space, resolution, head, arch.classes, tuple(rows))


@register_strategy("pareto")
class ParetoSearch(Strategy):
    """NSGA-II (Deb et al. 2002): a population that spreads along the whole front of `settings.objectives`."""

    def __init__(self, study: Study):
        """Start without a population."""
        super().__init__(study)
        self._population: list[Arch] = []

    def propose(self, count: int) -> Sequence[Arch]:
        """Return random architectures first, then children of binary tournaments."""
        study, settings = self.study, self.study.settings
        if not self._population:
            return study.fresh(count)
        ranked = self._sorted(self._population)
        ranks = {arch: rank for rank, arch in enumerate(ranked)}

        def parent() -> Arch:
            """Return the better of two at random."""
            return min(study.rng.choice(ranked), study.rng.choice(ranked), key=ranks.__getitem__)

        return study.children(
            parent, lambda arch: study.space.mutate(arch, study.rng, settings.p_depth, settings.p_block)
        )

    def tell(self, evaluated: Mapping[Arch, Evaluated]) -> None:
        """Keep the best of the population and the new architectures."""
        if self._population:
            together = self._sorted([*self._population, *evaluated])
            self._population = together[: self.study.settings.population]
        else:
            self._population = list(evaluated)

    def _sorted(self, archs: Sequence[Arch]) -> list[Arch]:
        """Return architectures by rank, within a rank the least crowded first."""
        rows = [self.study.evaluated[arch] for arch in archs]
        return [archs[row] for row in best_first(criterion_costs(rows, self.study.settings.objectives))]


@register_strategy("random")
class RandomSearch(Strategy):
    """Uniform draws from all architectures within the constraints."""

    def propose(self, count: int) -> Sequence[Arch]:
        """Return random architectures."""
        return self.study.fresh(count)


@register_strategy("largest")
class LargestNetworks(Strategy):
    """The coarse stage of Algorithm 2 alone: candidates with the most MACs, then parameters, then the fastest."""

    def propose(self, count: int) -> Sequence[Arch]:
        """Return the next largest architectures of the pool."""
        compiled, pool = self.study.candidates.compiled, self.study.candidates.pool
        costs = compiled.price(pool)
        order = np.lexsort((*pool.T[::-1], costs.latency_ms[0], -costs.params, -costs.macs))
        start = len(self.study.evaluated)
        return compiled.decode(pool[order[start : start + count]])
