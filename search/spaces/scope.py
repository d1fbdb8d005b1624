"""Parts of a space: what a supernet was trained on, what a LUT covers, what has a given number of parameters."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from luts.format.errors import UsageError
from luts.format.operators import OPERATORS
from luts.format.schema import Floats, classes_of
from luts.format.schema import Value as Document
from search.blocks import count
from search.blocks.sequence import IMAGE_CHANNELS
from search.spaces.registry import get_space
from search.spaces.space import Arch, Space
from search.spaces.stages import (
    Value,
    expand_head,
    expand_side,
    expand_stage,
    map_sides,
    tapped_stages,
)

if TYPE_CHECKING:
    from luts.format.lut import Lut

BINS = 1024
"""Fewest bins of the largest network's parameters; most draws by bins are then in a typical range."""

BINS_OF_RANGE = 64
"""Bins within a narrow range, unless that needs more than `MOST_BINS` in all."""

MOST_BINS = 1 << 16

TRIES = 1000
"""Draws by the counts until one is in the range; if none is, the range counts as empty."""


class Scope(Document):
    """The subnets that a supernet's training draws; inherited weights of others mean nothing.

    Attributes:
        stage_counts: Their numbers of stages, ascending.
        resolutions: Sides of their input in pixels, ascending.
        params: Their fewest and most parameters, with the classes of the images; None for any.
    """

    stage_counts: tuple[int, ...] = Field(min_length=1, max_length=64)
    resolutions: tuple[int, ...] = Field(min_length=1, max_length=64)
    params: tuple[int, int] | None = None

    def __str__(self) -> str:
        """Return `3 or 4 stages at 64 px, 100 to 200 parameters`."""
        counts, sides = (" or ".join(map(str, values)) for values in (self.stage_counts, self.resolutions))
        sizes = "" if self.params is None else f", {self.params[0]:,} to {self.params[1]:,} parameters"
        return f"{counts} stages at {sides} px{sizes}"

    def excluded_property(self, arch: Arch) -> str:
        """Return what puts an architecture outside of the scope, else an empty string."""
        if len(arch.stages) not in self.stage_counts:
            return f"{len(arch.stages)} stages"
        if arch.resolution not in self.resolutions:
            return f"{arch.resolution} px"
        params = arch.params()
        inside = self.params is None or self.params[0] <= params <= self.params[1]
        return "" if inside else f"{params:,} parameters"

    def restrict(self, space: Space) -> Space:
        """Return the part of a space with these numbers of stages and resolutions.

        Raises:
            UsageError: the space has none of these resolutions or numbers of stages.
        """
        sides = tuple(side for side in space.resolutions if side in self.resolutions)
        if not sides:
            covered = " or ".join(map(str, space.resolutions))
            raise UsageError(
                f"the supernet was trained on {self}, the LUT covers {covered} px; "
                "profile at a trained resolution, or add --outside",
                code="outside_scope",
            )
        counts = tuple(count for count in space.stage_counts if count in self.stage_counts)
        if not counts:
            there = " or ".join(map(str, space.stage_counts))
            raise UsageError(
                f"the supernet was trained on {self}, networks of {space.name} have {there} stages; add --outside",
                code="outside_scope",
            )
        return replace(space.restricted(sides), stage_counts=counts)


def covered_space(lut: Lut, classes: int | None = None) -> Space:
    """Return the LUT's space at the resolutions that it covers, by default with the classes of its profile.

    Raises:
        UsageError: the space has changed since, or the LUT lacks blocks; the message names one.
    """
    if lut.meta.space == OPERATORS:
        raise UsageError("the LUT is of operators; give one of a search space", code="table_of_operators")
    space = get_space(lut.meta.space)
    if lut.meta.space_hash not in space.digests:
        raise UsageError(
            f"the LUT is of another version of {space.name} ({lut.meta.space_hash[:8]}, now {space.digest[:8]}); "
            "profile the space again",
            code="space_changed",
        )
    known = {entry.key for entry in lut.entries}
    if classes is None:
        classes = _profiled_classes(lut)
    covered = tuple(r for r in space.resolutions if any(key.endswith(f"@{r}") for key in known))
    if not covered:
        raise UsageError(
            f"the LUT covers none of the resolutions {list(space.resolutions)} of {space.name}; "
            "profile the space again",
            code="lut_lacks_blocks",
        )
    part = space.with_classes(classes).restricted(covered)
    missing = [block.key for block in part.block_specs() if block.key not in known]
    if missing:
        raise UsageError(
            f"the LUT lacks {len(missing)} blocks of {space.name}, {missing[0]} among them; "
            f"profile with --classes {classes}",
            code="lut_lacks_blocks",
        )
    return part


