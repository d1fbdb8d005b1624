"""Which subnets a step trains: one at random (Algorithm 1), BigNAS's sandwich, one of a random size, one given.

Or one with all its exits.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal, Protocol

from luts.format.errors import UsageError
from search.blocks import count
from search.blocks.sequence import IMAGE_CHANNELS
from search.spaces import Arch, Space, Value
from search.spaces.scope import ParameterRangeSampler
from search.spaces.stages import expand_stage

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
        """Draw from a space.

        Args:
            space: Its own number of classes counts.
            within: Least and most parameters, both allowed.
            stage_weights: Of each number of stages that the space has, in proportion; none for equally often.

        Raises:
            UsageError: No architecture is within the range; the message lists what the space has.
        """
        self.space, self.within = space, within
        self._weights = dict(zip(space.stage_counts, stage_weights, strict=True)) if stage_weights else {}
        self.stage_counts = space.stage_counts
        if within is not None:
            self.stage_counts = tuple(self._sized(*within).heads)
            if not self.stage_counts:
                own, counts = self._sized(*within), " or ".join(map(str, space.stage_counts))
                raise UsageError(
                    f"{space.name} with {space.default_classes} classes and {counts} stages has "
                    f"no architecture of {within[0]} to {within[1]} parameters; it has {own.least} to {own.most}",
                    code="empty_params_range",
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
    def _sized(self, low: int, high: int) -> ParameterRangeSampler:
        return ParameterRangeSampler(self.space, low, high)

    def _stages(self, rng: random.Random, counts: tuple[int, ...]) -> int:
        """Draw a number of stages, in proportion to the weights."""
        if not self._weights:
            return rng.choice(counts)
        return rng.choices(counts, [self._weights[count] for count in counts])[0]


def largest(space: Space) -> Arch:
    """Return the architecture with every choice at its largest, and the kinds, head and stages that add most."""
    return max(_uniform_choices(space, -1), key=Arch.params)


def smallest(space: Space) -> Arch:
    """Return the architecture with every choice at its smallest, and the kinds, head and stages that add least."""
    return min(_uniform_choices(space, 0), key=Arch.params)


def _uniform_choices(space: Space, position: int) -> list[Arch]:
    pick, rows = max if position else min, list[tuple[Value, ...]]()
    channels, side = IMAGE_CHANNELS, space.default_resolution
    for stage in space.stages:
        kinds = dict(stage.labels)
        allowed = (values if name in kinds else (values[position],) for name, values in stage.choices)
        rows_here = itertools.product(*allowed)
        params = {row: count(expand_stage(stage, row, channels, side))[0] for row in rows_here}
        rows.append(pick(params, key=params.__getitem__))
        channels, side = stage.width(rows[-1]), stage.out_resolution(side)
    return [
        Arch(space, space.default_resolution, head, space.default_classes, tuple(rows[:total]))
        for total in space.stage_counts
        for head in space.heads
    ]


SamplerName = Literal["uniform", "sandwich", "balanced", "exits"]

STRATA = 8
"""Equally wide ranges of parameter counts between which `balanced` chooses where a recipe weighs none."""


class Sampler(Protocol):
    """Draws the subnets of a step; all randomness comes from the generator that it is given.

    Attributes:
        in_place: Whether all but the first learn from the first one's logits (BigNAS, section 3.1).
    """

    in_place: bool

    def draw(self, rng: random.Random, resolution: int) -> tuple[Arch, ...]:
        """Return the subnets of one step, all for images of one resolution."""


@dataclass(frozen=True)
class Uniform:
    """One subnet a step, as in Algorithm 1 of AutoViT."""

    in_place = False

    sizes: Sizes

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
        """Return the largest subnet first, then the smallest, then the others."""
        fixed = (self.largest.with_resolution(resolution), self.smallest.with_resolution(resolution))
        return (*fixed, *(self.sizes.draw(rng, resolution) for _ in range(self.randoms)))


class Exits:
    """A random subnet of the most stages, and each of its exits (`Space.exits`), which learn from its logits.

    Self-distillation from the last exit, as in Zhang et al. 2019 (Be Your Own Teacher).
    """

    in_place = True

    def __init__(self, space: Space):
        """Draw from a space; raises UsageError if it has no exits."""
        if len(space.stage_counts) < 2:
            raise UsageError(
                f"{space.name} has no exits: its networks have {space.stage_counts[0]} stages; use another "
                "--sampler, or a space with several numbers of stages",
                code="no_exits",
            )
        self.space = space

    def draw(self, rng: random.Random, resolution: int) -> tuple[Arch, ...]:
        """Return the whole subnet first, then its exits, the deepest first."""
        whole = self.space.sample(rng, (resolution,), (max(self.space.stage_counts),))
        return (whole, *reversed(self.space.exits(whole)))


class Balanced:
    """One subnet a step, its number of parameters from one of some equally wide ranges, by default each as often.

    Uniform draws crowd around the middle size; the ends of the range are as often trained here as the middle.
    """

    in_place = False

    def __init__(self, sizes: Sizes, weights: Sequence[float] = ()):
        """`weights`: of the ranges, in proportion; none for `STRATA` equal ones."""
        self.sizes = sizes
        weights = weights or (1.0,) * STRATA
        params = [count for count, _ in sizes.reference]
        width = (params[-1] - params[0] + 1) / len(weights)
        edges = [params[0] + round(width * index) for index in range(len(weights) + 1)]
        bounds = [(low, high - 1) for low, high in itertools.pairwise(edges)]
        held = [any(low <= count <= high for count in params) for low, high in bounds]
        self.strata = list(itertools.compress(bounds, held))
        self.weights = list(itertools.compress(weights, held))

    def draw(self, rng: random.Random, resolution: int) -> tuple[Arch, ...]:
        """One subnet of a random stratum."""
        return (self.sizes.draw_between(rng, resolution, *rng.choices(self.strata, self.weights)[0]),)


@dataclass(frozen=True)
class One:
    """Always the same network: what it reaches alone, trained as its supernet is."""

    in_place = False

    arch: Arch

    def draw(self, rng: random.Random, resolution: int) -> tuple[Arch, ...]:  # noqa: ARG002
        """Return the network; nothing is random."""
        return (self.arch.with_resolution(resolution),)


def get_sampler(
    name: SamplerName,
    space: Space,
    *,
    randoms: int = 2,
    within: tuple[int, int] | None = None,
    only: Arch | None = None,
    stage_weights: Sequence[float] = (),
    params_weights: Sequence[float] = (),
) -> Sampler:
    """Return a sampler by name, or one of the network `only`.

    `randoms` is for `sandwich` alone, `params_weights` for `balanced` alone. Raises UsageError where no network is
    `within` the least and most parameters.
    """
    if only is not None:
        return One(only)
    if name == "exits":
        return Exits(space)
    sizes = Sizes(space, within, stage_weights)
    if name == "sandwich":
        return Sandwich(sizes, randoms)
    return Balanced(sizes, params_weights) if name == "balanced" else Uniform(sizes)
