"""Random architectures of a space: draws, mutation and crossover, none of which leaves the space.

The number of ways to complete a network is counted once, and every choice drawn by how many networks it leads to:
nothing is drawn in vain.
"""

from __future__ import annotations

import itertools
import random
from functools import cached_property

from search.spaces.arch import Arch
from search.spaces.layout import Layout, Value


class Draws:
    """What is drawn from a space; the tables that it needs are made once."""

    def __init__(self, space: Layout):
        self.space = space
        self._weighted: dict[tuple[int, int, int], tuple[list[tuple[Value, ...]], list[int]]] = {}
        """(total stages, stages done, width so far) -> options and their cumulative completions."""

    @cached_property
    def completions(self) -> dict[tuple[int, int, int], int]:
        """(total stages, stages done, width so far) -> number of ways to choose the rest."""
        stages = self.space.stages
        table: dict[tuple[int, int, int], int] = {}
        for total in self.space.stage_counts:
            for done in range(total, -1, -1):
                widths = {stages[done - 1].width(o) for o in stages[done - 1].options} if done else {0}
                for width in widths:
                    if done == total:
                        table[total, done, width] = 1
                        continue
                    following = (stages[done].width(o) for o in stages[done].options)
                    table[total, done, width] = sum(
                        table[total, done + 1, w] for w in following if w >= width
                    )
        return table

    def sample(
        self,
        rng: random.Random,
        resolutions: tuple[int, ...] | None = None,
        stage_counts: tuple[int, ...] | None = None,
    ) -> Arch:
        """Draw resolution, head and number of stages uniformly, then uniformly among what remains.

        Deep networks outnumber shallow ones by far, so drawing the number of stages first keeps the shallow
        ones from vanishing.
        """
        space = self.space
        total = rng.choice(stage_counts or space.stage_counts)
        width, rows = 0, []
        for done in range(total):
            values = self._draw_stage(rng, total, done, width)
            width = space.stages[done].width(values)
            rows.append(values)
        resolution = rng.choice(resolutions or space.resolutions)
        return Arch(space, resolution, rng.choice(space.heads), space.default_classes, tuple(rows))

    def mutate(self, arch: Arch, rng: random.Random, p_depth: float, p_block: float) -> Arch:
        """Mutation of Algorithm 2: depths change with `p_depth`, then each stage with `p_block`.

        Depth means the number of stages and of blocks in a stage; resolution and head mutate like a stage.
        """
        space = self.space
        total = rng.choice(space.stage_counts) if rng.random() < p_depth else len(arch.stages)
        rows: list[tuple[Value, ...]] = []
        for index, stage in enumerate(space.stages[:total]):
            values = list(arch.stages[index]) if index < len(arch.stages) else list(rng.choice(stage.options))
            for position, (name, allowed) in enumerate(stage.choices):
                if name == "depth" and rng.random() < p_depth:
                    values[position] = rng.choice(allowed)
            rows.append(rng.choice(stage.options) if rng.random() < p_block else tuple(values))
        resolution = rng.choice(space.resolutions) if rng.random() < p_block else arch.resolution
        head = rng.choice(space.heads) if rng.random() < p_block else arch.head
        return self._repair(rng, Arch(space, resolution, head, arch.classes, tuple(rows)))

    def crossover(self, a: Arch, b: Arch, rng: random.Random) -> Arch:
        """A child that takes its length from one parent and each stage, head and resolution from either."""
        longer, shorter = (a, b) if len(a.stages) >= len(b.stages) else (b, a)
        total = len(rng.choice((a, b)).stages)
        rows = tuple(
            rng.choice((longer, shorter)).stages[i] if i < len(shorter.stages) else longer.stages[i]
            for i in range(total)
        )
        resolution, head = rng.choice((a, b)).resolution, rng.choice((a, b)).head
        return self._repair(rng, Arch(self.space, resolution, head, a.classes, rows))

    def _repair(self, rng: random.Random, arch: Arch) -> Arch:
        """Redraw the stages that break the growth of widths; a valid architecture comes back as it is."""
        width, rows = 0, []
        for done, values in enumerate(arch.stages):
            if not self._fits(len(arch.stages), done, width, values):
                values = self._draw_stage(rng, len(arch.stages), done, width)
            width = self.space.stages[done].width(values)
            rows.append(values)
        return Arch(self.space, arch.resolution, arch.head, arch.classes, tuple(rows))

    def _draw_stage(self, rng: random.Random, total: int, done: int, width: int) -> tuple[Value, ...]:
        state = (total, done, width)
        if state not in self._weighted:
            stage = self.space.stages[done]
            options = [o for o in stage.options if self._fits(total, done, width, o)]
            weights = itertools.accumulate(self.completions[total, done + 1, stage.width(o)] for o in options)
            self._weighted[state] = options, list(weights)
        options, cumulative = self._weighted[state]
        return rng.choices(options, cum_weights=cumulative)[0]

    def _fits(self, total: int, done: int, width: int, values: tuple[Value, ...]) -> bool:
        own = self.space.stages[done].width(values)
        return own >= width and self.completions[total, done + 1, own] > 0
