"""Sizes of a space's architectures, and the latencies that the space can reach by a LUT."""

from __future__ import annotations

import random
from dataclasses import dataclass

from luts.format.errors import UsageError
from luts.format.lut import Lut
from search.algorithms import Constraints, LutPrice, latency_bounds
from search.blocks import count
from search.spaces import Space
from search.spaces.scope import covered_space

SAMPLES = 2000
"""Random architectures behind the ranges of parameters and MACs."""

CONFIDENCE = 0.95
"""Confidence of the latencies' upper bounds."""


@dataclass(frozen=True)
class SizeRanges:
    """Least and most parameters and conv+linear MACs of random architectures at the default resolution."""

    params: tuple[int, int]
    conv_linear_macs: tuple[int, int]


@dataclass(frozen=True)
class ReachableLatency:
    """A latency that a space can reach: `what` names it, `arch` is the architecture as JSON."""

    what: str
    latency_ms: float
    latency_high_ms: float
    params: int
    macs: int
    arch: str


def sampled_ranges(space: Space) -> SizeRanges:
    """Return the ranges of `SAMPLES` random architectures, the same at every call."""
    rng = random.Random(0)
    costs = [count(space.sample(rng, (space.default_resolution,)).blocks()) for _ in range(SAMPLES)]
    params, macs = [params for params, _ in costs], [macs.conv_linear for _, macs in costs]
    return SizeRanges((min(params), max(params)), (min(macs), max(macs)))


def reachable_latencies(space: Space, lut: Lut, name: str = "the LUT") -> list[ReachableLatency]:
    """Return the fastest and the slowest architecture, and three with the most MACs for their latency.

    Args:
        space: The space.
        lut: A LUT of the space.
        name: The LUT's name in messages.

    Raises:
        UsageError: the LUT is of another space or lacks blocks.
    """
    if lut.meta.space != space.name:
        raise UsageError(
            f"{name} is of space {lut.meta.space}, not of {space.name}; use a LUT of {space.name}",
            code="wrong_space",
        )
    constraints = Constraints(latency_ms=1, cautious=False, confidence=CONFIDENCE)
    bounds = latency_bounds(covered_space(lut), LutPrice(lut.latency_model, ""), constraints)
    front = bounds.most_macs
    between = [front[round(share * (len(front) - 1))] for share in (0.25, 0.5, 0.75)]
    named = [
        ("fastest", bounds.smallest),
        *(("most MACs for its latency", priced) for priced in between),
        ("slowest", bounds.largest),
    ]
    return [
        ReachableLatency(
            what, priced.latency_ms, priced.latency_high_ms, priced.params, priced.macs, priced.arch
        )
        for what, priced in named
    ]
