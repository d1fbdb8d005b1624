"""What a space costs on paper, and the latencies that can be reached in it by a LUT."""

from __future__ import annotations

import random
from dataclasses import dataclass

from luts.format.errors import UsageError
from luts.format.lut import Lut
from search.algorithms import Budget, LutPrice, reachable
from search.blocks import count
from search.spaces import Space
from search.spaces.scope import covered_space

SAMPLES = 2000
"""Random architectures behind the ranges of parameters and MACs."""

CONFIDENCE = 0.95
"""Of the upper bounds of latencies."""


@dataclass(frozen=True)
class Ranges:
    """Least and most parameters and conv+linear MACs of random architectures at the default resolution."""

    params: tuple[int, int]
    conv_linear_macs: tuple[int, int]


@dataclass(frozen=True)
class Corner:
    """An architecture (JSON) at an edge of what can be reached: `what` says which."""

    what: str
    latency_ms: float
    latency_high_ms: float
    params: int
    macs: int
    arch: str


def sampled_ranges(space: Space) -> Ranges:
    """Of `SAMPLES` architectures, always the same ones."""
    rng = random.Random(0)
    costs = [count(space.sample(rng, (space.default_resolution,)).blocks()) for _ in range(SAMPLES)]
    params, macs = [params for params, _ in costs], [macs.conv_linear for _, macs in costs]
    return Ranges((min(params), max(params)), (min(macs), max(macs)))


def reached_latencies(space: Space, lut: Lut, name: str = "the LUT") -> list[Corner]:
    """The fastest and the slowest architecture of a space, and the most MACs that some latencies buy.

    `name` is the LUT's in messages.

    Raises:
        UsageError: the LUT is of another space or lacks blocks.
    """
    if lut.meta.space != space.name:
        raise UsageError(f"{name} is of space {lut.meta.space}, not of {space.name}; name a matching pair")
    budget = Budget(latency_ms=1, cautious=False, confidence=CONFIDENCE)
    reach = reachable(covered_space(lut), LutPrice(lut.latency_model, ""), budget)
    front = reach.most_macs
    between = [front[round(share * (len(front) - 1))] for share in (0.25, 0.5, 0.75)]
    corners = [("fastest", reach.smallest), *(("most MACs for its latency", corner) for corner in between)]
    return [
        Corner(
            what,
            corner.priced.latency_ms,
            corner.priced.latency_high_ms,
            corner.priced.params,
            corner.priced.macs,
            corner.arch.to_json(),
        )
        for what, corner in [*corners, ("slowest", reach.largest)]
    ]
