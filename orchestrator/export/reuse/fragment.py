"""A unit's part of an XNNPACK graph without its weights, and the store of such fragments.

A fragment names each constant by tensor of the unit's module and permutation of its dimensions, so that it
works for any weights. A file is its sha256 followed by JSON; one that is damaged, or that does not fit the
schema, counts as missing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field, ValidationError
from torch import Tensor, nn

from luts.format.files import write_atomically
from luts.format.schema import FrozenModel
from orchestrator.export.artifacts.artifact import STALE_S
from orchestrator.export.artifacts.spec import toolchain_of
from orchestrator.export.lower.source import build_seeded
from search.blocks import BlockSpec, Conv, EnclosingSpec, MobileViTLayer, MobileViTShell, parse_key
from search.networks import build_block

Part = Literal["block", "before", "layer", "after"]


@dataclass(frozen=True)
class ReusableUnit:
    """A unit in a network.

    Attributes:
        key: Key of its block; a shell has two units.
        part: The whole block, or which part of a MobileViT block.
        first: Whether it takes the network's input.
        last: Whether it computes the network's output.
        path: Path of its module in the network, such as `4.layers.0`.
    """

    key: str
    part: Part
    first: bool
    last: bool
    path: str

    @property
    def identity(self) -> str:
        """SHA-256 of everything that decides its fragment."""
        unit = [self.key, self.part, self.first, self.last]
        return hashlib.sha256(
            json.dumps([unit, toolchain_of([self.key])], sort_keys=True).encode()
        ).hexdigest()


def units_of(blocks: Sequence[BlockSpec]) -> tuple[ReusableUnit, ...]:
    """Return the units of a network in order of execution.

    None if the network does not go from a stem to a classifier, or a block contains others in another way
    than MobileViT's.
    """
    if len(blocks) < 2 or not isinstance(blocks[0], Conv) or len(blocks[-1].output_shape) != 2:
        return ()
    if any(isinstance(block, EnclosingSpec) and type(block) is not MobileViTShell for block in blocks):
        return ()
    units: list[ReusableUnit] = []
    shell: MobileViTShell | None = None
    index = layers = -1
    for position, block in enumerate(blocks):
        if isinstance(block, MobileViTLayer):
            layers += 1
            units.append(ReusableUnit(block.key, "layer", False, False, f"{index}.layers.{layers}"))
            continue
        if shell is not None:
            units.append(ReusableUnit(shell.key, "after", False, False, str(index)))
        index, layers = index + 1, -1
        shell = block if isinstance(block, MobileViTShell) else None
        first, last = position == 0, position == len(blocks) - 1
        units.append(ReusableUnit(block.key, "before" if shell else "block", first, last, str(index)))
    return tuple(units)


@dataclass(frozen=True)
class Donor:
    """A module to lower for its units, and its input."""

    module: nn.Module
    inputs: tuple[Tensor, ...]
    units: tuple[ReusableUnit, ...]


def donor_of(unit: ReusableUnit) -> Donor:
    """Return the donor of a unit, with seeded weights; that of a shell has both its units."""
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


def owners(paths: Sequence[str | None], units: Sequence[ReusableUnit]) -> list[ReusableUnit | None]:
    """Return the unit of each operator, None if it has none.

    Args:
        paths: Path of the module that each operator was called in, in order of execution; None for operators
            that a pass inserted, which belong to the next one's unit.
        units: Units of the network or donor.
    """
    normed: set[str] = set()
    owned: list[ReusableUnit | None] = []
    for path in paths:
        owned.append(None if path is None else _owner(path, units, normed))
    following = None
    for position in reversed(range(len(paths))):
        if paths[position] is None:
            owned[position] = following
        following = owned[position]
    return owned


def _owner(path: str, units: Sequence[ReusableUnit], normed: set[str]) -> ReusableUnit | None:
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


MAX_FRAGMENT_BYTES = 1 << 20
"""Largest fragment that is read; a transformer layer's has about 10 KiB."""

