"""Where prices come from: the latency model of a LUT, and which LUT that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from luts.model import LatencyModel


@dataclass(frozen=True)
class LutPrice:
    """One phone's latency model; `fingerprint` is its LUT's digest."""

    model: LatencyModel
    fingerprint: str


Prices = LutPrice | Sequence[LutPrice]
"""One phone, or several whose budgets must all hold; the first is the one that results are shown for."""


def as_prices(prices: Prices) -> tuple[LutPrice, ...]:
    """One or several as a tuple."""
    return (prices,) if isinstance(prices, LutPrice) else tuple(prices)


def fingerprint(prices: Prices) -> str:
    """Changes whenever a price may."""
    return "+".join(price.fingerprint for price in as_prices(prices))
