"""The units that fragments are kept of, and the small modules whose lowering gives a unit's fragment.

A unit is a block of a network; of a MobileViT block, what comes before its transformer layers, each layer, and
what comes after. A donor is the unit between two 1x1 convolutions, so that it meets the layout that it has
in the midst of a network; the first and the last unit of a network have none on the outer side.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from orchestrator.export.artifacts.spec import toolchain_of
from orchestrator.export.lower.weights import build_seeded
from search.blocks import BlockSpec, Conv, EnclosingSpec, MobileViTLayer, MobileViTShell, parse_key
from search.networks import build_block

Part = Literal["block", "before", "layer", "after"]


@dataclass(frozen=True)
class Unit:
    """A unit in a network.

    Attributes:
        key: Of its block; a shell has two units.
        part: The whole block, or which part of a MobileViT block.
        first: Whether it takes the network's input.
        last: Whether it gives the network's output.
        path: Of its module in the network, such as `4.layers.0`.
    """

    key: str
    part: Part
    first: bool
    last: bool
    path: str

    @property
    def identity(self) -> str:
        """sha256 of everything that decides its fragment."""
        unit = [self.key, self.part, self.first, self.last]
        return hashlib.sha256(
            json.dumps([unit, toolchain_of([self.key])], sort_keys=True).encode()
        ).hexdigest()


def units_of(blocks: Sequence[BlockSpec]) -> tuple[Unit, ...]:
    """The units of a network in order of execution; none if it isn't one from a stem to a classifier, or if a block
    runs others inside of it in another way than MobileViT's."""
    if len(blocks) < 2 or not isinstance(blocks[0], Conv) or len(blocks[-1].output_shape) != 2:
        return ()
    if any(isinstance(block, EnclosingSpec) and type(block) is not MobileViTShell for block in blocks):
        return ()
    units: list[Unit] = []
    shell: MobileViTShell | None = None
    index = layers = -1
    for position, block in enumerate(blocks):
        if isinstance(block, MobileViTLayer):
            layers += 1
            units.append(Unit(block.key, "layer", False, False, f"{index}.layers.{layers}"))
            continue
        if shell is not None:
            units.append(Unit(shell.key, "after", False, False, str(index)))
        index, layers = index + 1, -1
        shell = block if isinstance(block, MobileViTShell) else None
        first, last = position == 0, position == len(blocks) - 1
        units.append(Unit(block.key, "before" if shell else "block", first, last, str(index)))
    return tuple(units)


@dataclass(frozen=True)
class Donor:
    """A module to lower for the sake of its units, and its input."""

    module: nn.Module
    inputs: tuple[Tensor, ...]
    units: tuple[Unit, ...]


def donor_of(unit: Unit) -> Donor:
    """The donor of a unit, with seeded weights; that of a shell has both its units."""
    block = parse_key(unit.key)
    if unit.part == "layer":
        module = build_seeded(lambda: build_block(block)[0], 0)
        return Donor(module, (build_block(block)[1],), (replace(unit, path=""),))
    before, after = int(not unit.first), int(not unit.last)

    def build() -> nn.Module:
        entry = [nn.Conv2d(block.in_channels, block.in_channels, 1)] * before
        exit_ = [nn.Conv2d(block.out_channels, block.out_channels, 1)] * after
        return nn.Sequential(*entry, build_block(block)[0], *exit_)

    parts: tuple[Part, ...] = ("block",) if unit.part == "block" else ("before", "after")
    x = torch.zeros(1, block.in_channels, block.resolution, block.resolution)
    units = tuple(replace(unit, part=part, path=str(before)) for part in parts)
    return Donor(build_seeded(build, 0), (x,), units)


def owners(paths: Sequence[str | None], units: Sequence[Unit]) -> list[Unit | None]:
    """The unit of each operator, None where it has none.

    Args:
        paths: Of the module that each operator was called in, in order of execution; None for operators that
            a pass inserted, which belong to the next one's unit.
        units: Of the network or donor.
    """
    normed: set[str] = set()
    owned: list[Unit | None] = []
    for path in paths:
        owned.append(None if path is None else _owner(path, units, normed))
    following = None
    for position in reversed(range(len(paths))):
        if paths[position] is None:
            owned[position] = following
        following = owned[position]
    return owned


def _owner(path: str, units: Sequence[Unit], normed: set[str]) -> Unit | None:
    for unit in units:
        if unit.path and path != unit.path and not path.startswith(f"{unit.path}."):
            continue
        inner = path.removeprefix(unit.path).removeprefix(".")
        if unit.part in ("before", "after"):
            if inner.startswith("layers."):
                continue
            if inner == "norm":
                normed.add(unit.path)
            if (unit.part == "after") != (unit.path in normed):
                continue
        return unit
    return None
