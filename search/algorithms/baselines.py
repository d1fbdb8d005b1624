"""What AutoViT's Table 6 compares with, at the same number of evaluations: random search and plain evolution."""

from __future__ import annotations

import random

from search.algorithms.run import Run
from search.spaces import Arch, Space

P_CHOICE = 0.1
"""Probability that plain evolution changes a choice (AutoViT, section 4.3, after Guo et al. 2020)."""


def random_search(run: Run) -> None:
    """Uniform draws from all within the budget."""
    for count in [run.settings.population] + [run.children] * run.settings.generations:
        archs = run.fresh(count)
        if not archs:
            break
        run.evaluate(archs)


def evolution(run: Run) -> None:
    """A random population, then crossovers and mutations of the best (Guo et al. 2020, single path one-shot).

    Where the original draws again until a child meets the budget, a child is repaired: the number of
    evaluations is what is compared.
    """
    space, settings, rng = run.space, run.settings, run.rng
    run.evaluate(run.fresh(settings.population))
    for _ in range(settings.generations):
        parents = run.ranked()[: settings.parents]

        def cross(parents: list[Arch] = parents) -> Arch:
            return space.crossover(rng.choice(parents), rng.choice(parents), rng)

        def mutate(parents: list[Arch] = parents) -> Arch:
            return mutate_choices(space, rng.choice(parents), rng)

        children = run.breed([cross] * settings.crossovers + [mutate] * settings.mutations)
        if not children:
            break
        run.evaluate(children)


def mutate_choices(space: Space, arch: Arch, rng: random.Random, probability: float = P_CHOICE) -> Arch:
    """Every choice redrawn with a probability of its own; widths may shrink, `Run.breed` mends that."""
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
    return Arch(arch.space, resolution, head, arch.classes, tuple(rows))
