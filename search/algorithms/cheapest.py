"""The exact lower edge of a space: which latencies and parameter counts can be reached at all.

Latency is additive over blocks and the bytes between them, and a stage depends on the one before through its
width alone. So a dynamic programme over (stage, width), keeping the non-dominated pairs of latency and
parameters, finds the exact Pareto front of spaces far too large to enumerate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from search.algorithms.interfaces import Price
from search.blocks import boundary_bytes
from search.spaces import Arch, Space, Stage, Value
from search.spaces.family import expand_head, expand_stage
from search.spaces.space import stage_resolution


@dataclass(frozen=True)
class Corner:
    """An architecture that no other beats in both latency and parameters."""

    latency_ms: float
    params: int
    arch: Arch


@dataclass(frozen=True)
class _Part:
    """The first stages of a network, or the choice of one stage."""

    latency_ms: float
    params: int
    rows: tuple[tuple[Value, ...], ...]

    def __add__(self, other: _Part) -> _Part:
        return _Part(self.latency_ms + other.latency_ms, self.params + other.params, self.rows + other.rows)


def cheapest(space: Space, price: Price) -> tuple[Corner, ...]:
    """The Pareto front of small latency and few parameters, by latency; its first is the fastest of the space."""
    ends: list[_Part] = []
    archs: dict[_Part, Arch] = {}
    for resolution in space.resolutions:
        for count, side, width, parts in _prefixes(space, price, resolution):
            if count not in space.stage_counts:
                continue
            for head in space.heads:
                block = expand_head(head, width, side, space.default_classes)
                tail = _Part(price.base_ms + price.blocks_ms([block], 0), block.params(), ())
                for part in parts:
                    end = part + tail
                    arch = Arch(space.name, resolution, head, space.default_classes, end.rows)
                    ends.append(end)
                    archs.setdefault(end, arch)
    return tuple(Corner(end.latency_ms, end.params, archs[end]) for end in _front(ends))


def _prefixes(space: Space, price: Price, resolution: int) -> Iterator[tuple[int, int, int, Sequence[_Part]]]:
    """(stages, side after them, width, non-dominated prefixes of that width), for every number of stages."""
    fronts: dict[int, Sequence[_Part]] = {0: [_Part(0.0, 0, ())]}
    side = resolution
    for done, stage in enumerate(space.stages, start=1):
        following: dict[int, list[_Part]] = {}
        for before, prefixes in fronts.items():
            for width, choices in _choices(stage, price, before, side).items():
                following.setdefault(width, []).extend(
                    prefix + choice for prefix in prefixes for choice in choices
                )
        fronts = {width: _front(parts) for width, parts in following.items()}
        side = stage_resolution(stage, side)
        for width, parts in fronts.items():
            yield done, side, width, parts


def _choices(stage: Stage, price: Price, before: int, side: int) -> dict[int, Sequence[_Part]]:
    """Non-dominated choices of a stage after width `before` (0: the image), by their own width."""
    found: dict[int, list[_Part]] = {}
    for values in stage.options:
        width = stage.width(values)
        if width < before:
            continue
        blocks = expand_stage(stage, values, before or 3, side)
        sent = boundary_bytes([*blocks, blocks[0]])
        part = _Part(price.blocks_ms(blocks, sent), sum(block.params() for block in blocks), (values,))
        found.setdefault(width, []).append(part)
    return {width: _front(parts) for width, parts in found.items()}


def _front(parts: Iterable[_Part]) -> list[_Part]:
    """Those that no other beats in both latency and parameters, fastest first."""
    kept: list[_Part] = []
    for part in sorted(parts, key=lambda p: (p.latency_ms, p.params, p.rows)):
        if not kept or part.params < kept[-1].params:
            kept.append(part)
    return kept