def _profiled_classes(lut: Lut) -> int:
    """Return the classes of the LUT's classifiers; of its reference network if they differ."""
    known = [number for entry in lut.entries if (number := classes_of(entry.key)) is not None]
    if not known:
        raise UsageError("the LUT has no classifier; profile the space again", code="lut_lacks_blocks")
    return next((number for key in lut.reference.blocks if (number := classes_of(key)) in known), known[0])


@dataclass(frozen=True)
class _StageOptions:
    """Options of a stage after some width, the width that each leads to, and their parameters."""

    options: tuple[tuple[Value, ...], ...]
    widths: tuple[int, ...]
    params: tuple[int, ...]


class ParameterRangeSampler:
    """Draws architectures with `low` to `high` parameters, both included, however rare they are in the space.

    The remaining choices of stages are counted by their parameters in bins, rounded down, stage by stage from
    the last. Draws by these counts within the range are uniform among the architectures that do.

    Attributes:
        least: Fewest parameters of any architecture of the space.
        most: Most parameters of any architecture of the space.
        heads: For each number of stages that has networks within the range, the heads that have any.
    """

    def __init__(self, space: Space, low: int, high: int):
        """Count the architectures within the range, with the space's default resolution and classes."""
        self.space, self.low, self.high = space, low, high
        self._steps = self._all_steps()
        kinds = list(itertools.product(space.stage_counts, space.heads))
        self._ends = {kind: self._classifiers(*kind) for kind in kinds}
        extremes = [self._extremes(total, head) for total, head in kinds]
        self.least, self.most = min(pair[0] for pair in extremes), max(pair[1] for pair in extremes)
        wanted = BINS_OF_RANGE * self.most / max(high - low + 1, 1)
        self._unit = self.most / min(max(BINS, wanted), MOST_BINS)
        self._rest: dict[tuple[int, str], list[dict[int, Floats]]] = {}
        rng, heads = random.Random("sized"), dict[int, tuple[str, ...]]()
        for (total, head), (least, most) in zip(kinds, extremes, strict=True):
            if least <= high and most >= low:
                self._rest[total, head] = self._count(total, head)
                if self._try(rng, total, head, space.default_resolution) is not None:
                    heads[total] = (*heads.get(total, ()), head)
        self.heads = heads

    def draw(self, rng: random.Random, total: int, resolution: int) -> Arch:
        """Draw an architecture with `total` stages, a number in `heads`: a head, then uniformly."""
        head = rng.choice(self.heads[total])
        while True:
            arch = self._try(rng, total, head, resolution)
            if arch is not None:
                return arch

    def _all_steps(self) -> list[dict[int, _StageOptions]]:
        space, widths, side, steps = self.space, {0}, self.space.default_resolution, []
        for index, stage in enumerate(space.stages[: max(space.stage_counts)]):
            here = {}
            for width in widths:
                options = tuple(values for values in stage.options if stage.width(values) >= width)
                blocks = [expand_stage(stage, values, width or IMAGE_CHANNELS, side) for values in options]
                params = tuple(
                    count(own)[0] + self._side_params(index, stage.width(values), side)
                    for own, values in zip(blocks, options, strict=True)
                )
                here[width] = _StageOptions(options, tuple(map(stage.width, options)), params)
            steps.append(here)
            widths = {width for step in here.values() for width in step.widths}
            side = stage.out_resolution(side)
        return steps

    def _side_params(self, index: int, width: int, side: int) -> int:
        """Return the parameters of a task head's block after the stage at `index`."""
        space, head = self.space, self.space.heads[0]
        if index not in tapped_stages(space.stages[: max(space.stage_counts)], head):
            return 0
        out = space.stages[index].out_resolution(side)
        return expand_side(head, width, out, space.default_classes).params()

    def _classifiers(self, total: int, head: str) -> dict[int, int]:
        """Return the parameters of the head after each width that a network of `total` stages may end with."""
        sides = map_sides(self.space.stages[:total], head, self.space.default_resolution)
        widths = {width for step in self._steps[total - 1].values() for width in step.widths}
        classes = self.space.default_classes
        return {width: count(expand_head(head, width, sides, classes))[0] for width in widths}

    def _extremes(self, total: int, head: str) -> tuple[int, int]:
        """Return the fewest and most parameters."""
        rest = {width: (params, params) for width, params in self._ends[total, head].items()}
        for at in reversed(range(total)):
            rest = {
                width: (
                    min(p + rest[w][0] for w, p in zip(step.widths, step.params, strict=True) if w in rest),
                    max(p + rest[w][1] for w, p in zip(step.widths, step.params, strict=True) if w in rest),
                )
                for width, step in self._steps[at].items()
                if any(w in rest for w in step.widths)
            }
        return rest[0]

    def _bins(self, params: int) -> int:
        return int(params / self._unit)

    def _count(self, total: int, head: str) -> list[dict[int, Floats]]:
        """For each number of stages done and width, count the ways to continue with at most so many bins."""
        size = self._bins(self.most) + 1
        counts: list[dict[int, Floats]] = [{}]
        for width, params in self._ends[total, head].items():
            counts[0][width] = np.zeros(size)
            counts[0][width][self._bins(params)] = 1.0
        for at in reversed(range(total)):
            here = {}
            for width, step in self._steps[at].items():
                own = np.zeros(size)
                for following, used in zip(step.widths, map(self._bins, step.params), strict=True):
                    if following in counts[0]:
                        own[used:] += counts[0][following][: size - used]
                here[width] = own
            counts.insert(0, here)
        return [{width: np.cumsum(own) for width, own in done.items()} for done in counts]

    def _try(self, rng: random.Random, total: int, head: str, resolution: int) -> Arch | None:
        """Draw one within the range; None if `TRIES` draws by the counts gave none."""
        for _ in range(TRIES):
            rows, width, used, params = [], 0, 0, 0
            for done in range(total):
                options, cumulative = self._options(total, head, done, width, used)
                if not options:
                    return None
                option = rng.choices(options, cum_weights=cumulative)[0]
                step = self._steps[done][width]
                rows.append(step.options[option])
                used += self._bins(step.params[option])
                params += step.params[option]
                width = step.widths[option]
            if self.low <= params + self._ends[total, head][width] <= self.high:
                return Arch(self.space, resolution, head, self.space.default_classes, tuple(rows))
        return None

    @lru_cache(maxsize=1 << 16)  # noqa: B019 - these draws live as long as their run
    def _options(
        self, total: int, head: str, done: int, width: int, used: int
    ) -> tuple[tuple[int, ...], list[float]]:
        """Return the options of the next stage that can still lead into the range, and their cumulative counts."""
        # bins are rounded down, so a network may have up to one bin less for each stage and for the head
        lowest = self._bins(self.low) - (total + 1) - used
        highest = self._bins(self.high) - used
        step, after = self._steps[done][width], self._rest[total, head][done + 1]
        ways = [
            _between(after[following], lowest - bins, highest - bins) if following in after else 0.0
            for following, bins in zip(step.widths, map(self._bins, step.params), strict=True)
        ]
        options = tuple(option for option, own in enumerate(ways) if own > 0)
        return options, list(itertools.accumulate(ways[option] for option in options))


def _between(cumulative: Floats, lowest: int, highest: int) -> float:
    """Return how many ways have `lowest` to `highest` bins."""
    if highest < 0:
        return 0.0
    upper = cumulative[min(highest, len(cumulative) - 1)]
    return float(upper - (cumulative[min(lowest, len(cumulative)) - 1] if lowest > 0 else 0.0))
