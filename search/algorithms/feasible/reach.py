"""What a space can reach at all: its fastest and slowest architectures, and its fronts, exactly."""

from __future__ import annotations

from dataclasses import dataclass

from search.algorithms.feasible.extremes import extreme
from search.algorithms.feasible.fastest import fastest_drawn
from search.algorithms.feasible.fronts import Goal, pareto_front
from search.algorithms.feasible.refusals import beyond_reach
from search.algorithms.pricing.compiled import Codes, CompiledSpace
from search.algorithms.pricing.costs import Priced
from search.algorithms.pricing.limits import UNLIMITED, Limits, compile_limits
from search.algorithms.pricing.price import Prices
from search.algorithms.record.settings import Budget
from search.spaces import Arch, Space


@dataclass(frozen=True)
class Corner:
    """An architecture at an edge of what is possible."""

    arch: Arch
    priced: Priced


@dataclass(frozen=True)
class Reach:
    """What counts as latency is the bound where the budget is cautious, the prediction where it is not.

    Attributes:
        smallest: The fastest architecture within the budget's other limits.
        largest: The slowest of the space.
        lean: No architecture within those limits has less of both latency and parameters.
        most_params: None within the memory limit has less latency and more parameters than one of these.
        most_macs: None within the memory limit has less latency and more MACs than one of these.
    """

    smallest: Corner
    largest: Corner
    lean: tuple[Corner, ...]
    most_params: tuple[Corner, ...]
    most_macs: tuple[Corner, ...]


def reachable(space: Space, prices: Prices, budget: Budget) -> Reach:
    """Which latencies a space can reach within everything else that a budget asks; all fronts fastest first.

    Raises:
        InfeasibleError: no architecture meets the other limits, whatever its latency.
    """
    compiled = CompiledSpace(space, prices, budget.confidence)
    limits = compile_limits(compiled, budget).without_latency()
    latency = Goal(limits.channels[0])
    slowest = extreme(compiled, latency.channel, UNLIMITED, largest=True)
    lean, most_params, most_macs = (
        corners(compiled, pareto_front(compiled, (latency, other), within))
        for other, within in (
            (Goal(compiled.params_channel), limits),
            (Goal(compiled.params_channel, -1), Limits((), (), limits.memory_bytes)),
            (Goal(compiled.macs_channel, -1), Limits((), (), limits.memory_bytes)),
        )
    )
    return Reach(
        smallest=fastest(compiled, limits),
        largest=corners(compiled, slowest)[0],
        lean=lean,
        most_params=most_params,
        most_macs=most_macs,
    )


def corners(compiled: CompiledSpace, codes: Codes) -> tuple[Corner, ...]:
    """Architectures with their prices."""
    batch = compiled.price(codes)
    return tuple(Corner(arch, batch[index]) for index, arch in enumerate(compiled.decode(codes)))


def fastest(compiled: CompiledSpace, limits: Limits) -> Corner:
    """The architecture of smallest latency, the first channel, within the other limits.

    Raises:
        InfeasibleError: nothing meets those, at any latency.
    """
    free = limits.without_latency()
    codes = extreme(compiled, limits.channels[0], free, largest=False)
    if not free.allow(compiled, codes).all():
        floor = compiled.fewness_channel in limits.channels
        codes = (
            fastest_drawn(compiled, free)
            if floor
            else pareto_front(compiled, [Goal(limits.channels[0])], free)
        )
    if not len(codes):
        raise beyond_reach(compiled, free)
    return corners(compiled, codes)[0]
