"""A search space: stages, their choices, and the architectures and blocks that they make.

A space is a frozen value. What a stage's choice means in blocks is its family's business (`family.py`);
everything here works on any family. Drawing and mutation are in `draw.py`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from luts.errors import UsageError
from search.blocks import BlockSpec
from search.spaces.arch import Arch
from search.spaces.draw import Draws
from search.spaces.family import expand_head, expand_stage

Value = int | float


@dataclass(frozen=True)
class Stage:
    """One stage: which family of blocks it is made of, what is fixed, and what is searched.

    Attributes:
        name: Unique in the space, e.g. `transformer2`.
        kind: Says how a choice becomes blocks, see `family.py`.
        fixed: Named constants (stride, expansion, head_dim, ...).
        choices: Named tuples of candidate values in ascending order; a stage always has `width`.
    """

    name: str
    kind: str
    fixed: tuple[tuple[str, Value], ...]
    choices: tuple[tuple[str, tuple[Value, ...]], ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the searched values, in order."""
        return tuple(name for name, _ in self.choices)

    @cached_property
    def options(self) -> tuple[tuple[Value, ...], ...]:
        """Every combination of values, in lexicographic order."""
        return tuple(itertools.product(*(values for _, values in self.choices)))

    def value(self, values: tuple[Value, ...], name: str) -> Value:
        """The value called `name` of one combination."""
        return values[self.names.index(name)]

    def width(self, values: tuple[Value, ...]) -> int:
        """Output channels of one combination."""
        return int(self.value(values, "width"))


