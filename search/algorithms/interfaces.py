"""What a search asks of the world: the price of an architecture, and how accurate it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from search.blocks import BlockSpec
from search.spaces import Arch


@dataclass(frozen=True)
class Priced:
    """Predicted cost of an architecture; `latency_high_ms` is the upper end of the prediction's interval."""

    latency_ms: float
    latency_high_ms: float
    params: int
    macs: int


class Price(Protocol):
    """Costs without building or running anything."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever a price may."""

    @property
    def base_ms(self) -> float:
        """Latency of a network that holds no block."""

    def price(self, arch: Arch) -> Priced:
        """The whole architecture: `base_ms` plus `blocks_ms` of its parts."""

    def blocks_ms(self, blocks: Sequence[BlockSpec], boundary_bytes: int) -> float:
        """What some blocks and the bytes they hand on add to a network's latency."""


class Evaluator(Protocol):
    """Costly judgement of an architecture."""

    @property
    def fingerprint(self) -> str:
        """Everything besides the architecture that decides an accuracy: checkpoint, data, split."""

    def accuracy(self, arch: Arch) -> float:
        """Top-1 on held-out images, 0 to 1; the same at every call."""
