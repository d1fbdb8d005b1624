"""The picture of a sustained run: latency, heat and clock over one axis of time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from matplotlib.axes import Axes

from orchestrator.journal.slowdown import Slowdown
from orchestrator.journal.sustained import Point
from orchestrator.report.draw import BLUE, GREEN, MUTED, ORANGE, RED, figure, save_picture

WIDTH_PX, PANEL_PX, TITLE_PX = 900, 210, 40

_WARM = {"fair": ORANGE, "serious": RED, "critical": RED}
_HEAT_LINES = (("celsius", "°C"), ("headroom", "thermal headroom, 1 = severe"))


def save(path: Path, points: Sequence[Point], slowdown: Slowdown, title: str) -> None:
    """Draw to a .png or .svg file; panels of what the device does not tell are left out. OSError."""
    heat = [(name, label) for name, label in _HEAT_LINES if _told(points, name)][:1]
    clock = _told(points, "mhz") or _told(points, "cap_mhz")
    panels = 1 + len(heat) + clock
    with figure(WIDTH_PX, TITLE_PX + PANEL_PX * panels) as drawn:
        axes = list(drawn.subplots(panels, 1, sharex=True, squeeze=False)[:, 0])
        drawn.suptitle(title, fontsize=12, x=0.01, ha="left")
        _latency(axes[0], points, slowdown)
        for panel, (name, label) in zip(axes[1:], heat, strict=False):
            _line(panel, points, name, ORANGE, label)
            panel.set_ylabel(label)
        if clock:
            _line(axes[-1], points, "cap_mhz", MUTED, "at most")
            _line(axes[-1], points, "mhz", GREEN, "clock")
            axes[-1].set_ylabel("MHz, fastest core")
            axes[-1].legend(loc="lower left")
        for panel in axes:
            panel.grid(axis="y")
            panel.tick_params(length=0)
            _shade(panel, points)
        axes[-1].set_xlabel(f"minutes; {_shades(points)}")
        save_picture(drawn, path)


def _latency(panel: Axes, points: Sequence[Point], slowdown: Slowdown) -> None:
    for _, part in groupby(points, key=lambda point: point.segment):
        chunks = list(part)
        minutes = [_minute(point) for point in chunks]
        low, high = ([getattr(point, name) for point in chunks] for name in ("p50_ms", "p90_ms"))
        panel.fill_between(minutes, low, high, color=BLUE, alpha=0.25, linewidth=0, label="to p90")
    _line(panel, points, "p50_ms", BLUE, "p50 of each chunk")
    panel.axhline(slowdown.first_ms, color=MUTED, linewidth=0.8, linestyle=":")
    if slowdown.since_s is not None:
        panel.axvline(slowdown.since_s / 60, color=RED, linewidth=0.8)
        panel.annotate(
            f" {100 * slowdown.rise:+.0f} %",
            (slowdown.since_s / 60, 1),
            xycoords=("data", "axes fraction"),
            va="top",
        )
    panel.set_ylim(0, 1.1 * max(point.p90_ms for point in points))
    panel.set_ylabel("ms: p50, to p90")


def _line(panel: Axes, points: Sequence[Point], name: str, colour: str, label: str) -> None:
    """One line for each segment: the device rested in between."""
    for segment, part in groupby(points, key=lambda point: point.segment):
        told = [(_minute(point), getattr(point, name)) for point in part if getattr(point, name) is not None]
        if told:
            shown = label if segment == points[0].segment else f"_{label}"
            panel.plot(*zip(*told, strict=True), color=colour, linewidth=1.4, label=shown)


def _shade(panel: Axes, points: Sequence[Point]) -> None:
    for point in points:
        if colour := _WARM.get(point.thermal_state or ""):
            panel.axvspan(point.start_s / 60, point.end_s / 60, color=colour, alpha=0.12, linewidth=0)


def _shades(points: Sequence[Point]) -> str:
    states = [state for state in _WARM if any(point.thermal_state == state for point in points)]
    if states:
        return f"shaded: thermal state {', '.join(states)}"
    told = any(point.thermal_state for point in points)
    return "thermal state nominal throughout" if told else "the device tells no thermal state"


def _told(points: Sequence[Point], name: str) -> bool:
    return any(getattr(point, name) is not None for point in points)


def _minute(point: Point) -> float:
    return (point.start_s + point.end_s) / 120
