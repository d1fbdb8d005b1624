"""Plain evolution: what AutoViT's Table 6 compares with, at the same number of evaluations."""

from __future__ import annotations

import random
from collections.abc import Sequence

from search.algorithms.study.strategy import Strategy, register_strategy
from search.spaces import Arch, Space

P_CHOICE = 0.1
"""Probability that plain evolution changes a choice (AutoViT, section 4.3, after Guo et al. 2020)."""


@register_strategy("evolution")
class Evolution(Strategy):
    """A random population, then crossovers and mutations of the best (Guo et al. 2020, single path one-shot).

    Where the original draws again until a child meets the budget, a child is repaired: the number of
    evaluations is what is compared.
    """

    def propose(self, count: int) -> Sequence[Arch]:
        study = self.study
        if not study.evaluated:
            return study.fresh(count)
        parents = study.ranked()[: study.settings.parents]
        return study.children(
            lambda: study.rng.choice(parents), lambda arch: mutate_choices(study.space, arch, study.rng)
        )


def mutate_choices(space: Space, arch: Arch, rng: random.Random, probability: float = P_CHOICE) -> Arch:
    """Every choice redrawn with a probability of its own; widths may shrink, `Study.breed` mends that."""
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
    return Arch(arch.layout, resolution, head, arch.classes, tuple(rows))
