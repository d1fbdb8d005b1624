"""Bounds of a space: its exact Pareto fronts, its fastest architecture, and why constraints are infeasible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from luts.format.errors import InfeasibleError
from luts.format.schema import Floats, Integers
from search.algorithms.cost import Codes, CompiledSpace, Prices
from search.algorithms.feasible import (
    UNLIMITED,
    ChannelLimits,
    FeasibleSet,
    completions,
    extreme,
    least_memory_bytes,
    no_codes,
)
from search.algorithms.pareto import pareto_rows
from search.algorithms.record import Constraints, PricedArch
from search.spaces import Space

ROUNDING = 1e-12
"""Relative difference of sums in another order; it may not exclude an architecture at the edge of a limit."""


@dataclass(frozen=True)
class Goal:
    """A channel to minimise, or with `sign` -1 to maximise."""

    channel: int
    sign: Literal[1, -1] = 1


def exact_front(compiled: CompiledSpace, goals: Sequence[Goal], limits: ChannelLimits) -> Codes:
    """Return the exact Pareto front: architectures within the limits that no other dominates in all goals.

    Of architectures with equal costs one is returned. They are sorted by the first goal.

    Limited channels count as further goals, since a partial network that is worse in all goals may be the only one
    that can be completed; the front of `goals` is taken of what remains. A channel to maximise together with one
    that is limited leaves few partial networks dominated: seconds become hours in a large space.
    """
    bounds = dict(zip(limits.channels, limits.largest, strict=True))
    limited = [Goal(channel) for channel, bound in bounds.items() if np.isfinite(bound)]
    columns = tuple(dict.fromkeys((*goals, *limited)))
    largest = np.array([bounds.get(c.channel, np.inf) if c in limited else np.inf for c in columns])
    rest = [completions(compiled, c.channel, limits) for c in columns]
    program = _DynamicProgram(compiled, columns, largest, limits, rest)
    sums, codes = np.empty((0, len(goals))), no_codes(compiled)
    for combo in range(len(compiled.combos)):
        reached, rows = program.front(combo)
        within = limits.allow(compiled, rows)
        sums = np.concatenate([sums, reached[within, : len(goals)]])
        codes = np.concatenate([codes, rows[within]])
        best = pareto_rows(sums)
        sums, codes = sums[best], codes[best]
    return np.asfortranarray(codes)


@dataclass(frozen=True)
class _Labels:
    """Partial networks: sums (N, columns), states, and the row and option that they were extended from."""

    sums: Floats
    states: Integers
    parents: Integers
    options: Integers

    def best(self) -> _Labels:
        """Return the labels that no other label of the same state dominates."""
        best = [
            own[pareto_rows(self.sums[own])]
            for own in (np.flatnonzero(self.states == state) for state in np.unique(self.states))
        ]
        rows = np.concatenate([np.empty(0, np.int64), *best])
        return _Labels(self.sums[rows], self.states[rows], self.parents[rows], self.options[rows])


@dataclass(frozen=True)
class _DynamicProgram:
    """Label-setting over stages; `rest` is, for each column, the least that the remaining stages add."""

    compiled: CompiledSpace
    columns: tuple[Goal, ...]
    largest: Floats
    limits: ChannelLimits
    rest: Sequence[Sequence[Floats]]

    def front(self, combo: int) -> tuple[Floats, Codes]:
        """Return sums and rows of the non-dominated networks of one resolution and head."""
        none = np.zeros(1, np.int64)
        steps = [_Labels(np.zeros((1, len(self.columns))), none, none, none)]
        for at in range(len(self.compiled.tables)):
            steps.append(self._extend(combo, at, steps[-1]).best())
        last = _Labels(steps[-1].sums, np.zeros_like(steps[-1].states), steps[-1].parents, steps[-1].options)
        steps[-1] = last.best()
        codes = np.full((len(steps[-1].sums), len(steps)), combo, np.int16)
        rows = np.arange(len(codes))
        for column in range(len(steps) - 1, 0, -1):
            codes[:, column] = steps[column].options[rows]
            rows = steps[column].parents[rows]
        return steps[-1].sums, codes

    def _extend(self, combo: int, at: int, labels: _Labels) -> _Labels:
        """Return every label with every non-dominated option that can be completed within the limits."""
        table, parts = self.compiled.tables[at], []
        channels = np.array([column.channel for column in self.columns])[:, None]
        signs = np.array([column.sign for column in self.columns])
        allowed = self.limits.options(self.compiled, at)[combo]
        for state in np.unique(labels.states):
            own = np.flatnonzero(labels.states == state)
            for after in np.unique(table.following[state, allowed[state]]):
                options = np.flatnonzero(allowed[state] & (table.following[state] == after))
                costs = signs * table.costs[channels, combo, state, options].T
                best = pareto_rows(costs)
                sums = (labels.sums[own][:, None] + costs[best]).reshape(-1, len(self.columns))
                ahead = np.array([column[at + 1][combo, after] for column in self.rest])
                least = sums + np.where(signs > 0, ahead, 0.0)
                within = np.flatnonzero((least <= self.largest * (1 + ROUNDING)).all(axis=1))
                states = np.full(len(within), after)
                parents, chosen = own[within // len(best)], options[best[within % len(best)]]
                parts.append(_Labels(sums[within], states, parents, chosen))
        return _Labels(
            np.concatenate([part.sums for part in parts]) if parts else np.empty((0, len(self.columns))),
            *(
                np.concatenate([np.empty(0, np.int64), *(getattr(part, name) for part in parts)])
                for name in ("states", "parents", "options")
            ),
        )


ENUMERATED = 20_000
"""Architectures that are priced one by one."""

DRAWS = 500
"""Architectures drawn in a round: the next round keeps about one in five hundred."""

ROUNDS = 20
"""Far more than bring the largest space below `ENUMERATED`."""


def fastest_drawn(compiled: CompiledSpace, limits: ChannelLimits) -> Codes:
    """Return the architecture with the least of the first channel within the other limits: one row, or none.

    Exact where at most `ENUMERATED` architectures are as fast as one that was drawn.
    """
    rng, best = np.random.default_rng(0), no_codes(compiled)
    bound = np.inf
    for _ in range(ROUNDS):
        feasible = FeasibleSet(compiled, replace(limits, largest=(bound, *limits.largest[1:])))
        whole = feasible.most <= ENUMERATED
        codes = feasible.enumerate() if whole else feasible.sample(DRAWS, rng).codes
        if len(codes):
            latencies = compiled.channel(codes, limits.channels[0])
            best, least = codes[[int(latencies.argmin())]], float(latencies.min())
        if whole or not len(codes) or least == bound:
            break
        bound = least
    return np.asfortranarray(best)


def fastest(compiled: CompiledSpace, limits: ChannelLimits) -> PricedArch:
    """Return the architecture with the smallest latency, the first channel, within the other limits.

    Raises:
        InfeasibleError: no architecture meets the other limits, at any latency.
    """
    free = limits.without_latency()
    codes = extreme(compiled, limits.channels[0], free, largest=False)
    if not free.allow(compiled, codes).all():
        if compiled.channels.negated in limits.channels:
            codes = fastest_drawn(compiled, free)
        else:
            codes = exact_front(compiled, [Goal(limits.channels[0])], free)
    if not len(codes):
        raise unreachable_limit(compiled, free)
    return compiled.priced(codes)[0]


@dataclass(frozen=True)
class LatencyBounds:
    """Latencies that a space can reach; all fronts are sorted by latency, fastest first.

    Latency is the upper bound if the constraints are cautious, the prediction otherwise.

    Attributes:
        smallest: The fastest architecture within the constraints besides latency.
        largest: The slowest architecture of the space.
        fewest_params: Front of least latency and fewest parameters within those constraints.
        most_params: Front of least latency and most parameters within the memory limit.
        most_macs: Front of least latency and most MACs within the memory limit.
    """

    smallest: PricedArch
    largest: PricedArch
    fewest_params: tuple[PricedArch, ...]
    most_params: tuple[PricedArch, ...]
    most_macs: tuple[PricedArch, ...]


def latency_bounds(space: Space, prices: Prices, constraints: Constraints) -> LatencyBounds:
    """Return the latencies that a space can reach within all constraints besides latency.

    Raises:
        InfeasibleError: no architecture meets the other constraints at any latency.
    """
    compiled = CompiledSpace(space, prices, constraints.confidence)
    limits = ChannelLimits.of(compiled, constraints).without_latency()
    latency, channels = Goal(limits.channels[0]), compiled.channels
    memory = ChannelLimits((), (), limits.memory_bytes)
    slowest = extreme(compiled, latency.channel, UNLIMITED, largest=True)
    fewest_params, most_params, most_macs = (
        compiled.priced(exact_front(compiled, (latency, other), within))
        for other, within in (
            (Goal(channels.params), limits),
            (Goal(channels.params, -1), memory),
            (Goal(channels.macs, -1), memory),
        )
    )
    return LatencyBounds(
        smallest=fastest(compiled, limits),
        largest=compiled.priced(slowest)[0],
        fewest_params=fewest_params,
        most_params=most_params,
        most_macs=most_macs,
    )


def unreachable_limit(compiled: CompiledSpace, limits: ChannelLimits) -> InfeasibleError:
    """Return an error that names the first limit besides latency that no architecture meets on its own."""
    space, negated = compiled.space.name, compiled.channels.negated
    bounds = [(c, v) for c, v in zip(limits.channels, limits.largest, strict=True) if np.isfinite(v)]
    for channel, bound in bounds:
        least = float(completions(compiled, channel, UNLIMITED)[0][:, 0].min())
        if least > bound:
            edge, remedy = ("largest", "allow fewer") if channel == negated else ("smallest", "allow more")
            return InfeasibleError(
                f"no architecture of {space} has {_limit_text(compiled, channel, bound)}; "
                f"the {edge} has {_value_text(compiled, channel, least)}; {remedy}"
            )
    least_bytes = least_memory_bytes(compiled)
    if least_bytes > limits.memory_bytes:
        return InfeasibleError(
            f"no architecture of {space} has at most {limits.memory_bytes:.0f} bytes of activations; "
            f"the smallest has {least_bytes:.0f} bytes of activations; allow more"
        )
    wanted = [_limit_text(compiled, channel, bound) for channel, bound in bounds]
    if np.isfinite(limits.memory_bytes):
        wanted.append(f"at most {limits.memory_bytes:.0f} bytes of activations")
    return InfeasibleError(
        f"no architecture of {space} has {' and '.join(wanted)} at any latency{_by_lut(compiled, 0)}; allow more"
    )


def too_slow(compiled: CompiledSpace, constraints: Constraints, smallest: PricedArch) -> InfeasibleError:
    """Return an error for a first latency limit that no architecture meets; it names the smallest latency."""
    wanted = [f"{ms:g} ms{_by_lut(compiled, lut)}" for lut, ms in enumerate(constraints.latencies)]
    wanted += constraints.other_limits()
    within = " within the rest" if len(wanted) > 1 else ""
    reached = f"the smallest latency that can be reached{within} is {smallest.latency_ms:.4g} ms"
    reached += _by_lut(compiled, 0)
    if constraints.cautious:
        reached += (
            f" (its upper bound at {100 * constraints.confidence:g} %, which is what counts, "
            f"{smallest.latency_high_ms:.4g} ms)"
        )
    return InfeasibleError(
        f"no architecture of {compiled.space.name} meets {' and '.join(wanted)}; {reached}; allow more"
    )


def _limit_text(compiled: CompiledSpace, channel: int, bound: float) -> str:
    side = "at least" if channel == compiled.channels.negated else "at most"
    return f"{side} {_value_text(compiled, channel, bound)}"


def _value_text(compiled: CompiledSpace, channel: int, value: float) -> str:
    channels = compiled.channels
    if channel == channels.macs:
        return f"{value:.0f} conv+linear MACs"
    if channel < channels.params:
        return f"{value:.4g} ms by {compiled.lut_names[channel // 2]}"
    as_classifier = channels.as_classifier and channel != channels.params
    return f"{abs(value):.0f} parameters" + (" as a classifier" if as_classifier else "")


def _by_lut(compiled: CompiledSpace, lut: int) -> str:
    """Return ` by LUT` if there are several LUTs."""
    return f" by {compiled.lut_names[lut]}" if compiled.channels.luts > 1 else ""