MAX_LITERAL_BYTES = 16
"""Largest constant inside a fragment: scalars, such as LayerNorm's epsilon."""

INPUT, SKIP = -1, -2
"""Values from outside a fragment: the unit's input, and the input of its whole MobileViT block."""

NO_HANDLE = 65535
"""Debug handle of operators that XNNPACK's passes inserted (`DEFAULT_DEBUG_HANDLE`)."""

_Size = Annotated[int, Field(ge=0, le=1 << 32)]
_Dims = Annotated[tuple[_Size, ...], Field(max_length=6)]
_Scalar = int | float
_Field = _Scalar | Annotated[tuple[int, ...], Field(max_length=16)]


class Weight(FrozenModel):
    """A tensor of the unit's module, by its name there, permuted."""

    name: str = Field(max_length=200)
    permutation: Annotated[tuple[int, ...], Field(max_length=6)]


class GraphValue(FrozenModel):
    """A value of the graph.

    Attributes:
        role: `computed`; `input` or `output` of the program; `constant` of the delegate; `parameter` or
            `lifted` scalar that the program passes to the delegate.
        dims: Shape of the value in the graph.
        sizes: Shape of the program's tensor, for parameters and lifted scalars.
        weight: For constants and parameters.
        literal: Bytes of a lifted scalar, in hex.
    """

    role: Literal["computed", "input", "output", "constant", "parameter", "lifted"]
    dims: _Dims
    sizes: _Dims = ()
    weight: Weight | None = None
    literal: str = Field(default="", max_length=2 * MAX_LITERAL_BYTES, pattern=r"^[0-9a-f]*$")


class Node(FrozenModel):
    """An operator of a fragment.

    Name of its class in XNNPACK's schema, its fields (values by number in the fragment, or from outside), its
    debug handle counted from the fragment's first, and flags.
    """

    kind: str = Field(pattern=r"^_?XNN[A-Za-z0-9]{1,60}$")
    fields: Annotated[dict[str, _Field], Field(max_length=40)]
    handle: int = Field(ge=0, le=NO_HANDLE)


class Fragment(FrozenModel):
    """Nodes and values in order of definition, the number of the output value, and of used debug handles."""

    nodes: Annotated[tuple[Node, ...], Field(max_length=1000)]
    values: Annotated[tuple[GraphValue, ...], Field(max_length=4000)]
    output: int = Field(ge=0)
    handles: int = Field(ge=0)


@dataclass(frozen=True)
class FragmentStore:
    """Fragments by identity in a folder, safe for many processes at once."""

    folder: Path

    def get(self, identity: str) -> Fragment | None:
        """Return the fragment, or None if there is no intact one."""
        try:
            with self._path(identity).open("rb") as file:
                data = file.read(MAX_FRAGMENT_BYTES + 1)
            digest, _, document = data.partition(b"\n")
            if hashlib.sha256(document).hexdigest().encode() != digest:
                return None
            with contextlib.suppress(OSError):
                os.utime(self._path(identity))
            return Fragment.model_validate_json(document)
        except (OSError, ValidationError):
            return None

    def put(self, identity: str, fragment: Fragment) -> None:
        """Store a fragment; one of another process is replaced by an equal one.

        Raises:
            OSError: Disk full, or no permission; nothing is left behind.
        """
        document = fragment.model_dump_json().encode()
        digest = hashlib.sha256(document).hexdigest().encode()
        self._drop_stale()
        write_atomically(self._path(identity), digest + b"\n" + document)

    def _drop_stale(self) -> None:
        """Delete incomplete files of processes that died."""
        oldest = time.time() - STALE_S
        for path in self.folder.glob(".*.tmp"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < oldest:
                    path.unlink()

    def _path(self, identity: str) -> Path:
        return self.folder / f"{identity}.json"
