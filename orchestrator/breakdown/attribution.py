"""Latency attributed to kinds of operations, by tracing and by removal; operators next to the roofline."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from luts.estimate.ratios import Ratio
from orchestrator.export.lower.kinds import KINDS, PARTS, Kind, Part

Method = Literal["tracer", "removal"]
WHOLE = "whole"
"""Journal id of the whole network, the reference of removals; the others are named after the removed kind."""

MethodChoice = Literal["both", "tracer", "removal"]
METHOD_TITLES: dict[Method, str] = {"tracer": "event tracer", "removal": "removal"}


@dataclass(frozen=True)
class Operator:
    """One operator of a traced network.

    Attributes:
        macs: Multiply-accumulates; None if unknown, outside of the delegates.
        data_bytes: Bytes read and written, including weights; None likewise.
    """

    name: str
    kind: Kind
    part: Part
    ms: float
    macs: int | None = None
    data_bytes: int | None = None


@dataclass(frozen=True)
class Roof:
    """Roofline (Williams et al. 2009): what a matrix product and a copy reached in the same measurement.

    In 10^9 MACs, and in 10^9 bytes (read and written), a second.
    """

    gmacs_s: float
    gbytes_s: float

    def arithmetic_ms(self, operator: Operator) -> float:
        """Return the milliseconds of the operator's MACs at the matrix product's speed."""
        return 1e-6 * (operator.macs or 0) / self.gmacs_s

    def memory_ms(self, operator: Operator) -> float:
        """Return the milliseconds of the operator's bytes at the copy's speed."""
        return 1e-6 * (operator.data_bytes or 0) / self.gbytes_s

    def ms(self, operator: Operator) -> float:
        """Return the shortest duration that the roofline allows."""
        return max(self.arithmetic_ms(operator), self.memory_ms(operator))

    def memory_bound(self, operator: Operator) -> bool:
        """Return whether its bytes take longer than its MACs."""
        return self.memory_ms(operator) > self.arithmetic_ms(operator)


@dataclass(frozen=True)
class PartTime:
    """All operators of one part of a kind.

    Attributes:
        macs: Their known MACs; `data_bytes` likewise.
        memory_bound_ms: Part of `ms` of operators whose bytes take longer than their MACs.
    """

    kind: Kind
    part: Part
    operators: int
    ms: float
    macs: int
    data_bytes: int
    roof_ms: float
    memory_bound_ms: float


def part_times(operators: Sequence[Operator], roof: Roof) -> tuple[PartTime, ...]:
    """Return sums by kind and part, in the order of both, without those that a network lacks."""
    times = []
    for kind, part in itertools.product(KINDS, PARTS):
        own = [each for each in operators if (each.kind, each.part) == (kind, part)]
        if own:
            time = PartTime(
                kind,
                part,
                len(own),
                ms=math.fsum(each.ms for each in own),
                macs=sum(each.macs or 0 for each in own),
                data_bytes=sum(each.data_bytes or 0 for each in own),
                roof_ms=math.fsum(roof.ms(each) for each in own),
                memory_bound_ms=math.fsum(each.ms for each in own if roof.memory_bound(each)),
            )
            times.append(time)
    return tuple(times)


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
        whole_ms: Latency of the whole network in the same measurement.
        shares: Latency by kind, in the order of `KINDS`; kinds without any are left out.
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
            document["parts"] = [asdict(part) for part in self.parts]
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
