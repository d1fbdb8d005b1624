"""A budget in terms of a compiled space: which channels are bounded, and what is left of an architecture."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from luts.format.errors import UsageError
from search.algorithms.pricing.compiled import Codes, CompiledSpace
from search.algorithms.record.settings import Budget

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Limits:
    """Largest sums of channels, the first LUT's latency first, and the largest peak memory."""

    channels: tuple[int, ...]
    largest: tuple[float, ...]
    memory_bytes: float = np.inf

    def allow(self, compiled: CompiledSpace, codes: Codes) -> Mask:
        """Which rows are architectures of the space and within."""
        totals, memory = compiled.totals(codes)
        within: Mask = ~np.isnan(totals[0]) & (memory <= self.memory_bytes)
        for channel, largest in zip(self.channels, self.largest, strict=True):
            within &= compiled.total(totals, channel) <= largest
        return within

    def options(self, compiled: CompiledSpace, at: int) -> Mask:
        """(combos, states, options) of the stage at `at` that a network within the memory limit may hold."""
        table = compiled.tables[at]
        within: Mask = table.valid & (table.memory_bytes <= self.memory_bytes)
        return within

    def without_latency(self) -> Limits:
        """The same without any bound on the first LUT's latency."""
        return replace(self, largest=(np.inf, *self.largest[1:]))


UNLIMITED = Limits((), ())


def compile_limits(compiled: CompiledSpace, budget: Budget) -> Limits:
    """The limits of a budget. Raises UsageError where it does not name one latency for each LUT."""
    latencies = (budget.latency_ms, *budget.further_latency_ms)
    if len(latencies) != compiled.luts:
        raise UsageError(f"{compiled.luts} LUTs, but {len(latencies)} latency budgets; give one for each LUT")
    bounds = {2 * lut + int(budget.cautious): latency for lut, latency in enumerate(latencies)}
    if budget.params is not None:
        bounds[compiled.params_channel] = budget.params
    if budget.macs is not None:
        bounds[compiled.macs_channel] = budget.macs
    if budget.least_params is not None:
        bounds[compiled.fewness_channel] = -budget.least_params
    memory = np.inf if budget.memory_bytes is None else budget.memory_bytes
    return Limits(tuple(bounds), tuple(bounds.values()), memory)
