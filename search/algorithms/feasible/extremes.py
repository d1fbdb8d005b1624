"""The least and the most that architectures of a space cost, exactly, by dynamic programming over stages."""

from __future__ import annotations

import numpy as np

from luts.format.numbers import Floats
from search.algorithms.pricing.compiled import Codes, CompiledSpace
from search.algorithms.pricing.limits import Limits


def completions(compiled: CompiledSpace, channel: int, limits: Limits, largest: bool = False) -> list[Floats]:
    """For each number of stages done, (combos, states): the least (most) that the rest adds to a channel.

    inf (-inf) where no network can be completed within the memory limit; other limits are not looked at.
    """
    impossible = -np.inf if largest else np.inf
    rest = [np.zeros((len(compiled.combos), int(compiled.tables[-1].following.max()) + 1))]
    for at in reversed(range(len(compiled.tables))):
        table = compiled.tables[at]
        totals = table.costs[channel] + rest[0][:, table.following]
        totals = np.where(limits.options(compiled, at), totals, impossible)
        rest.insert(0, totals.max(axis=2) if largest else totals.min(axis=2))
    return rest


def extreme(compiled: CompiledSpace, channel: int, limits: Limits, largest: bool) -> Codes:
    """The architecture with the least (most) of a channel within the memory limit: one row, or none."""
    rest = completions(compiled, channel, limits, largest)
    pick = np.argmax if largest else np.argmin
    combo = int(pick(rest[0][:, 0]))
    if not np.isfinite(rest[0][combo, 0]):
        return np.empty((0, 1 + len(compiled.tables)), np.int16, order="F")
    chosen, state = [combo], 0
    for at, table in enumerate(compiled.tables):
        totals = table.costs[channel, combo, state] + rest[at + 1][combo, table.following[state]]
        allowed = limits.options(compiled, at)[combo, state]
        option = int(pick(np.where(allowed, totals, -np.inf if largest else np.inf)))
        chosen.append(option)
        state = int(table.following[state, option])
    return np.array([chosen], np.int16, order="F")


def least_memory_bytes(compiled: CompiledSpace) -> float:
    """The smallest peak of activations of any architecture."""
    peaks = np.zeros((len(compiled.combos), int(compiled.tables[-1].following.max()) + 1))
    for table in reversed(compiled.tables):
        through = np.maximum(table.memory_bytes, peaks[:, table.following])
        peaks = np.where(table.valid, through, np.inf).min(axis=2)
    return float(peaks[:, 0].min())
