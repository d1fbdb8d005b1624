"""Search spaces and their architectures.

A space is data: stages in order, what is fixed in each, and what is searched. An architecture is one choice
in a space, with one canonical JSON form.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
import pickle
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

from luts.format.errors import UsageError
from search.blocks import BlockSpec
from search.blocks.sequence import IMAGE_CHANNELS, BlockSequence
from search.spaces.stages import (
    HEADS,
    Stage,
    Value,
    expand_head,
    expand_side,
    expand_stage,
    map_sides,
    tapped_stages,
)

MAX_CLASSES = 1 << 16


@dataclass(frozen=True)
class Space:
    """A search space: what its architectures choose from; widths never shrink from a stage to the next.

    (AutoViT, section 3.3.1, read non-strictly.)

    Attributes:
        name: Name of the space in commands, LUTs and checkpoints.
        stages: In order of execution; the last ones are optional as `stage_counts` says.
        stage_counts: Numbers of stages that a network may have, ascending.
        resolutions: Sides of the square input in pixels, ascending.
        heads: Names of registered heads; the first is the default.
        default_resolution: Resolution of architectures that name none.
        default_classes: Classes of architectures that name none; not a choice, so not part of the digest.
        former_resolutions: Resolutions of earlier versions of the space that were otherwise the same.
    """

    name: str
    stages: tuple[Stage, ...]
    stage_counts: tuple[int, ...]
    resolutions: tuple[int, ...]
    heads: tuple[str, ...]
    default_resolution: int
    default_classes: int
    former_resolutions: tuple[tuple[int, ...], ...] = ()

    @cached_property
    def digest(self) -> str:
        """Hex sha256 of the choices."""
        return self._digest_at(self.resolutions)

    @cached_property
    def has_canonical(self) -> bool:
        """Whether some networks have several descriptions, of which `Arch` keeps one."""
        return any(stage.has_canonical for stage in self.stages)

    @cached_property
    def digests(self) -> frozenset[str]:
        """Digests of this and earlier versions; their LUTs and supernets are valid for their resolutions."""
        return frozenset(map(self._digest_at, (self.resolutions, *self.former_resolutions)))

    def _digest_at(self, resolutions: tuple[int, ...]) -> str:
        document = {
            "name": self.name,
            "stages": [
                [s.name, s.kind, s.fixed, s.choices, *([s.labels] if s.labels else [])] for s in self.stages
            ],
            "stage_counts": self.stage_counts,
            "resolutions": resolutions,
            "heads": self.heads,
        }
        return hashlib.sha256(json.dumps(document, separators=(",", ":")).encode()).hexdigest()

    @cached_property
    def _pickled(self) -> bytes:
        return pickle.dumps(tuple(getattr(self, field.name) for field in fields(self)))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle once per space, so that thousands of unpickled architectures share one space object."""
        return _unpickle_space, (type(self), self._pickled)

    def with_classes(self, classes: int) -> Space:
        """Return the same choices for another number of classes."""
        return replace(self, default_classes=classes)

    def with_task_head(self, head: str) -> Space:
        """Return the space `SPACE.HEAD`, whose networks have a task's head instead of a classifier.

        It has the numbers of stages from which the head reads the same maps as from the largest number, and
        the resolutions whose maps are large enough.

        Raises:
            UsageError: not a head of another task, or every map is too small for it.
        """
        known = HEADS.get(head)
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
            raise UsageError(f"{self.name}: {refusal}", code="map_too_small")
        return sibling.restricted(tuple(fitting))

    def restricted(self, resolutions: tuple[int, ...]) -> Space:
        """Return the part of the space at some of its resolutions.

        Raises:
            UsageError: the space does not have one of them, or none is given.
        """
        foreign = sorted(set(resolutions) - set(self.resolutions))
        if foreign or not resolutions:
            wrong = foreign[0] if foreign else "(none given)"
            raise UsageError(
                f"{self.name} has no resolution {wrong}; it has {list(self.resolutions)}",
                code="unknown_resolution",
            )
        default = self.default_resolution if self.default_resolution in resolutions else resolutions[0]
        return replace(self, resolutions=tuple(sorted(resolutions)), default_resolution=default)

    def check(self, arch: Arch) -> None:
        """Raise `UsageError` with the first value that is not a choice of this space."""
        name = self.name
        if arch.space != name:
            raise _outside(f"architecture of space {arch.space!r}, not of {name!r}")
        if arch.resolution not in self.resolutions:
            raise _outside(f"{name}: resolution {arch.resolution} is not one of {list(self.resolutions)}")
        if arch.head not in self.heads:
            raise _outside(f"{name}: head {arch.head!r} is not one of {list(self.heads)}")
        if not 1 <= arch.classes <= MAX_CLASSES:
            raise _outside(f"{name}: {arch.classes} classes; expected 1 to {MAX_CLASSES}")
        if len(arch.stages) not in self.stage_counts:
            raise _outside(f"{name}: {len(arch.stages)} stages; expected one of {list(self.stage_counts)}")
        width = 0
        for stage, values in zip(self.stages, arch.stages, strict=False):
            _check_stage(name, stage, values, width)
            width = stage.width(values)

    def exits(self, arch: Arch) -> tuple[Arch, ...]:
        """Return an architecture's exits: what ends after its first stages, for each smaller number of them."""
        counts = (count for count in self.stage_counts if count < len(arch.stages))
        return tuple(replace(arch, search_space=self, stages=arch.stages[:count]) for count in counts)

    def from_document(self, document: dict[str, Any]) -> Arch:
        """Return the architecture of a JSON form; the inverse of `Arch.to_document`.

        Raises:
            UsageError: something is missing, extra, of a wrong type or not a choice of the space.
        """
        extra = set(document) - {"space", "resolution", "head", "classes", "stages"}
        stages = document.get("stages")
        if extra or not isinstance(stages, dict):
            raise _malformed(f"{self.name}: architecture needs `stages` and takes no {sorted(extra)}")
        rows = []
        for stage in self.stages[: len(stages)]:
            values = stages.get(stage.name)
            if not isinstance(values, dict) or set(values) != set(stage.names):
                raise _malformed(f"{self.name}: stage {stage.name} needs exactly {', '.join(stage.names)}")
            rows.append(tuple(_value(stage, name, values[name]) for name in stage.names))
        if len(rows) != len(stages):
            raise _malformed(f"{self.name}: has {len(self.stages)} stages, the architecture {len(stages)}")
        arch = Arch(
            self,
            resolution=int(_number(document.get("resolution", self.default_resolution), "resolution")),
            head=str(document.get("head", self.heads[0])),
            classes=int(_number(document.get("classes", self.default_classes), "classes")),
            stages=tuple(rows),
        )
        self.check(arch)
        return arch

    def size(self) -> int:
        """Return the exact number of architectures at the default number of classes."""
        per_count = sum(self._completions[total, 0, 0] for total in self.stage_counts)
        return per_count * len(self.resolutions) * len(self.heads)

    def __iter__(self) -> Iterator[Arch]:
        """Iterate over all architectures in a fixed order; check `size()` first."""
        for resolution, head, total in itertools.product(self.resolutions, self.heads, self.stage_counts):
            for stages in itertools.product(*(stage.options for stage in self.stages[:total])):
                widths = [s.width(v) for s, v in zip(self.stages, stages, strict=False)]
                if widths == sorted(widths):
                    yield Arch(self, resolution, head, self.default_classes, stages)

    @cached_property
    def _completions(self) -> dict[tuple[int, int, int], int]:
        """(total stages, stages done, width so far) -> number of ways to choose the remaining stages."""
        stages = self.stages
        table: dict[tuple[int, int, int], int] = {}
        for total in self.stage_counts:
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

    @cached_property
    def _weighted_options(self) -> dict[tuple[int, int, int], tuple[list[tuple[Value, ...]], list[int]]]:
        """(total stages, stages done, width so far) -> options and their cumulative completions; filled on use."""
        return {}

    def sample(
        self,
        rng: random.Random,
        resolutions: tuple[int, ...] | None = None,
        stage_counts: tuple[int, ...] | None = None,
    ) -> Arch:
        """Draw resolution, head and number of stages uniformly, then uniformly among the remaining choices.

        Deep networks far outnumber shallow ones, so a uniform draw would hardly ever give a shallow one. Each
        value is drawn in proportion to the number of architectures that it leads to: no draw is rejected.
        Resolutions and numbers of stages may be limited to some of the space's.
        """
        total = rng.choice(stage_counts or self.stage_counts)
        width, rows = 0, []
        for done in range(total):
            values = self._draw_stage(rng, total, done, width)
            width = self.stages[done].width(values)
            rows.append(values)
        resolution = rng.choice(resolutions or self.resolutions)
        return Arch(self, resolution, rng.choice(self.heads), self.default_classes, tuple(rows))

    def mutate(self, arch: Arch, rng: random.Random, p_depth: float = 0.2, p_block: float = 0.4) -> Arch:
        """Mutate as in AutoViT's Algorithm 2: depths change with `p_depth`, then each stage with `p_block`.

        Depth is the number of stages and of blocks in a stage; resolution and head mutate like a stage.
        """
        total = rng.choice(self.stage_counts) if rng.random() < p_depth else len(arch.stages)
        rows: list[tuple[Value, ...]] = []
        for index, stage in enumerate(self.stages[:total]):
            values = list(arch.stages[index]) if index < len(arch.stages) else list(rng.choice(stage.options))
            for position, (name, allowed) in enumerate(stage.choices):
                if name == "depth" and rng.random() < p_depth:
                    values[position] = rng.choice(allowed)
            rows.append(rng.choice(stage.options) if rng.random() < p_block else tuple(values))
        resolution = rng.choice(self.resolutions) if rng.random() < p_block else arch.resolution
        head = rng.choice(self.heads) if rng.random() < p_block else arch.head
        return self._repair(rng, Arch(self, resolution, head, arch.classes, tuple(rows)))

    def crossover(self, a: Arch, b: Arch, rng: random.Random) -> Arch:
        """Return a child with one parent's length and each stage (or value of one), head, resolution of either."""
        longer, shorter = (a, b) if len(a.stages) >= len(b.stages) else (b, a)
        total = len(rng.choice((a, b)).stages)
        rows = tuple(
            rng.choice((longer, shorter)).stages[i] if i < len(shorter.stages) else longer.stages[i]
            for i in range(total)
        )
        if len(self.stages) == 1:
            rows = (tuple(map(rng.choice, zip(a.stages[0], b.stages[0], strict=True))),)
        resolution, head = rng.choice((a, b)).resolution, rng.choice((a, b)).head
        return self._repair(rng, Arch(self, resolution, head, a.classes, rows))

    def _repair(self, rng: random.Random, arch: Arch) -> Arch:
        """Draw stages again where widths shrink; a valid architecture stays as it is."""
        width, rows = 0, []
        for done, values in enumerate(arch.stages):
            if not self._fits(len(arch.stages), done, width, values):
                values = self._draw_stage(rng, len(arch.stages), done, width)
            width = self.stages[done].width(values)
            rows.append(values)
        return Arch(self, arch.resolution, arch.head, arch.classes, tuple(rows))

    def _draw_stage(self, rng: random.Random, total: int, done: int, width: int) -> tuple[Value, ...]:
        state = (total, done, width)
        if state not in self._weighted_options:
            stage = self.stages[done]
            options = [o for o in stage.options if self._fits(total, done, width, o)]
            weights = itertools.accumulate(
                self._completions[total, done + 1, stage.width(o)] for o in options
            )
            self._weighted_options[state] = options, list(weights)
        options, cumulative = self._weighted_options[state]
        return rng.choices(options, cum_weights=cumulative)[0]

    def _fits(self, total: int, done: int, width: int, values: tuple[Value, ...]) -> bool:
        own = self.stages[done].width(values)
        return own >= width and self._completions[total, done + 1, own] > 0

    def block_specs(self, resolutions: tuple[int, ...] | None = None) -> tuple[BlockSpec, ...]:
        """Return every distinct block of the space's architectures, sorted by key."""
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
        """Yield the blocks of heads after the stage at `index`, whose map has a side of `side` pixels."""
        for head, width in itertools.product(self.heads, widths):
            if any(index in tapped_stages(self.stages[:total], head) for total in self.stage_counts):
                yield expand_side(head, width, side, self.default_classes)
            if index + 1 in self.stage_counts:
                sides = map_sides(self.stages[: index + 1], head, resolution)
                yield from expand_head(head, width, sides, self.default_classes)


