"""Random architectures within a range of parameters, drawn directly, however few of the space they are.

What is left to choose is counted by its parameters in bins, rounded down, stage by stage from the last one; a draw
by these counts that lies within the range in truth is uniform among those that do.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from luts.format.schema import Floats
from search.blocks import count
from search.spaces.arch import Arch
from search.spaces.family import expand_head, expand_side, expand_stage
from search.spaces.layout import IMAGE_CHANNELS, Layout, Value
from search.spaces.maps import map_sides, tapped_stages

BINS = 1024
"""Of the largest network's parameters, at least: a usual range then holds most of what its bins let through."""

BINS_OF_RANGE = 64
"""Bins in a narrow range, as long as that takes no more than `MOST_BINS` in all."""

MOST_BINS = 1 << 16

TRIES = 1000
"""Draws by the counts until one is in the range; where none is, the range counts as empty."""


@dataclass(frozen=True)
class _Step:
    """A stage after some width: its options, the width that each leads to, and their parameters."""

    options: tuple[tuple[Value, ...], ...]
    widths: tuple[int, ...]
    params: tuple[int, ...]


class SizedDraws:
    """Draws from the part of a space whose networks have `low` to `high` parameters, both included.

    Attributes:
        least: Fewest parameters of any architecture of the space.
        most: Most of them.
        heads: By each number of stages that has networks within the range, the classifiers that have any.
    """

    def __init__(self, space: Layout, low: int, high: int):
        """`space` with its number of classes; its default resolution says what blocks there are."""
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
        """One of so many stages, a number in `heads`: each of its classifiers as often, then uniformly."""
        head = rng.choice(self.heads[total])
        while True:
            arch = self._try(rng, total, head, resolution)
            if arch is not None:
                return arch

    def _all_steps(self) -> list[dict[int, _Step]]:
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
                here[width] = _Step(options, tuple(map(stage.width, options)), params)
            steps.append(here)
            widths = {width for step in here.values() for width in step.widths}
            side = stage.out_resolution(side)
        return steps

    def _side_params(self, index: int, width: int, side: int) -> int:
        """Parameters of what a task's head has after the stage at `index`; such a head is its space's only one."""
        space, head = self.space, self.space.heads[0]
        if index not in tapped_stages(space.stages[: max(space.stage_counts)], head):
            return 0
        out = space.stages[index].out_resolution(side)
        return expand_side(head, width, out, space.default_classes).params()

    def _classifiers(self, total: int, head: str) -> dict[int, int]:
        """Parameters of the head after each width that a network of so many stages may end with."""
        sides = map_sides(self.space.stages[:total], head, self.space.default_resolution)
        widths = {width for step in self._steps[total - 1].values() for width in step.widths}
        classes = self.space.default_classes
        return {width: count(expand_head(head, width, sides, classes))[0] for width in widths}

    def _extremes(self, total: int, head: str) -> tuple[int, int]:
        """Fewest and most parameters."""
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
        """For each number of stages done and width, how many ways to go on have at most so many bins."""
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
        """One within the range; None where `TRIES` draws by the counts gave none."""
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
        """Options of the next stage after which the bins may still come out right, and their cumulative ways."""
        # rounded down stage by stage, a network has up to a bin less for each stage and for the classifier
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
    """How many ways have `lowest` to `highest` bins."""
    if highest < 0:
        return 0.0
    upper = cumulative[min(highest, len(cumulative) - 1)]
    return float(upper - (cumulative[min(lowest, len(cumulative)) - 1] if lowest > 0 else 0.0))
