"""A search space: a layout, and what is done with it: parts of it, its architectures, its blocks.

What a stage's choice means in blocks is its family's business (`family.py`); everything here works on any family.
Drawing and mutation are in `draw.py`.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from luts.format.errors import UsageError
from search.blocks import BlockSpec
from search.spaces.arch import Arch
from search.spaces.draw import Draws
from search.spaces.family import expand_head, expand_side, expand_stage, task_head
from search.spaces.layout import IMAGE_CHANNELS, Layout, Value
from search.spaces.maps import map_sides, tapped_stages


@dataclass(frozen=True)
class Space(Layout):
    """A layout whose architectures can be listed, drawn, mutated and read."""

    def with_classes(self, classes: int) -> Space:
        """The same choices for another number of classes."""
        return replace(self, default_classes=classes)

    def with_task_head(self, head: str) -> Space:
        """The sibling whose networks have a task's head in the classifier's place, called `SPACE.HEAD`.

        Numbers of stages stay that take the same maps as the most stages do, and resolutions whose maps are large
        enough.

        Raises:
            UsageError: not a head of another task, or every map is too small for it.
        """
        known = task_head(head)
        if known is None:
            raise UsageError(f"{head!r} is not a head of detection or segmentation")
        sibling = replace(self, name=f"{self.name}.{head}", heads=(head,), default_classes=known.classes)
        tapped = {total: tapped_stages(self.stages[:total], head) for total in self.stage_counts}
        alike = tuple(total for total in tapped if tapped[total] == tapped[max(tapped)])
        sibling = replace(sibling, stage_counts=alike)
        fitting, refusal = [], None
        for resolution in self.resolutions:
            try:
                for total in alike:
                    expand_head(head, 1, map_sides(self.stages[:total], head, resolution), known.classes)
                fitting.append(resolution)
            except UsageError as error:
                refusal = error
        if not fitting:
            raise UsageError(f"{self.name}: {refusal}")
        return sibling.restricted(tuple(fitting))

    def restricted(self, resolutions: tuple[int, ...]) -> Space:
        """The part of the space at some of its resolutions; `UsageError` for one that it does not have."""
        foreign = sorted(set(resolutions) - set(self.resolutions))
        if foreign or not resolutions:
            wrong = foreign[0] if foreign else "no resolution at all"
            raise UsageError(f"{self.name} has no resolution {wrong}; it has {list(self.resolutions)}")
        default = self.default_resolution if self.default_resolution in resolutions else resolutions[0]
        return replace(self, resolutions=tuple(sorted(resolutions)), default_resolution=default)

    def check(self, arch: Arch) -> None:
        """Raise `UsageError`, naming the first value that is not a choice of this space."""
        arch.check(self)

    def from_document(self, document: dict[str, Any]) -> Arch:
        """The architecture of a JSON form; the inverse of `Arch.to_document`.

        Raises:
            UsageError: something is missing, extra, of a wrong type or not a choice of the space.
        """
        extra = set(document) - {"space", "resolution", "head", "classes", "stages"}
        stages = document.get("stages")
        if extra or not isinstance(stages, dict):
            raise UsageError(f"{self.name}: architecture needs `stages` and takes no {sorted(extra)}")
        rows = []
        for stage in self.stages[: len(stages)]:
            values = stages.get(stage.name)
            if not isinstance(values, dict) or set(values) != set(stage.names):
                raise UsageError(f"{self.name}: stage {stage.name} needs exactly {', '.join(stage.names)}")
            rows.append(tuple(_number(values[name], f"{stage.name}.{name}") for name in stage.names))
        if len(rows) != len(stages):
            raise UsageError(f"{self.name}: has {len(self.stages)} stages, the architecture {len(stages)}")
        arch = Arch(
            self,
            resolution=int(_number(document.get("resolution", self.default_resolution), "resolution")),
            head=str(document.get("head", self.heads[0])),
            classes=int(_number(document.get("classes", self.default_classes), "classes")),
            stages=tuple(rows),
        )
        self.check(arch)
        return arch

    @cached_property
    def _draws(self) -> Draws:
        return Draws(self)

    def size(self) -> int:
        """Exact number of architectures, at the default number of classes."""
        per_count = sum(self._draws.completions[total, 0, 0] for total in self.stage_counts)
        return per_count * len(self.resolutions) * len(self.heads)

    def __iter__(self) -> Iterator[Arch]:
        """Every architecture in a fixed order; ask `size()` first."""
        for resolution, head, total in itertools.product(self.resolutions, self.heads, self.stage_counts):
            for stages in itertools.product(*(stage.options for stage in self.stages[:total])):
                widths = [s.width(v) for s, v in zip(self.stages, stages, strict=False)]
                if widths == sorted(widths):
                    yield Arch(self, resolution, head, self.default_classes, stages)

    def sample(
        self,
        rng: random.Random,
        resolutions: tuple[int, ...] | None = None,
        stage_counts: tuple[int, ...] | None = None,
    ) -> Arch:
        """A random architecture, see `Draws.sample`; of all resolutions and numbers of stages, or of some."""
        return self._draws.sample(rng, resolutions, stage_counts)

    def mutate(self, arch: Arch, rng: random.Random, p_depth: float = 0.2, p_block: float = 0.4) -> Arch:
        """Mutation of Algorithm 2, see `Draws.mutate`."""
        return self._draws.mutate(arch, rng, p_depth, p_block)

    def crossover(self, a: Arch, b: Arch, rng: random.Random) -> Arch:
        """A child of two architectures, see `Draws.crossover`."""
        return self._draws.crossover(a, b, rng)

    def block_specs(self, resolutions: tuple[int, ...] | None = None) -> tuple[BlockSpec, ...]:
        """Every distinct block that some architecture of the space holds, sorted by key."""
        blocks: dict[str, BlockSpec] = {}
        for resolution in resolutions or self.resolutions:
            widths, side = {0}, resolution
            for done, stage in enumerate(self.stages):
                following: set[int] = set()
                for before, values in itertools.product(sorted(widths), stage.options):
                    if stage.width(values) < before:
                        continue
                    blocks |= {b.key: b for b in expand_stage(stage, values, before or IMAGE_CHANNELS, side)}
                    following.add(stage.width(values))
                widths, side = following, stage.out_resolution(side)
                heads = self._head_blocks(done, sorted(widths), resolution, side)
                blocks |= {head.key: head for head in heads}
        return tuple(blocks[key] for key in sorted(blocks))

    def _head_blocks(
        self, index: int, widths: Sequence[int], resolution: int, side: int
    ) -> Iterator[BlockSpec]:
        """What heads have after the stage at `index`, for each of its widths; `side` is that of its map."""
        for head, width in itertools.product(self.heads, widths):
            if any(index in tapped_stages(self.stages[:total], head) for total in self.stage_counts):
                yield expand_side(head, width, side, self.default_classes)
            if index + 1 in self.stage_counts:
                sides = map_sides(self.stages[: index + 1], head, resolution)
                yield from expand_head(head, width, sides, self.default_classes)


def _number(value: object, name: str) -> Value:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{name} must be a number, not {value!r}")
    return value
