"""Search strategies: largest first, AutoViT's Algorithm 2, evolution, NSGA-II, random, the largest alone."""

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


@register_strategy("large-first")
class LargeFirst(Strategy):
    """The largest candidates and random ones, then evolution from the best of both."""

    def propose(self, count: int) -> Sequence[Arch]:
        """Return the largest and random architectures first, then children of the best ones.

        Where the candidates are too many to list, the largest of each of the K largest skeletons take the place of
        the K largest, which would differ in details alone.
        """
        study, settings = self.study, self.study.settings
        if study.evaluated:
            return _children_of_best(study)
        first = [*study.largest(1), *study.largest(1, deepest=True)]
        if study.candidates.whole:
            first += study.largest(settings.skeletons)
        else:
            rows = largest_of_skeletons(study, settings.skeletons)
            self.skeletons = len(rows)
            first += study.candidates.compiled.decode(study.candidates.pool[rows])
        first = list(dict.fromkeys([*first, *study.sample]))[:count]
        return [*first, *study.fresh(count - len(first), first)]


@register_strategy("autovit")
class AutoVitSearch(Strategy):
    """AutoViT, Algorithm 2: skeletons within the constraints, then evolution around them."""

    def propose(self, count: int) -> Sequence[Arch]:
        """Return the largest of the top K skeletons and others of the pool first, then children of the best."""
        study = self.study
        if study.evaluated:
            return _children_of_best(study)
        compiled, pool = study.candidates.compiled, study.candidates.pool
        best = largest_of_skeletons(study, min(study.settings.skeletons, count))
        others = np.setdiff1d(by_macs(study), best)
        wanted = min(len(others), count - len(best))
        rows = np.concatenate([best, study.generator.choice(others, wanted, replace=False)])
        self.skeletons = len(best)
        return compiled.decode(pool[rows])


def _children_of_best(study: Study) -> list[Arch]:
    settings = study.settings
    parents = study.ranked()[: settings.parents]
    return study.children(
        lambda: study.rng.choice(parents),
        lambda arch: study.space.mutate(arch, study.rng, settings.p_depth, settings.p_block),
    )


def by_macs(study: Study) -> Integers:
    """Return the rows of the pool, most MACs first, then the fastest.

    At equal cost, more computation is more likely to be accurate.
    """
    pool = study.candidates.pool
    costs = study.candidates.compiled.price(pool)
    order: Integers = np.lexsort((*pool.T[::-1], costs.latency_ms[0], -costs.macs))
    return order


def largest_of_skeletons(study: Study, count: int) -> Integers:
    """Return the rows of the pool with the most MACs of each of the `count` largest skeletons."""
    order = by_macs(study)
    _, first = np.unique(
        skeletons(study.candidates.compiled, study.candidates.pool[order]), axis=0, return_index=True
    )
    rows: Integers = order[np.sort(first)[:count]]
    return rows


def skeletons(compiled: CompiledSpace, codes: Codes) -> Integers:
    """Return (N, 1 + stages): the (resolution, head) pair and the stages' widths, 0 for a stage that is missing."""
    widths = [np.array([*map(stage.width, stage.options), 0]) for stage in compiled.stages]
    return np.column_stack([codes[:, 0], *(own[codes[:, 1 + at]] for at, own in enumerate(widths))])


P_CHOICE = 0.1
"""Probability that plain evolution changes a choice (AutoViT, section 5.4, after Guo et al. 2020)."""


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
    """The K candidates with the most MACs, and the K of the greatest depth, then the most MACs."""

    def propose(self, count: int) -> Sequence[Arch]:
        """Return all of them at once."""
        study, each = self.study, self.study.settings.skeletons
        both = dict.fromkeys([*study.largest(each), *study.largest(each, deepest=True)])
        return [] if study.evaluated else list(both)[:count]
