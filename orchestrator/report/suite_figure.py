"""The picture of a suite: measured milliseconds left, published ones right, one line a network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from orchestrator.report.draw import BLUE, GREEN, MUTED, ORANGE, figure, legend, save_picture
from orchestrator.suites.comparison import Comparison, Row

COLOURS: Mapping[str, str] = {"conv": BLUE, "transformer": ORANGE, "hybrid": GREEN}
NAMES: Mapping[str, str] = {"conv": "convolutions", "transformer": "transformer", "hybrid": "both in turn"}

WIDTH_PX, HEIGHT_PX = 900, 640
LABEL_GAP = 0.034
"""Smallest distance of two labels, as a share of the axis."""


def save(path: Path, comparison: Comparison, device: str, simulated: bool) -> None:
    """Draw the comparison to a .png or .svg file; `OSError` where it can't be written."""
    rows = [row for row in comparison.rows if row.measured is not None]
    with figure(WIDTH_PX, HEIGHT_PX) as drawn:
        panel = drawn.add_subplot()
        low, high = _range(rows)
        panel.set(yscale="log", ylim=(low, high), xlim=(-0.62, 1.62))
        left = _spread({row.entry.row: row.measured.ms for row in rows if row.measured}, low, high)
        right = _spread(
            {row.entry.row: ms for row in rows if (ms := row.entry.published.latency_ms)}, low, high
        )
        for row in rows:
            _line(panel, row, left, right)
        made_up = " (SIMULATED)" if simulated else ""
        devices = sorted({d for row in rows if (d := row.entry.table.latency_device)})
        panel.text(
            0, 1.01, f"measured: {device}{made_up}", transform=panel.get_xaxis_transform(), ha="center"
        )
        panel.text(
            1, 1.01, f"published: {', '.join(devices)}", transform=panel.get_xaxis_transform(), ha="center"
        )
        panel.set_xticks([])
        panel.yaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_formatter("{x:g}")
        panel.set_ylabel("ms, logarithmic")
        panel.grid(axis="y", which="both")
        panel.tick_params(which="both", length=0)
        kinds = [kind for kind in NAMES if any(row.entry.kind == kind for row in rows)]
        legend(drawn, [Line2D([], [], color=COLOURS[k], marker="o", label=NAMES[k]) for k in kinds], WIDTH_PX)
        save_picture(drawn, path)


def _line(panel: Axes, row: Row, left: Mapping[str, float], right: Mapping[str, float]) -> None:
    assert row.measured is not None
    name, ms, published = row.entry.row, row.measured.ms, row.entry.published.latency_ms
    colour = COLOURS[row.entry.kind]
    panel.plot([0, 0], [row.measured.ci_low, row.measured.ci_high], color=colour, linewidth=3, alpha=0.4)
    panel.plot([0], [ms], "o", color=colour, markersize=5)
    _label(panel, 0, ms, left[name], f"{name}  {ms:.1f}", "right")
    if published is None:
        return
    panel.plot([0, 1], [ms, published], color=colour, linewidth=1.2, alpha=0.8)
    panel.plot([1], [published], "o", color=colour, markersize=5)
    _label(panel, 1, published, right[name], f"{published:.1f}  {name}", "left")


def _label(panel: Axes, x: float, y: float, label_y: float, text: str, side: str) -> None:
    """A label beside its point, with a thin line where it had to make room."""
    sign = -1 if side == "right" else 1
    panel.plot([x + sign * 0.015, x + sign * 0.055], [y, label_y], color=MUTED, linewidth=0.6)
    panel.text(x + sign * 0.065, label_y, text, ha=side, va="center", fontsize=10.5)


def _range(rows: Sequence[Row]) -> tuple[float, float]:
    values = [row.measured.ms for row in rows if row.measured]
    values += [ms for row in rows if (ms := row.entry.published.latency_ms)]
    return min(values) / 1.35, max(values) * 1.35


def _spread(values: Mapping[str, float], low: float, high: float) -> dict[str, float]:
    """Where labels go: in order of value, no two closer than `LABEL_GAP`, each group around its own middle."""
    scale = math.log(high / low)
    groups: list[tuple[list[str], float]] = []
    for name, value in sorted(values.items(), key=lambda item: item[1]):
        groups.append(([name], math.log(value / low) / scale))
        while len(groups) > 1 and _overlap(groups[-2], groups[-1]):
            (upper, at), (names, below) = groups.pop(), groups.pop()
            middle = (below * len(names) + at * len(upper)) / (len(names) + len(upper))
            groups.append((names + upper, middle))
    places = {}
    for names, middle in groups:
        half = (len(names) - 1) / 2 * LABEL_GAP
        start = min(max(middle - half, LABEL_GAP / 2), 1 - LABEL_GAP / 2 - 2 * half)
        for number, name in enumerate(names):
            places[name] = low * math.exp((start + number * LABEL_GAP) * scale)
    return places


def _overlap(below: tuple[list[str], float], above: tuple[list[str], float]) -> bool:
    distance = above[1] - below[1]
    return distance < (len(below[0]) + len(above[0])) / 2 * LABEL_GAP
