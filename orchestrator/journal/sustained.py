"""A sustained run's journal as points in time: call durations, heat and clock, and whether it slowed down."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from luts.estimate.statistics import Percentiles, percentiles
from orchestrator.journal.records import Record, RoundsRecord

_HEAT = ("nominal", "fair", "serious", "critical")


@dataclass(frozen=True)
class SustainedPoint:
    """A run of calls; values that the device does not report are None.

    Attributes:
        segment: Counted from 0; a further one starts after every interruption.
        start_s, end_s: On the device's clock, from the start of the measurement.
        thermal_state: The worse of both ends.
        headroom: Android's thermal headroom; 1.0 is severe throttling.
        celsius: The hottest thermal zone.
        mhz, cap_mhz: Clock of the fastest core, and its limit.
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


def sustained_points(records: Iterable[Record]) -> list[SustainedPoint]:
    """Return the points of a journal in order of time."""
    points: list[SustainedPoint] = []
    origin_ns = 0
    for run in _runs(records):
        before = run.state_before
        if not points:
            origin_ns = before.uptime_ns
        elif before.uptime_ns - origin_ns < 1e9 * points[-1].end_s:
            origin_ns = before.uptime_ns - round(1e9 * points[-1].end_s)  # it was restarted in between
        points.append(_point(run, origin_ns))
    return points


def sustained_percentiles(records: Iterable[Record]) -> Percentiles:
    """Return percentiles of all calls of a sustained run; its runs replace loads as the unit of replication."""
    return percentiles([run.ns.ravel() / 1e6 for run in _runs(records)])


