"""What a space is, as data: stages in order, their choices, and what else there is to choose."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import pickle
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

Value = int | float

IMAGE_CHANNELS = 3


@dataclass(frozen=True)
class Stage:
    """One stage: which family of blocks it is made of, what is fixed, and what is searched.

    Attributes:
        name: Unique in the space, e.g. `transformer2`.
        kind: Says how a choice becomes blocks, see `family.py`.
        fixed: Named constants (stride, expansion, head_dim, ...); a stage always has `stride`.
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

    def named(self, values: tuple[Value, ...]) -> dict[str, Value]:
        """Constants and one combination, by name."""
        return dict(self.fixed) | dict(zip(self.names, values, strict=True))

    def out_resolution(self, resolution: int) -> int:
        """Side of the map after the stage."""
        return (resolution - 1) // int(dict(self.fixed)["stride"]) + 1

    def __reduce__(self) -> tuple[Any, ...]:
        """Without what is cached."""
        return Stage, (self.name, self.kind, self.fixed, self.choices)


@dataclass(frozen=True)
class Layout:
    """What the architectures of a space are choices in; widths never shrink from a stage to the next.

    (Section 3.3.1 of AutoViT, read non-strictly.)

    Attributes:
        name: By which commands, LUTs and checkpoints know the space.
        stages: In order of execution; the last ones are optional as `stage_counts` says.
        stage_counts: How many stages a network may have, ascending.
        resolutions: Sides of the square input in pixels, ascending.
        heads: Names of classifiers, see `family.py`; the first is the default.
        default_resolution: Of architectures that name none.
        default_classes: Number of classes, likewise; no choice, so not part of the digest.
        former_resolutions: Those that the space had in versions before, which were otherwise the same.
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
        """sha256 of the choices."""
        return self._digest_at(self.resolutions)

    @cached_property
    def digests(self) -> frozenset[str]:
        """Of this version and of those before, whose LUTs and supernets hold for the resolutions that they had."""
        return frozenset(map(self._digest_at, (self.resolutions, *self.former_resolutions)))

    def _digest_at(self, resolutions: tuple[int, ...]) -> str:
        document = {
            "name": self.name,
            "stages": [[s.name, s.kind, s.fixed, s.choices] for s in self.stages],
            "stage_counts": self.stage_counts,
            "resolutions": resolutions,
            "heads": self.heads,
        }
        return hashlib.sha256(json.dumps(document, separators=(",", ":")).encode()).hexdigest()

    @cached_property
    def _pickled(self) -> bytes:
        return pickle.dumps(tuple(getattr(self, field.name) for field in fields(self)))

    def __reduce__(self) -> tuple[Any, ...]:
        """Thousands of architectures come one by one; those of a space then share one object again."""
        return _shared, (type(self), self._pickled)


@functools.lru_cache(maxsize=64)
def _shared(cls: type[Layout], pickled: bytes) -> Layout:
    return cls(*pickle.loads(pickled))  # noqa: S301 - a part of the pickle that is being read
