"""Operators compared with what a machine reaches in a matrix product and in a copy (Williams et al. 2009)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.export.lower.kinds import KINDS, PARTS, Kind, Part


@dataclass(frozen=True)
class Operator:
    """One operator of a traced network.

    Attributes:
        name: Name in the runtime.
        kind: Kind of work.
        part: What it does in that kind.
        ms: Duration of one execution.
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
    """What two kernels reached in the same measurement: 10^9 MACs and 10^9 bytes (read and written) a second."""

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
        ms: Their duration.
        macs: Their known MACs; `data_bytes` likewise.
        roof_ms: Shortest duration that the roofline allows.
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

    def to_dict(self) -> dict[str, Any]:
        """Return the form for JSON and tables."""
        return {
            "kind": self.kind,
            "part": self.part,
            "operators": self.operators,
            "ms": self.ms,
            "macs": self.macs,
            "data_bytes": self.data_bytes,
            "roof_ms": self.roof_ms,
            "memory_bound_ms": self.memory_bound_ms,
        }


def part_times(operators: Sequence[Operator], roof: Roof) -> tuple[PartTime, ...]:
    """Return sums by kind and part, in the order of both, without those that a network lacks."""
    made = []
    for kind in KINDS:
        for part in PARTS:
            own = [each for each in operators if (each.kind, each.part) == (kind, part)]
            if own:
                made.append(
                    PartTime(
                        kind,
                        part,
                        len(own),
                        math.fsum(each.ms for each in own),
                        sum(each.macs or 0 for each in own),
                        sum(each.data_bytes or 0 for each in own),
                        math.fsum(roof.ms(each) for each in own),
                        math.fsum(each.ms for each in own if roof.memory_bound(each)),
                    )
                )
    return tuple(made)