def merge_points(points: Sequence[SustainedPoint], most: int) -> list[SustainedPoint]:
    """Return at most `most` points, each merged from neighbours in one segment.

    Times are medians; heat and clock are the worst of the neighbours.
    """
    size = -(-len(points) // most)
    rows: list[list[SustainedPoint]] = []
    for point in points:
        if not rows or len(rows[-1]) == size or rows[-1][0].segment != point.segment:
            rows.append([])
        rows[-1].append(point)
    return [_together(row) for row in rows]


def _runs(records: Iterable[Record]) -> list[RoundsRecord]:
    return [record for record in records if isinstance(record, RoundsRecord)]


def _point(run: RoundsRecord, origin_ns: int) -> SustainedPoint:
    before, after = run.state_before, run.state_after
    ms = run.ns.ravel() / 1e6
    p50, p90 = (float(value) for value in np.percentile(ms, (50, 90)))
    states = [state for state in (before.thermal_state, after.thermal_state) if state]
    clocks = [
        (cpu.max_mhz or 0.0, cpu) for cpu in after.cpus if cpu.mhz is not None or cpu.max_mhz is not None
    ]
    fastest = max(clocks, key=lambda clock: clock[0])[1] if clocks else None
    return SustainedPoint(
        segment=run.segment,
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


def _together(row: Sequence[SustainedPoint]) -> SustainedPoint:
    def known(name: str) -> list[float]:
        return [value for point in row if (value := getattr(point, name)) is not None]

    states = [point.thermal_state for point in row if point.thermal_state]
    return SustainedPoint(
        segment=row[0].segment,
        start_s=row[0].start_s,
        end_s=row[-1].end_s,
        calls=sum(point.calls for point in row),
        p50_ms=float(np.median(known("p50_ms"))),
        p90_ms=float(np.median(known("p90_ms"))),
        thermal_state=max(states, key=_HEAT.index) if states else None,
        headroom=max(known("headroom"), default=None),
        celsius=max(known("celsius"), default=None),
        mhz=float(np.median(known("mhz"))) if known("mhz") else None,
        cap_mhz=min(known("cap_mhz"), default=None),
    )


LEAST_RISE = 0.05
"""Smallest relative rise that counts as a slowdown: any machine drifts by less in minutes; steps of phones'
clocks are larger.
"""

NOISE_SDS = 4.0
"""A rise counts if it exceeds so many standard deviations of one run's median."""

LASTING = 3
"""Runs in a row that make a rise a slowdown: another program's burst ends sooner."""

FIRST_SHARE = 0.1
"""Fraction of the runs whose fastest quarter is the latency of the cool device."""

_CAP_FALL = 0.02


@dataclass(frozen=True)
class Slowdown:
    """Result of a sustained run.

    Attributes:
        first_ms, last_ms: Latency while the device was cool, and in the last tenth.
        since_s: When it became slower for long; None if it did not.
        slow_ms, slow_share: Median latency from then on, while it was slower, and the fraction of that time.
        signs: What the device reported about heat and clock, in words.
        silent: Whether the device reports nothing about either.
    """

    first_ms: float
    last_ms: float
    since_s: float | None
    slow_ms: float | None
    slow_share: float
    signs: tuple[str, ...]
    silent: bool

    @property
    def rise(self) -> float:
        """Relative increase of the latency while it was slower, or at the end if it never was."""
        return (self.slow_ms or self.last_ms) / self.first_ms - 1

    def __str__(self) -> str:
        """Return the result in words."""
        if self.since_s is None:
            steady = abs(self.rise) <= LEAST_RISE
            finding = "did not slow down" if steady else "no slowdown that lasts and stands out of the noise"
            verdict = (
                f"{finding}: {self.first_ms:.3f} ms at first, {self.last_ms:.3f} ms at the end "
                f"({100 * self.rise:+.1f} %)"
            )
        else:
            verdict = (
                f"slowed down after {_time(self.since_s)}: {self.first_ms:.3f} ms at first, {self.slow_ms:.3f} ms "
                f"while slow ({100 * self.rise:+.0f} %), {100 * self.slow_share:.0f} % of the time, "
                f"{self.last_ms:.3f} ms at the end"
            )
        return f"{verdict}; {self._changes()}"

    def _changes(self) -> str:
        if self.signs:
            return "the device reported: " + ", ".join(self.signs)
        if self.silent:
            return "the device does not report heat or clock"
        if self.since_s is None:
            return "no thermal event reported"
        return "not explained by the device's state; another process may be the cause"


def slowdown(points: Sequence[SustainedPoint]) -> Slowdown:
    """Return what the points of a sustained run (at least one) show."""
    medians = np.array([point.p50_ms for point in points])
    spent_s = np.array([point.end_s - point.start_s for point in points])
    first = medians[: max(LASTING, round(FIRST_SHARE * len(medians)))]
    first_ms = float(np.quantile(first, 0.25))
    slow = medians > first_ms * (1 + max(LEAST_RISE, NOISE_SDS * _noise(medians)))
    begins = [i for i in range(len(slow) - LASTING + 1) if slow[i : i + LASTING].all()]
    slow[: begins[0] if begins else len(slow)] = False
    return Slowdown(
        first_ms=first_ms,
        last_ms=float(np.median(medians[-max(1, round(FIRST_SHARE * len(medians))) :])),
        since_s=points[begins[0]].start_s if begins else None,
        slow_ms=float(np.median(medians[slow])) if begins else None,
        slow_share=float(spent_s[slow].sum() / spent_s.sum()) if spent_s.sum() else 0.0,
        signs=tuple(_signs(points)),
        silent=all(
            value is None
            for point in points
            for value in (point.thermal_state, point.headroom, point.celsius, point.mhz, point.cap_mhz)
        ),
    )


def _noise(medians: np.ndarray) -> float:
    """Return the relative standard deviation of one run's median, from neighbours: a trend does not widen it."""
    steps = np.abs(np.diff(np.log(medians)))
    return 1.4826 * float(np.median(steps)) / float(np.sqrt(2)) if len(steps) else 0.0


def _signs(points: Sequence[SustainedPoint]) -> list[str]:
    signs = []
    for state in ("critical", "serious", "fair"):
        if hot := next((point for point in points if point.thermal_state == state), None):
            signs.append(f"thermal state {state} from {_time(hot.start_s)} on")
            break
    headrooms = [point.headroom for point in points if point.headroom is not None]
    if headrooms and max(headrooms) >= 1.0:
        signs.append(f"thermal headroom up to {max(headrooms):.2f} (1 is severe)")
    caps = [point.cap_mhz for point in points if point.cap_mhz]
    if caps and min(caps) < (1 - _CAP_FALL) * caps[0]:
        signs.append(f"its clock capped at {min(caps):,.0f} MHz, {caps[0]:,.0f} at first")
    return signs


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
