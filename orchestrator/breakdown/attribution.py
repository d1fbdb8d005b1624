"""Latency attributed to kinds of operations, by tracing and by removal."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from luts.estimate.ratios import Ratio
from orchestrator.breakdown.roofline import Operator, PartTime, Roof, part_times
from orchestrator.export.lower.kinds import KINDS, Kind

Method = Literal["tracer", "removal"]
WHOLE = "whole"
"""Journal id of the whole network, the reference of removals; the others are named after the removed kind."""

MethodChoice = Literal["both", "tracer", "removal"]
METHOD_TITLES: dict[Method, str] = {"tracer": "event tracer", "removal": "removal"}


@dataclass(frozen=True)
class KindShare:
    """Latency of a kind in ms, and the 95 % interval of a removal.

    Below 0 it is lost in noise, or the network got slower without the kind: the rest was fused or cached less
    well.
    """

    ms: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Attribution:
    """A network's latency by one method.

    Attributes:
        method: The method.
        whole_ms: Latency of the whole network in the same measurement.
        shares: Latency by kind, in the order of `KINDS`; kinds without any are left out.
        notes: Remarks on these figures, one line each.
        operators: All operators of a traced network; none by removal.
        roof: What the machine reached in the same measurement, if known.
    """

    method: Method
    whole_ms: float
    shares: Mapping[Kind, KindShare]
    notes: tuple[str, ...] = ()
    operators: tuple[Operator, ...] = ()
    roof: Roof | None = None

    @property
    def parts(self) -> tuple[PartTime, ...]:
        """Sums by kind and part, with the roofline; none without one."""
        return part_times(self.operators, self.roof) if self.roof else ()

    @property
    def unexplained_ms(self) -> float:
        """Difference between the whole and the sum of the kinds; below 0 if they add up to more."""
        return self.whole_ms - math.fsum(share.ms for share in self.shares.values())

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        document: dict[str, Any] = {
            "whole_ms": self.whole_ms,
            "unexplained_ms": self.unexplained_ms,
            "shares": {
                kind: {"ms": share.ms, "ci_low": share.low, "ci_high": share.high}
                for kind, share in self.shares.items()
            },
            "notes": list(self.notes),
        }
        if self.roof:
            document["roof"] = asdict(self.roof)
            document["parts"] = [part.to_dict() for part in self.parts]
            document["operators"] = [
                asdict(each) | {"roof_ms": self.roof.ms(each)} for each in self.operators
            ]
        return document


def by_removal(whole_ms: float, ratios: Mapping[Kind, Ratio], notes: Sequence[str] = ()) -> Attribution:
    """Return an attribution from the ratios of the networks without a kind to the whole network."""
    shares = {
        kind: KindShare(
            ms=whole_ms * -math.expm1(ratios[kind].log_ratio),
            low=whole_ms * -math.expm1(ratios[kind].high),
            high=whole_ms * -math.expm1(ratios[kind].low),
        )
        for kind in KINDS
        if kind in ratios
    }
    return Attribution("removal", whole_ms, shares, tuple(notes))


def by_tracer(
    whole_ms: float, operators: Sequence[Operator], roof: Roof | None = None, notes: Sequence[str] = ()
) -> Attribution:
    """Return an attribution from every operator of one execution; `whole_ms` without the tracer."""
    sums: dict[Kind, float] = defaultdict(float)
    for operator in operators:
        sums[operator.kind] += operator.ms
    shares = {kind: KindShare(sums[kind]) for kind in KINDS if kind in sums}
    return Attribution("tracer", whole_ms, shares, tuple(notes), tuple(operators), roof)


@dataclass(frozen=True)
class NetworkBreakdown:
    """A network's latency by one method or both; `parts` is the number of parts of each kind."""

    model: str
    sha256: str
    parts: Mapping[Kind, int]
    attributions: tuple[Attribution, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "model": self.model,
            "sha256": self.sha256,
            "parts": dict(self.parts),
            "by": {item.method: item.to_dict() for item in self.attributions},
        }
