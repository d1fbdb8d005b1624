"""Cases of warm-up by time for the agents of all languages; expected values were worked out by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_MS = 1_000_000
_NEVER = 60_000


@dataclass(frozen=True)
class RampCase:
    """Rounds as (count, milliseconds of each model); warm-up ends with the last one, not earlier."""

    name: str
    rounds: tuple[tuple[int, tuple[float, ...]], ...]
    ms: float
    steady: bool = True
    bound_ms: int = _NEVER


CASES = (
    RampCase("a clock that is up takes three windows", ((15, (10,)),), 150),
    RampCase("a clock that climbs", ((1, (100,)), (1, (80,)), (1, (70,)), (1, (69.4,)), (1, (69,))), 388.4),
    RampCase("a fall begins the count anew", ((2, (60,)), (3, (59,))), 297),
    RampCase("a hundredth is not a fall", ((1, (100,)), (2, (99,))), 298),
    RampCase("a device that slows down is warm", ((1, (60,)), (1, (70,)), (1, (80,))), 210),
    RampCase(
        "time is up", ((1, (100,)), (1, (90,)), (1, (80,)), (1, (70,))), 340, steady=False, bound_ms=300
    ),
    RampCase("time is up and it is steady", ((3, (100,)),), 300, bound_ms=300),
    RampCase("time is up within a window", ((12, (10,)),), 120, steady=False, bound_ms=120),
    RampCase("one round takes all the time", ((1, (600, 900)),), 1500, steady=False, bound_ms=1000),
    RampCase("one model falls as another rises", ((1, (30, 20)), (1, (20, 30)), (1, (30, 20))), 150),
    RampCase("a preempted visit does not count", ((7, (10,)), (1, (200,)), (5, (10,))), 320),
    RampCase("the lower of two medians", ((1, (20,)), (1, (40,)), (1, (20,)), (1, (30,)), (2, (25,))), 160),
    RampCase("a window's last 15 rounds", ((40, (1.1,)), (6, (1,)), (38, (1.1,)), (109, (1,))), 200.8),
)


def ramps() -> dict[str, Any]:
    """Return the content of protocol/golden/ramps.json, in nanoseconds."""
    return {
        "cases": [
            {
                "name": case.name,
                "bound_ns": case.bound_ms * _MS,
                "rounds": [[count, [round(ms * _MS) for ms in models]] for count, models in case.rounds],
                "ns": round(case.ms * _MS),
                "steady": case.steady,
            }
            for case in CASES
        ]
    }
