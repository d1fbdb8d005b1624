"""A sustained run's journal as points in time: how long calls took, how hot the device was, how fast its clock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from luts.estimate.percentiles import Percentiles, percentiles
from orchestrator.journal.conditions import state_of
from orchestrator.journal.records import ChunkRecord, Record
from orchestrator.wire.device_state import DeviceState

_HEAT = ("nominal", "fair", "serious", "critical")


@dataclass(frozen=True)
class Point:
    """A chunk of calls; what the device does not tell is None.

    Attributes:
        segment: Counted from 0; a further one begins after every interruption.
        start_s, end_s: On the device's clock, from the run's beginning.
        p50_ms, p90_ms: Of the chunk's calls.
        thermal_state: The worse of both ends.
        headroom: Android's; 1.0 is severe throttling.
        celsius: The hottest of the thermal zones.
        mhz: Clock of the fastest core.
        cap_mhz: What that core may have at most.
    """

    segment: int
    start_s: float
    end_s: float
    calls: int
    p50_ms: float
    p90_ms: float
    thermal_state: str | None
    headroom: float | None
    celsius: float | None
    mhz: float | None
    cap_mhz: float | None


def points_of(records: Iterable[Record]) -> list[Point]:
    """The chunks of a journal in order of time. Raises InvalidArtifactError where a state is not one."""
    points: list[Point] = []
    origin_ns = 0
    for chunk in _chunks(records):
        before, after = state_of(chunk.state_before), state_of(chunk.state_after)
        if not points:
            origin_ns = before.uptime_ns
        elif before.uptime_ns - origin_ns < 1e9 * points[-1].end_s:
            origin_ns = before.uptime_ns - round(1e9 * points[-1].end_s)  # it was started anew in between
        points.append(_point(chunk, before, after, origin_ns))
    return points


def all_percentiles(records: Iterable[Record]) -> Percentiles:
    """Of all calls of a sustained run; the chunks are what differs like loads do elsewhere."""
    return percentiles([chunk.nanoseconds().ravel() / 1e6 for chunk in _chunks(records)])


def in_rows(points: Sequence[Point], most: int) -> list[Point]:
    """At most so many points, each of neighbours in one segment: medians of times, the worst of heat and clock."""
    size = -(-len(points) // most)
    rows: list[list[Point]] = []
    for point in points:
        if not rows or len(rows[-1]) == size or rows[-1][0].segment != point.segment:
            rows.append([])
        rows[-1].append(point)
    return [_together(row) for row in rows]


def _chunks(records: Iterable[Record]) -> list[ChunkRecord]:
    return [record for record in records if isinstance(record, ChunkRecord)]


def _point(chunk: ChunkRecord, before: DeviceState, after: DeviceState, origin_ns: int) -> Point:
    ms = chunk.nanoseconds().ravel() / 1e6
    p50, p90 = (float(value) for value in np.percentile(ms, (50, 90)))
    states = [state for state in (before.thermal_state, after.thermal_state) if state]
    clocks = [
        (cpu.max_mhz or 0.0, cpu) for cpu in after.cpus if cpu.mhz is not None or cpu.max_mhz is not None
    ]
    fastest = max(clocks, key=lambda clock: clock[0])[1] if clocks else None
    return Point(
        segment=chunk.segment,
        start_s=(before.uptime_ns - origin_ns) / 1e9,
        end_s=(after.uptime_ns - origin_ns) / 1e9,
        calls=len(ms),
        p50_ms=p50,
        p90_ms=p90,
        thermal_state=max(states, key=_HEAT.index) if states else None,
        headroom=after.thermal_headroom,
        celsius=max((zone.celsius for zone in after.thermal_zones), default=None),
        mhz=fastest.mhz if fastest else None,
        cap_mhz=fastest.max_mhz if fastest else None,
    )


def _together(row: Sequence[Point]) -> Point:
    def told(name: str) -> list[float]:
        return [value for point in row if (value := getattr(point, name)) is not None]

    states = [point.thermal_state for point in row if point.thermal_state]
    return Point(
        segment=row[0].segment,
        start_s=row[0].start_s,
        end_s=row[-1].end_s,
        calls=sum(point.calls for point in row),
        p50_ms=float(np.median(told("p50_ms"))),
        p90_ms=float(np.median(told("p90_ms"))),
        thermal_state=max(states, key=_HEAT.index) if states else None,
        headroom=max(told("headroom"), default=None),
        celsius=max(told("celsius"), default=None),
        mhz=float(np.median(told("mhz"))) if told("mhz") else None,
        cap_mhz=min(told("cap_mhz"), default=None),
    )
