"""Which subnets a step trains: one at random (Algorithm 1), BigNAS's sandwich, one of a random size, one given."""

from __future__ import annotations

import bisect
import itertools
import random
from functools import cached_property
from typing import Literal, Protocol

from luts.errors import UsageError
from search.spaces import Arch, Space

SamplerName = Literal["uniform", "sandwich", "balanced"]

STRATA = 8
"""Equally wide ranges of parameter counts between which `balanced` chooses."""

REFERENCE_DRAWS = 2000
"""Random architectures that tell a space's sizes: enough for strata that hold a half percent of them."""

TRIES = 64
"""Fresh draws that may miss a stratum or a parameter range before one of the reference draws is taken."""


class Sampler(Protocol):
    """Draws the subnets of a step; all randomness comes from the generator that it is given.

    Attributes:
        in_place: Whether all but the first learn from the first one's logits (BigNAS, section 3.1).
    """

    in_place: bool

    def draw(self, rng: random.Random, resolution: int) -> tuple[Arch, ...]:
        """The subnets of one step, all for images of one resolution."""


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
        found = [(arch.params(), arch) for arch in _reference(self.space)]
        return sorted((pair for pair in found if self._allows(pair[0])), key=lambda pair: pair[0])

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


class Uniform:
    """One subnet a step, as in Algorithm 1 of AutoViT."""

    in_place = False

    def __init__(self, sizes: Sizes):
        self.sizes = sizes

    def draw(self, rng: random.Random, resolution: int) -> tuple[Arch, ...]:
        """One subnet."""
        return (self.sizes.draw(rng, resolution),)


class Sandwich:
    """The largest subnet, the smallest, and some at random (BigNAS, Yu et al. 2020, section 3.1)."""

    in_place = True

    def __init__(self, sizes: Sizes, randoms: int):
        """`randoms`: subnets besides the largest and the smallest."""
        self.sizes, self.randoms = sizes, randoms
        if sizes.within is None:
            self.largest, self.smallest = largest(sizes.space), smallest(sizes.space)
        else:
            self.largest, self.smallest = sizes.reference[-1][1], sizes.reference[0][1]

    def draw(self, rng: random.Random, resolution: int) -> tuple[Arch, ...]:
        """The largest subnet first, then the smallest, then the others."""
        fixed = (self.largest.with_resolution(resolution), self.smallest.with_resolution(resolution))
        return (*fixed, *(self.sizes.draw(rng, resolution) for _ in range(self.randoms)))


class Balanced:
    """One subnet a step, its number of parameters from one of `STRATA` ranges chosen uniformly.

    Uniform draws crowd around the middle size; the ends of the range are as often trained here as the middle.
    """

    in_place = False

    def __init__(self, sizes: Sizes):
        self.sizes = sizes
        params = [count for count, _ in sizes.reference]
        width = (params[-1] - params[0] + 1) / STRATA
        edges = [params[0] + round(width * index) for index in range(STRATA + 1)]
        bounds = [(low, high - 1) for low, high in itertools.pairwise(edges)]
        self.strata = [(low, high) for low, high in bounds if any(low <= count <= high for count in params)]

    def draw(self, rng: random.Random, resolution: int) -> tuple[Arch, ...]:
        """One subnet of a random stratum."""
        return (self.sizes.draw_between(rng, resolution, *rng.choice(self.strata)),)


class One:
    """Always the same network: what it reaches alone, trained as its supernet is."""

    in_place = False

    def __init__(self, arch: Arch):
        self.arch = arch

    def draw(self, rng: random.Random, resolution: int) -> tuple[Arch, ...]:  # noqa: ARG002
        """The network; nothing is random."""
        return (self.arch.with_resolution(resolution),)


def get_sampler(
    name: SamplerName,
    space: Space,
    *,
    randoms: int = 2,
    within: tuple[int, int] | None = None,
    only: Arch | None = None,
) -> Sampler:
    """A sampler by name, or of the network `only`; `randoms` counts for `sandwich` alone. Raises like `Sizes`."""
    if only is not None:
        return One(only)
    sizes = Sizes(space, within)
    if name == "sandwich":
        return Sandwich(sizes, randoms)
    return Balanced(sizes) if name == "balanced" else Uniform(sizes)


def largest(space: Space) -> Arch:
    """The architecture with every choice at its largest, in the head and number of stages that add most."""
    return max(_uniform_choices(space, -1), key=Arch.params)


def smallest(space: Space) -> Arch:
    """The architecture with every choice at its smallest, in the head and number of stages that add least."""
    return min(_uniform_choices(space, 0), key=Arch.params)


def _uniform_choices(space: Space, position: int) -> list[Arch]:
    rows = tuple(tuple(allowed[position] for _, allowed in stage.choices) for stage in space.stages)
    return [
        Arch(space.name, space.default_resolution, head, space.default_classes, rows[:count])
        for count in space.stage_counts
        for head in space.heads
    ]


def _reference(space: Space) -> list[Arch]:
    rng = random.Random("sizes")
    return [space.sample(rng, (space.default_resolution,)) for _ in range(REFERENCE_DRAWS)]
