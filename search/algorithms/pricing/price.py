"""Where prices come from: the latency model of a LUT, and which LUT that is."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from luts.format.latency import LatencyModel
from luts.format.lut import Lut


@dataclass(frozen=True)
class LutPrice:
    """One phone's latency model; `fingerprint` is its LUT's digest, `name` what messages call the LUT."""

    model: LatencyModel
    fingerprint: str
    name: str = ""

    @classmethod
    def of(cls, source: LutPrice | Lut | LatencyModel) -> LutPrice:
        """A price as it is; of a LUT or a latency model in memory, with the digest of its numbers."""
        if isinstance(source, LutPrice):
            return source
        model = source.latency_model if isinstance(source, Lut) else source
        return cls(model, hashlib.sha256(repr(model).encode()).hexdigest())


PriceSource = LutPrice | Lut | LatencyModel
Prices = PriceSource | Sequence[PriceSource]
"""One phone, or several whose budgets must all hold; the first is the one that results are shown for."""


def as_prices(prices: Prices) -> tuple[LutPrice, ...]:
    """One or several as a tuple."""
    sources = prices if isinstance(prices, Sequence) else (prices,)
    return tuple(LutPrice.of(source) for source in sources)


def fingerprint(prices: Sequence[LutPrice]) -> str:
    """Changes whenever a price may."""
    return "+".join(price.fingerprint for price in prices)
