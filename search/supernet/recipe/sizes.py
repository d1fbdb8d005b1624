"""How large the architectures of a space are: its extremes, and random ones within a range of parameters."""

from __future__ import annotations

import bisect
import random
from functools import cached_property

from luts.format.errors import UsageError
from search.spaces import Arch, Space

REFERENCE_DRAWS = 2000
"""Random architectures that tell a space's sizes: enough for strata that hold a half percent of them."""

TRIES = 64
"""Fresh draws that may miss a stratum or a parameter range before one of the reference draws is taken."""


class Sizes:
    """Random architectures of a space within a range of parameters."""

    def __init__(self, space: Space, within: tuple[int, int] | None = None):
        """`within`: least and most parameters, both allowed; the space's own number of classes counts.

        Raises:
            UsageError: none of `REFERENCE_DRAWS` random architectures lies within.
        """
        self.space, self.within = space, within
        if within is not None and not self.reference:
            params = sorted(arch.params() for arch in _reference(space))
            raise UsageError(
                f"{space.name} with {space.default_classes} classes has no architecture of {within[0]} to "
                f"{within[1]} parameters; random ones have {params[0]} to {params[-1]}"
            )

    @cached_property
    def reference(self) -> list[tuple[int, Arch]]:
        """Reference draws within the range, and their parameters; the smallest first."""
        sized = [(arch.params(), arch) for arch in _reference(self.space)]
        return sorted((pair for pair in sized if self._allows(pair[0])), key=lambda pair: pair[0])

    def draw(self, rng: random.Random, resolution: int) -> Arch:
        """One within the range, uniformly as `Space.sample` draws."""
        arch = self.space.sample(rng, (resolution,))
        if self.within is None:
            return arch
        return self.draw_between(rng, resolution, *self.within, first=arch)

    def draw_between(
        self, rng: random.Random, resolution: int, low: int, high: int, first: Arch | None = None
    ) -> Arch:
        """One of `low` to `high` parameters, of which there must be a reference draw."""
        arch = first or self.space.sample(rng, (resolution,))
        for _ in range(TRIES):
            if low <= arch.params() <= high:
                return arch
            arch = self.space.sample(rng, (resolution,))
        keys = [params for params, _ in self.reference]
        start, end = bisect.bisect_left(keys, low), bisect.bisect_right(keys, high)
        return self.reference[rng.randrange(start, end)][1].with_resolution(resolution)

    def _allows(self, params: int) -> bool:
        return self.within is None or self.within[0] <= params <= self.within[1]


def largest(space: Space) -> Arch:
    """The architecture with every choice at its largest, in the head and number of stages that add most."""
    return max(_uniform_choices(space, -1), key=Arch.params)


def smallest(space: Space) -> Arch:
    """The architecture with every choice at its smallest, in the head and number of stages that add least."""
    return min(_uniform_choices(space, 0), key=Arch.params)


def _uniform_choices(space: Space, position: int) -> list[Arch]:
    rows = tuple(tuple(allowed[position] for _, allowed in stage.choices) for stage in space.stages)
    return [
        Arch(space, space.default_resolution, head, space.default_classes, rows[:count])
        for count in space.stage_counts
        for head in space.heads
    ]


def _reference(space: Space) -> list[Arch]:
    rng = random.Random("sizes")
    return [space.sample(rng, (space.default_resolution,)) for _ in range(REFERENCE_DRAWS)]
