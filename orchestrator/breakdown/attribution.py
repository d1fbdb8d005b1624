"""Milliseconds by kind of operation: the arithmetic, without a device."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from luts.estimate.ratios import Ratio
from orchestrator.export.kinds import KINDS, Kind

Method = Literal["tracer", "removal"]
METHOD_TITLES: dict[Method, str] = {"tracer": "event tracer", "removal": "removal"}


@dataclass(frozen=True)
class Share:
    """Of a kind: milliseconds, and the 95 % interval of a removal. A share below 0 means that it is lost in noise,
    or that the network got slower without: what is left fused or lay in the caches less well."""

    ms: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Attribution:
    """A network's latency by one method.

    Attributes:
        method: How it was found.
        whole_ms: Latency of the whole network, measured beside.
        shares: By kind, in the order of `KINDS`; kinds without any are left out.
        notes: What to know about these figures, one line each.
    """

    method: Method
    whole_ms: float
    shares: Mapping[Kind, Share]
    notes: tuple[str, ...] = ()

    @property
    def unexplained_ms(self) -> float:
        """What the shares leave of the whole; below 0 where they add up to more."""
        return self.whole_ms - math.fsum(share.ms for share in self.shares.values())


def by_removal(whole_ms: float, ratios: Mapping[Kind, Ratio], notes: Sequence[str] = ()) -> Attribution:
    """From the ratios, to the whole network, of the network without a kind: its share is what is missed then."""
    shares = {
        kind: Share(
            ms=whole_ms * -math.expm1(ratios[kind].log_ratio),
            low=whole_ms * -math.expm1(ratios[kind].high),
            high=whole_ms * -math.expm1(ratios[kind].low),
        )
        for kind in KINDS
        if kind in ratios
    }
    return Attribution("removal", whole_ms, shares, tuple(notes))


def by_tracer(whole_ms: float, times: Sequence[tuple[Kind, float]], notes: Sequence[str] = ()) -> Attribution:
    """From kind and milliseconds of every operation of one execution; `whole_ms` without the tracer."""
    sums: dict[Kind, float] = defaultdict(float)
    for kind, ms in times:
        sums[kind] += ms
    shares = {kind: Share(sums[kind]) for kind in KINDS if kind in sums}
    return Attribution("tracer", whole_ms, shares, tuple(notes))
