"""The predicted cost of one architecture."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Latency:
    """Prediction by one LUT; a measurement stays below `high_ms` with the budget's confidence."""

    ms: float
    high_ms: float


@dataclass(frozen=True)
class Priced:
    """Latencies by the first LUT, `further` those by the others."""

    latency_ms: float
    latency_high_ms: float
    params: int
    macs: int
    memory_bytes: int
    further: tuple[Latency, ...] = ()
