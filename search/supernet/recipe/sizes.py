"""How large the architectures of a space are: its extremes, and random ones that a recipe trains."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cached_property, lru_cache

from luts.format.errors import UsageError
from search.spaces import Arch, Space
from search.spaces.sized import SizedDraws

REFERENCE_DRAWS = 2000
"""Random architectures that tell a space's sizes: enough for strata that hold a half percent of them."""


class Sizes:
    """Random architectures of a space within a range of parameters, each number of stages as often as wanted.

    Attributes:
        stage_counts: Numbers of stages that have architectures within the range.
    """

    def __init__(
        self, space: Space, within: tuple[int, int] | None = None, stage_weights: Sequence[float] = ()
    ):
        """`within`: least and most parameters, both allowed; the space's own number of classes counts.

        `stage_weights`: of each number of stages that the space has, in proportion; none for equally often.

        Raises:
            UsageError: no architecture lies within; says what the space has.
        """
        self.space, self.within = space, within
        self._weights = dict(zip(space.stage_counts, stage_weights, strict=True)) if stage_weights else {}
        self.stage_counts = space.stage_counts
        if within is not None:
            self.stage_counts = tuple(self._sized(*within).heads)
            if not self.stage_counts:
                own = self._sized(*within)
                raise UsageError(
                    f"{space.name} with {space.default_classes} classes and {_or(space.stage_counts)} stages has "
                    f"no architecture of {within[0]} to {within[1]} parameters; it has {own.least} to {own.most}"
                )

    @cached_property
    def reference(self) -> list[tuple[int, Arch]]:
        """`REFERENCE_DRAWS` draws at the default resolution, and their parameters; the smallest first."""
        rng = random.Random("sizes")
        archs = [self.draw(rng, self.space.default_resolution) for _ in range(REFERENCE_DRAWS)]
        return sorted(((arch.params(), arch) for arch in archs), key=lambda pair: pair[0])

    def draw(self, rng: random.Random, resolution: int) -> Arch:
        """One within the range: first the number of stages, then the classifier, then uniformly among the rest."""
        if self.within is not None:
            return self.draw_between(rng, resolution, *self.within)
        counts = (self._stages(rng, self.stage_counts),) if self._weights else None
        return self.space.sample(rng, (resolution,), counts)

    def draw_between(self, rng: random.Random, resolution: int, low: int, high: int) -> Arch:
        """One of `low` to `high` parameters, of which the space must have some."""
        sized = self._sized(low, high)
        return sized.draw(rng, self._stages(rng, tuple(sized.heads)), resolution)

    @lru_cache(maxsize=64)  # noqa: B019 - sizes live as long as their run
    def _sized(self, low: int, high: int) -> SizedDraws:
        return SizedDraws(self.space, low, high)

    def _stages(self, rng: random.Random, counts: tuple[int, ...]) -> int:
        """A number of stages, as often as the weights say."""
        if not self._weights:
            return rng.choice(counts)
        return rng.choices(counts, [self._weights[count] for count in counts])[0]


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


def _or(values: Sequence[int]) -> str:
    return " or ".join(map(str, values))
