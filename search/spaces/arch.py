"""An architecture: one choice in a space, frozen, hashable, with one canonical JSON form."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from search.blocks import BlockSpec, Macs, boundary_bytes, count

if TYPE_CHECKING:
    from search.spaces.space import Value


@dataclass(frozen=True)
class Arch:
    """One member of a space.

    `stages` holds, for each stage that is used, its values in the order of that stage's choices.
    """

    space: str
    resolution: int
    head: str
    classes: int
    stages: tuple[tuple[Value, ...], ...]

    def blocks(self) -> tuple[BlockSpec, ...]:
        """The blocks of the network in order of execution."""
        from search.spaces.registry import get_space

        return get_space(self.space).expand(self)

    def keys(self) -> tuple[str, ...]:
        """The block keys in order of execution."""
        return tuple(block.key for block in self.blocks())

    def params(self) -> int:
        """Trainable parameters."""
        return count(self.blocks())[0]

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

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no white space; equal architectures give equal text."""
        from search.spaces.registry import get_space

        return json.dumps(get_space(self.space).to_document(self), sort_keys=True, separators=(",", ":"))

    @property
    def digest(self) -> str:
        """First 12 hex digits of the sha256 of the canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]