@functools.lru_cache(maxsize=64)
def _unpickle_space(cls: type[Space], pickled: bytes) -> Space:
    return cls(*pickle.loads(pickled))  # noqa: S301 - a part of the pickle that is being read


@dataclass(frozen=True)
class Arch(BlockSequence):
    """One member of a space, which it references, so that its blocks can be built from it alone.

    Attributes:
        search_space: The space that it was made in, or a part of one. It says what the values mean and does
            not count when architectures are compared.
        resolution: Side of the square input in pixels.
        head: Name of the classifier or of another task's head.
        classes: Number of classes; for another task's head without the background.
        stages: For each stage that is used, its values in the order of that stage's choices.
        space: Name of the space.
    """

    search_space: Space = field(repr=False, compare=False)
    resolution: int
    head: str
    classes: int
    stages: tuple[tuple[Value, ...], ...]
    space: str = field(init=False)

    def __post_init__(self) -> None:
        """Store the name of the space, and of equal descriptions of the stages the canonical one."""
        object.__setattr__(self, "space", self.search_space.name)
        if self.search_space.has_canonical:
            pairs = zip(self.search_space.stages, self.stages, strict=False)
            object.__setattr__(self, "stages", tuple(stage.canonical(values) for stage, values in pairs))

    def blocks(self) -> tuple[BlockSpec, ...]:
        """Return the blocks of the network in order of execution.

        Raises:
            UsageError: a value is not a choice of the space.
        """
        self.search_space.check(self)
        blocks: list[BlockSpec] = []
        channels, resolution = IMAGE_CHANNELS, self.resolution
        used = self.search_space.stages[: len(self.stages)]
        tapped = tapped_stages(used, self.head)
        for index, (stage, values) in enumerate(zip(used, self.stages, strict=True)):
            blocks += expand_stage(stage, values, channels, resolution)
            channels, resolution = stage.width(values), stage.out_resolution(resolution)
            if index in tapped:
                blocks.append(expand_side(self.head, channels, resolution, self.classes))
        sides = map_sides(used, self.head, self.resolution)
        blocks += expand_head(self.head, channels, sides, self.classes)
        return tuple(blocks)

    def after_exit(self, early: Arch) -> tuple[BlockSpec, ...]:
        """Return the blocks that take the last map of an exit (`Space.exits`); a classifier is one block."""
        return self.blocks()[len(early.blocks()) - 1 :]

    def with_resolution(self, resolution: int) -> Arch:
        """Return the same network at another input resolution."""
        return replace(self, resolution=resolution)

    def with_classes(self, classes: int) -> Arch:
        """Return the same network for another number of classes."""
        return replace(self, classes=classes)

    def to_document(self) -> dict[str, Any]:
        """Return the JSON form, with every value under its name."""
        self.search_space.check(self)
        return {
            "space": self.space,
            "resolution": self.resolution,
            "head": self.head,
            "classes": self.classes,
            "stages": {
                stage.name: {name: stage.shown(name, v) for name, v in zip(stage.names, values, strict=True)}
                for stage, values in zip(self.search_space.stages, self.stages, strict=False)
            },
        }

    def to_json(self) -> str:
        """Return canonical JSON: sorted keys, no white space; equal architectures give equal text."""
        return json.dumps(self.to_document(), sort_keys=True, separators=(",", ":"))

    @property
    def digest(self) -> str:
        """First 12 hex digits of the sha256 of the canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]


def _check_stage(space: str, stage: Stage, values: tuple[Value, ...], width_before: int) -> None:
    """Raise `UsageError` if values are not a combination of the stage, or narrower than the stage before."""
    if len(values) != len(stage.choices):
        raise _outside(f"{space}: stage {stage.name} needs {', '.join(stage.names)}")
    for (choice, allowed), value in zip(stage.choices, values, strict=True):
        if value not in allowed:
            known = [stage.shown(choice, each) for each in allowed]
            raise _outside(f"{space}: {stage.name}.{choice}={value} is not one of {known}")
    if stage.width(values) < width_before:
        raise _outside(f"{space}: {stage.name} is narrower than the stage before it")


def _outside(message: str) -> UsageError:
    return UsageError(message, code="not_in_space")


def _value(stage: Stage, choice: str, value: object) -> Value:
    """Return the value of a choice from its JSON form, the inverse of `Stage.shown`."""
    kinds = dict(stage.labels).get(choice)
    if kinds is None:
        return _number(value, f"{stage.name}.{choice}")
    if value not in kinds:
        raise _malformed(f"{stage.name}.{choice} must be one of {', '.join(kinds)}, not {value!r}")
    return kinds.index(str(value))


def _number(value: object, name: str) -> Value:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < math.inf:
        raise _malformed(f"{name} must be a number, not {value!r}")
    return value


def _malformed(message: str) -> UsageError:
    return UsageError(message, code="invalid_architecture")