@dataclass(frozen=True)
class Space:
    """Stages in order; the last ones are optional as `stage_counts` says.

    Widths never shrink from a stage to the next (section 3.3.1 of AutoViT, read non-strictly).
    """

    name: str
    stages: tuple[Stage, ...]
    stage_counts: tuple[int, ...]
    resolutions: tuple[int, ...]
    heads: tuple[str, ...]
    default_resolution: int
    default_classes: int

    @cached_property
    def digest(self) -> str:
        """sha256 of the space's choices; the number of classes is no choice."""
        document = {
            "name": self.name,
            "stages": [[s.name, s.kind, s.fixed, s.choices] for s in self.stages],
            "stage_counts": self.stage_counts,
            "resolutions": self.resolutions,
            "heads": self.heads,
        }
        return hashlib.sha256(json.dumps(document, separators=(",", ":")).encode()).hexdigest()

    def with_classes(self, classes: int) -> Space:
        """The same choices for another number of classes."""
        return replace(self, default_classes=classes)

    def restricted(self, resolutions: tuple[int, ...]) -> Space:
        """The part of the space at some of its resolutions; `UsageError` for one that it does not have."""
        foreign = sorted(set(resolutions) - set(self.resolutions))
        if foreign or not resolutions:
            wrong = foreign[0] if foreign else "no resolution at all"
            raise UsageError(f"{self.name} has no resolution {wrong}; it has {list(self.resolutions)}")
        default = self.default_resolution if self.default_resolution in resolutions else resolutions[0]
        return replace(self, resolutions=tuple(sorted(resolutions)), default_resolution=default)

    def expand(self, arch: Arch) -> tuple[BlockSpec, ...]:
        """The blocks of an architecture.

        Raises:
            UsageError: the architecture is no member of this space.
        """
        self.check(arch)
        blocks: list[BlockSpec] = []
        channels, resolution = 3, arch.resolution
        for stage, values in zip(self.stages, arch.stages, strict=False):
            blocks += expand_stage(stage, values, channels, resolution)
            channels = stage.width(values)
            resolution = stage_resolution(stage, resolution)
        blocks.append(expand_head(arch.head, channels, resolution, arch.classes))
        return tuple(blocks)

    def check(self, arch: Arch) -> None:
        """Raise `UsageError`, naming the first value that is not a choice of this space."""
        if arch.space != self.name:
            raise UsageError(f"architecture of space {arch.space!r}, not of {self.name!r}")
        if arch.resolution not in self.resolutions:
            raise UsageError(
                f"{self.name}: resolution {arch.resolution} is not one of {list(self.resolutions)}"
            )
        if arch.head not in self.heads:
            raise UsageError(f"{self.name}: head {arch.head!r} is not one of {list(self.heads)}")
        if not 1 <= arch.classes <= 1 << 16:
            raise UsageError(f"{self.name}: {arch.classes} classes; expected 1 to {1 << 16}")
        if len(arch.stages) not in self.stage_counts:
            raise UsageError(
                f"{self.name}: {len(arch.stages)} stages; expected one of {list(self.stage_counts)}"
            )
        width = 0
        for stage, values in zip(self.stages, arch.stages, strict=False):
            if len(values) != len(stage.choices):
                raise UsageError(f"{self.name}: stage {stage.name} needs {', '.join(stage.names)}")
            for (name, allowed), value in zip(stage.choices, values, strict=True):
                if value not in allowed:
                    raise UsageError(
                        f"{self.name}: {stage.name}.{name}={value} is not one of {list(allowed)}"
                    )
            if stage.width(values) < width:
                raise UsageError(f"{self.name}: {stage.name} is narrower than the stage before it")
            width = stage.width(values)

    def to_document(self, arch: Arch) -> dict[str, Any]:
        """The JSON form of an architecture, with every value under its name."""
        self.check(arch)
        return {
            "space": arch.space,
            "resolution": arch.resolution,
            "head": arch.head,
            "classes": arch.classes,
            "stages": {
                stage.name: dict(zip(stage.names, map(_plain, values), strict=True))
                for stage, values in zip(self.stages, arch.stages, strict=False)
            },
        }

    def from_document(self, document: dict[str, Any]) -> Arch:
        """The architecture of a JSON form; the inverse of `to_document`.

        Raises:
            UsageError: something is missing, extra, of a wrong type or no choice of the space.
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
            space=self.name,
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
                    yield Arch(self.name, resolution, head, self.default_classes, stages)

    def sample(self, rng: random.Random, resolutions: tuple[int, ...] | None = None) -> Arch:
        """A random architecture, see `Draws.sample`."""
        return self._draws.sample(rng, resolutions)

    def mutate(self, arch: Arch, rng: random.Random, p_depth: float = 0.2, p_block: float = 0.4) -> Arch:
        """Mutation of Algorithm 2, see `Draws.mutate`."""
        return self._draws.mutate(arch, rng, p_depth, p_block)

    def crossover(self, a: Arch, b: Arch, rng: random.Random) -> Arch:
        """A child of two architectures, see `Draws.crossover`."""
        return self._draws.crossover(a, b, rng)

    def block_specs(self, resolutions: tuple[int, ...] | None = None) -> tuple[BlockSpec, ...]:
        """Every distinct block that some architecture of the space holds, sorted by key."""
        found: dict[str, BlockSpec] = {}
        for resolution in resolutions or self.resolutions:
            widths, side = {0}, resolution
            for done, stage in enumerate(self.stages):
                following: set[int] = set()
                for before, values in itertools.product(sorted(widths), stage.options):
                    if stage.width(values) < before:
                        continue
                    found |= {b.key: b for b in expand_stage(stage, values, before or 3, side)}
                    following.add(stage.width(values))
                widths, side = following, stage_resolution(stage, side)
                if done + 1 in self.stage_counts:
                    heads = [
                        expand_head(h, w, side, self.default_classes)
                        for h in self.heads
                        for w in sorted(widths)
                    ]
                    found |= {head.key: head for head in heads}
        return tuple(found[key] for key in sorted(found))


def stage_resolution(stage: Stage, resolution: int) -> int:
    """Side of the map after a stage."""
    return (resolution - 1) // int(dict(stage.fixed)["stride"]) + 1


def _plain(value: Value) -> Value:
    """2 for 2.0: equal architectures have equal JSON."""
    return int(value) if value == int(value) else value


def _number(value: object, name: str) -> Value:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{name} must be a number, not {value!r}")
    return value
