"""An architecture: one choice in a space, frozen, hashable, with one canonical JSON form."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import Any

from luts.format.errors import UsageError
from search.blocks import BlockSpec, Macs, boundary_bytes, count
from search.spaces.family import expand_head, expand_side, expand_stage
from search.spaces.layout import Layout, Value
from search.spaces.maps import map_sides, tapped_stages

MAX_CLASSES = 1 << 16


@dataclass(frozen=True)
class Arch:
    """One member of a space, which it carries: whoever has it can make its blocks.

    Attributes:
        layout: The space that it was made in, or a part of one; it says what the values mean, and does not count
            when architectures are compared.
        resolution: Side of the square input in pixels.
        head: Name of the classifier, or of another task's head.
        classes: Number of classes; of another task's head without the background.
        stages: For each stage that is used, its values in the order of that stage's choices.
        space: The space's name.
    """

    layout: Layout = field(repr=False, compare=False)
    resolution: int
    head: str
    classes: int
    stages: tuple[tuple[Value, ...], ...]
    space: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "space", self.layout.name)

    def blocks(self) -> tuple[BlockSpec, ...]:
        """The blocks of the network in order of execution.

        Raises:
            UsageError: a value is not a choice of the space.
        """
        self.check(self.layout)
        blocks: list[BlockSpec] = []
        channels, resolution = 3, self.resolution
        used = self.layout.stages[: len(self.stages)]
        tapped = tapped_stages(used, self.head)
        for index, (stage, values) in enumerate(zip(used, self.stages, strict=True)):
            blocks += expand_stage(stage, values, channels, resolution)
            channels, resolution = stage.width(values), stage.out_resolution(resolution)
            if index in tapped:
                blocks.append(expand_side(self.head, channels, resolution, self.classes))
        sides = map_sides(used, self.head, self.resolution)
        blocks += expand_head(self.head, channels, sides, self.classes)
        return tuple(blocks)

    def keys(self) -> tuple[str, ...]:
        """The block keys in order of execution."""
        return tuple(block.key for block in self.blocks())

    def params(self) -> int:
        """Trainable parameters."""
        return sum(block.params() for block in self.blocks())

    def macs(self) -> Macs:
        """Multiply-accumulates at batch 1."""
        return count(self.blocks())[1]

    def boundary_bytes(self) -> int:
        """Bytes moved between blocks."""
        return boundary_bytes(self.blocks())

    def with_resolution(self, resolution: int) -> Arch:
        """The same network at another input resolution."""
        return replace(self, resolution=resolution)

    def with_classes(self, classes: int) -> Arch:
        """The same network for another number of classes."""
        return replace(self, classes=classes)

    def check(self, layout: Layout) -> None:
        """Raise `UsageError`, naming the first value that is not a choice of `layout`."""
        name = layout.name
        if self.space != name:
            raise UsageError(f"architecture of space {self.space!r}, not of {name!r}")
        if self.resolution not in layout.resolutions:
            raise UsageError(f"{name}: resolution {self.resolution} is not one of {list(layout.resolutions)}")
        if self.head not in layout.heads:
            raise UsageError(f"{name}: head {self.head!r} is not one of {list(layout.heads)}")
        if not 1 <= self.classes <= MAX_CLASSES:
            raise UsageError(f"{name}: {self.classes} classes; expected 1 to {MAX_CLASSES}")
        if len(self.stages) not in layout.stage_counts:
            raise UsageError(
                f"{name}: {len(self.stages)} stages; expected one of {list(layout.stage_counts)}"
            )
        width = 0
        for stage, values in zip(layout.stages, self.stages, strict=False):
            if len(values) != len(stage.choices):
                raise UsageError(f"{name}: stage {stage.name} needs {', '.join(stage.names)}")
            for (choice, allowed), value in zip(stage.choices, values, strict=True):
                if value not in allowed:
                    raise UsageError(f"{name}: {stage.name}.{choice}={value} is not one of {list(allowed)}")
            if stage.width(values) < width:
                raise UsageError(f"{name}: {stage.name} is narrower than the stage before it")
            width = stage.width(values)

    def to_document(self) -> dict[str, Any]:
        """The JSON form, with every value under its name."""
        self.check(self.layout)
        return {
            "space": self.space,
            "resolution": self.resolution,
            "head": self.head,
            "classes": self.classes,
            "stages": {
                stage.name: dict(zip(stage.names, map(_plain, values), strict=True))
                for stage, values in zip(self.layout.stages, self.stages, strict=False)
            },
        }

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no white space; equal architectures give equal text."""
        return json.dumps(self.to_document(), sort_keys=True, separators=(",", ":"))

    @property
    def digest(self) -> str:
        """First 12 hex digits of the sha256 of the canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]


def _plain(value: Value) -> Value:
    """2 for 2.0: equal architectures have equal JSON."""
    return int(value) if value == int(value) else value
