"""Latency-aware coarse-to-fine search (AutoViT, Algorithm 2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from luts.format.numbers import Integers
from search.algorithms.pricing.compiled import Codes, CompiledSpace
from search.algorithms.study.strategy import Strategy, register_strategy
from search.spaces import Arch


@register_strategy("coarse-to-fine")
class CoarseToFine(Strategy):
    """Skeletons within the budget, then evolution around them."""

    def propose(self, count: int) -> Sequence[Arch]:
        study, settings = self.study, self.study.settings
        if not study.evaluated:
            return self._best_of_skeletons(count)
        parents = study.ranked()[: settings.parents]
        return study.children(
            lambda: study.rng.choice(parents),
            lambda arch: study.space.mutate(arch, study.rng, settings.p_depth, settings.p_block),
        )

    def _best_of_skeletons(self, count: int) -> list[Arch]:
        """The best candidate of each of the top K skeletons, then others of the pool at random.

        Most MACs are best: of equal price, more computation is the better guess.
        """
        compiled, pool = self.study.candidates.compiled, self.study.candidates.pool
        batch = compiled.price(pool)
        order = np.lexsort((*pool.T[::-1], batch.latency_ms[0], -batch.macs))
        _, first = np.unique(skeletons(compiled, pool[order]), axis=0, return_index=True)
        best = order[np.sort(first)[: min(self.study.settings.skeletons, count)]]
        others = np.setdiff1d(order, best)
        wanted = min(len(others), count - len(best))
        rows = np.concatenate([best, self.study.generator.choice(others, wanted, replace=False)])
        self.skeletons = len(best)
        return compiled.decode(pool[rows])


def skeletons(compiled: CompiledSpace, codes: Codes) -> Integers:
    """(N, 1 + stages): resolution and head, and the widths of the stages, 0 where there is none: what mutation
    around a candidate keeps fixed in spirit."""
    widths = [np.array([*map(stage.width, stage.options), 0]) for stage in compiled.stages]
    return np.column_stack([codes[:, 0], *(own[codes[:, 1 + at]] for at, own in enumerate(widths))])
