"""Latency of blocks against their tokens, both logarithmic: the slope of a line is its order in tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from orchestrator.report.draw import BLUE, GREEN, INK, MUTED, ORANGE, PINK, RED, SKY, figure

WIDTH_PX, HEIGHT_PX = 880, 560
LABEL_PX = 17
"""Height that a label needs."""

_COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, RED)
_LINES = ("-", (0, (5, 2)), (0, (1, 1.5)))
_MARKERS = "os^Dv"


def blocks_figure(rows: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """One line a block with 95 % intervals, its name where the line ends.

    Args:
        rows: With `block`, `tokens`, `ms`, `ms_low` and `ms_high`; what is not above 0 can't be drawn.
        title: Says device, variant and width.
    """
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: (row["block"], row["tokens"])):
        if row["ms"] > 0:
            lines.setdefault(row["block"], []).append(row)
    with figure(WIDTH_PX, HEIGHT_PX) as drawn:
        axes = drawn.add_subplot()
        axes.set_xscale("log")
        axes.set_yscale("log")
        for number, points in enumerate(lines.values()):
            _line(axes, number, points)
        axes.set_title(title, loc="left", fontsize=13, color=INK, pad=12)
        axes.set_xlabel("tokens N (pixels of the map)")
        axes.set_ylabel("latency of one more block, ms")
        _ticks(axes, sorted({row["tokens"] for row in rows}))
        axes.grid(which="major")
        drawn.draw_without_rendering()
        _labels(axes, lines)
    return drawn


def _look(number: int) -> dict[str, Any]:
    return {
        "color": _COLOURS[number % len(_COLOURS)],
        "linestyle": _LINES[number // len(_COLOURS) % len(_LINES)],
        "marker": _MARKERS[number % len(_MARKERS)],
    }


def _line(axes: Axes, number: int, points: Sequence[Mapping[str, Any]]) -> None:
    ms = np.array([row["ms"] for row in points])
    least = 0.05 * ms  # an interval that reaches 0 has no end on a logarithmic axis
    below = ms - np.maximum([row["ms_low"] for row in points], least)
    above = np.array([row["ms_high"] for row in points]) - ms
    tokens = [row["tokens"] for row in points]
    axes.errorbar(
        tokens,
        ms,
        yerr=[below, above],
        markersize=5,
        linewidth=1.8,
        elinewidth=1.2,
        capsize=3,
        **_look(number),
    )


def _ticks(axes: Axes, tokens: Sequence[int]) -> None:
    """Ticks at the tokens that were measured; plain numbers instead of powers."""
    axes.set_xticks(list(tokens), [f"{count:,}\n{round(count**0.5)} px" for count in tokens])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", which="minor", length=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(FuncFormatter(_half_decade))
    axes.margins(x=0.06, y=0.06)


def _half_decade(value: float, _position: int) -> str:
    """A label at 2 and 5 of each decade."""
    return f"{value:g}" if f"{value:e}"[0] in "25" else ""


def _labels(axes: Axes, lines: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Names right of the axes, as near to the ends of their lines as they can stand without overlap."""
    low, high = np.log(axes.get_ylim())
    ends = [(name, points[-1]) for name, points in lines.items()]
    wanted = [(np.log(row["ms"]) - low) / (high - low) for _, row in ends]
    room = LABEL_PX / (axes.bbox.height)
    places = spread(wanted, room)
    for number, ((name, row), place) in enumerate(zip(ends, places, strict=True)):
        axes.annotate(
            name,
            (row["tokens"], row["ms"]),
            (1.035, place),
            textcoords="axes fraction",
            color=_look(number)["color"],
            va="center",
            fontsize=12,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 4},
        )


def spread(wanted: Sequence[float], room: float) -> list[float]:
    """Places at least `room` apart, in the order of the wanted ones and near them: groups that collide are centred
    on the mean of what their members want."""
    groups: list[list[int]] = []
    for index in sorted(range(len(wanted)), key=lambda index: wanted[index]):
        groups.append([index])
        while len(groups) > 1 and _top(groups[-2], wanted, room) + room > _bottom(groups[-1], wanted, room):
            last = groups.pop()
            groups[-1] += last
    places = [0.0] * len(wanted)
    for group in groups:
        for position, index in enumerate(group):
            places[index] = _bottom(group, wanted, room) + position * room
    return places


def _bottom(group: Sequence[int], wanted: Sequence[float], room: float) -> float:
    return sum(wanted[index] for index in group) / len(group) - room * (len(group) - 1) / 2


def _top(group: Sequence[int], wanted: Sequence[float], room: float) -> float:
    return _bottom(group, wanted, room) + room * (len(group) - 1)
