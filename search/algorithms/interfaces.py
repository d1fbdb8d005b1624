"""What a search asks of the world: how accurate architectures are; and what it knows of one's price."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from search.spaces import Arch


@dataclass(frozen=True)
class Latency:
    """Prediction by one LUT; a measurement stays below `high_ms` with the budget's confidence."""

    ms: float
    high_ms: float


@dataclass(frozen=True)
class Priced:
    """Predicted cost of an architecture; latencies by the first LUT, `further` those by the others."""

    latency_ms: float
    latency_high_ms: float
    params: int
    macs: int
    memory_bytes: int
    further: tuple[Latency, ...] = ()


class Evaluator(Protocol):
    """Costly judgement of architectures."""

    @property
    def fingerprint(self) -> str:
        """Everything besides the architecture that decides an accuracy: checkpoint, data, split."""

    def accuracies(self, archs: Sequence[Arch]) -> list[float]:
        """Top-1 on held-out images, 0 to 1, in the order asked; of an architecture the same at every call."""
