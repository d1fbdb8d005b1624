"""Figures of single commands: blocks, breakdown, comparison, suite and sustained runs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullFormatter

from luts.format.errors import UsageError
from luts.format.files import storage_error
from orchestrator.breakdown.attribution import METHOD_TITLES, Attribution, NetworkBreakdown
from orchestrator.breakdown.roofline import Operator, Roof
from orchestrator.export.lower.kinds import KINDS, TITLES, Kind
from orchestrator.journal.sustained import Slowdown, SustainedPoint
from orchestrator.report.draw import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PINK,
    RED,
    SKY,
    figure,
    legend,
    save_picture,
)
from orchestrator.suites.suite import Comparison, Row

BLOCKS_WIDTH_PX, HEIGHT_PX = 880, 560
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
    with figure(BLOCKS_WIDTH_PX, HEIGHT_PX) as drawn:
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


_COLOURS_BREAKDOWN_FIGURE: dict[Kind, str] = {
    "attention": RED,
    "mlp": ORANGE,
    "convolution": BLUE,
    "normalisation": GREEN,
    "activation": PINK,
    "reshape": SKY,
    "elementwise": "#8c6d31",
    "other": "#a3a7ad",
}
_UNEXPLAINED = "unexplained"
_HATCH = "////"
BREAKDOWN_WIDTH_PX, BAR_PX, FRAME_PX = 920, 34, 150
_LABEL_SHARE = 0.055
"""Of the axis: narrower pieces carry no number, it would not fit."""
SUFFIXES = (".svg", ".png", ".pdf")


def write_breakdown_figure(path: Path, networks: Sequence[NetworkBreakdown], title: str) -> None:
    """Draw and write; the suffix says in which format.

    Raises:
        UsageError: another suffix.
        StorageError: the file can't be written.
    """
    check_suffix(path)
    drawn = breakdown_figure(networks, title)
    try:
        save_picture(drawn, path)
    except OSError as error:
        raise storage_error(f"cannot write {path}", error, "choose another --output") from error


def check_suffix(path: Path) -> None:
    """`UsageError` for a format that pictures are not written in."""
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path}: expected a name that ends in {', '.join(SUFFIXES)}")


def breakdown_figure(networks: Sequence[NetworkBreakdown], title: str) -> Figure:
    """A bar for each network and method, in milliseconds; what is unexplained is hatched, and stands at the left of
    0 where the shares add up to more than the whole."""
    rows = [(network, item) for network in networks for item in network.attributions]
    with figure(BREAKDOWN_WIDTH_PX, FRAME_PX + BAR_PX * len(rows) + 14 * len(networks)) as drawn:
        axes = drawn.add_subplot()
        longest = max(item.whole_ms for _, item in rows)
        place, ticks, labels = 0.0, [], []
        previous = rows[0][0]
        for network, item in rows:
            place += 0.45 if network is not previous else 0.0
            previous = network
            _bar(axes, place, item, longest)
            ticks.append(place)
            labels.append(f"{network.model}\n{METHOD_TITLES[item.method]}")
            place += 1.0
        axes.set_yticks(ticks, labels)
        axes.tick_params(axis="y", labelcolor=INK, length=0)
        axes.invert_yaxis()
        axes.margins(x=0.09)
        axes.axvline(0, color=MUTED, linewidth=0.8)
        axes.set_xlabel(f"ms; {title}")
        axes.grid(axis="x")
        used = {kind for _, item in rows for kind in item.shares}
        handles = [
            Patch(color=_COLOURS_BREAKDOWN_FIGURE[kind], label=TITLES[kind]) for kind in KINDS if kind in used
        ]
        handles.append(Patch(facecolor="white", edgecolor=MUTED, hatch=_HATCH, label=_UNEXPLAINED))
        legend(drawn, handles, BREAKDOWN_WIDTH_PX)
    return drawn


def _bar(axes: mpl.axes.Axes, place: float, item: Attribution, longest: float) -> None:
    """Positive pieces from 0 to the right, negative ones to the left; the whole stands at the end."""
    right = left = 0.0
    pieces: list[tuple[Kind | None, float]] = [(kind, share.ms) for kind, share in item.shares.items()]
    pieces.append((None, item.unexplained_ms))
    for kind, ms in pieces:
        start = right if ms >= 0 else left
        style = (
            {"color": _COLOURS_BREAKDOWN_FIGURE[kind]}
            if kind
            else {"facecolor": "white", "edgecolor": MUTED, "hatch": _HATCH, "linewidth": 0.8}
        )
        axes.barh(place, ms, left=start, height=0.74, **style)
        if abs(ms) > _LABEL_SHARE * longest:
            colour = "white" if kind in ("attention", "convolution", "normalisation", "elementwise") else INK
            box = None if kind else {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
            axes.text(
                start + ms / 2, place, f"{ms:.2f}", ha="center", va="center", color=colour, size=10, bbox=box
            )
        if ms >= 0:
            right += ms
        else:
            left += ms
    axes.text(right, place, f"  {item.whole_ms:.2f} ms", ha="left", va="center", color=INK, size=11)


GROUPS: Mapping[str, str] = {
    "attention: linear and convolution": RED,
    "attention: matrix products": "#7a3b00",
    "attention: softmax": PINK,
    "attention: reshape and copy": SKY,
    "attention: the rest": "#5e4fa2",
    TITLES["mlp"]: ORANGE,
    TITLES["convolution"]: BLUE,
    TITLES["normalisation"]: GREEN,
    TITLES["activation"]: "#d9b3cf",
    TITLES["reshape"]: "#b5dcf2",
    TITLES["elementwise"]: "#8c6d31",
    TITLES["other"]: "#a3a7ad",
}
"""Pieces of a bar and their colours; what a kind other than attention is made of stands in the table."""

_INSIDE = {
    "projection": "linear and convolution",
    "product": "matrix products",
    "softmax": "softmax",
    "reshape": "reshape and copy",
}
OPERATORS_WIDTH_PX, OPERATORS_BAR_PX, OPERATORS_FRAME_PX, ROOF_PX = 920, 36, 170, 380
_LABEL_SHARE_OPERATORS_FIGURE = 4.0
"""Percent: narrower pieces carry no number."""


def group_of(kind: str, part: str) -> str:
    """The piece of a bar that an operator counts for."""
    if kind != "attention":
        return TITLES[kind]  # type: ignore[index]
    return f"attention: {_INSIDE.get(part, 'the rest')}"


def write_operators_figure(path: Path, networks: Sequence[NetworkBreakdown], title: str) -> None:
    """Draw and write; the suffix says in which format.

    Raises:
        UsageError: another suffix, or no network was traced.
        StorageError: the file can't be written.
    """
    check_suffix(path)
    drawn = operators_figure(networks, title)
    try:
        save_picture(drawn, path)
    except OSError as error:
        raise storage_error(f"cannot write {path}", error, "choose another --operators") from error


def operators_figure(networks: Sequence[NetworkBreakdown], title: str) -> Figure:
    """A bar for each traced network, percent of its latency; below, 10^9 MACs a second against MACs a byte."""
    traced = [(network.model, item) for network in networks for item in network.attributions if item.roof]
    if not traced:
        raise UsageError("no network was traced; --operators takes the event tracer (leave --method out)")
    bars_px = OPERATORS_FRAME_PX + OPERATORS_BAR_PX * len(traced)
    with figure(OPERATORS_WIDTH_PX, bars_px + ROOF_PX) as drawn:
        bars, roof = drawn.subplots(2, 1, height_ratios=[bars_px - 70, ROOF_PX])
        used = _bars(bars, traced)
        bars.set_xlabel(f"% of the latency without the tracer; {title}")
        _roof(roof, traced)
        legend(
            drawn,
            [Patch(color=GROUPS[group], label=group) for group in GROUPS if group in used],
            OPERATORS_WIDTH_PX,
        )
    return drawn


def _bars(axes: Axes, traced: Sequence[tuple[str, Attribution]]) -> set[str]:
    used = set()
    for place, (_, item) in enumerate(traced):
        start = 0.0
        for group, colour in GROUPS.items():
            share = (
                100
                * sum(row.ms for row in item.parts if group_of(row.kind, row.part) == group)
                / item.whole_ms
            )
            if not share:
                continue
            used.add(group)
            axes.barh(place, share, left=start, height=0.74, color=colour)
            if share > _LABEL_SHARE_OPERATORS_FIGURE:
                dark = colour in (RED, "#7a3b00", BLUE, GREEN, "#5e4fa2", "#8c6d31")
                axes.text(
                    start + share / 2, place, f"{share:.0f}", ha="center", va="center", size=10,
                    color="white" if dark else INK,
                )  # fmt: skip
            start += share
    axes.set_yticks(range(len(traced)), [f"{name}\n{item.whole_ms:.2f} ms" for name, item in traced])
    axes.tick_params(axis="y", labelcolor=INK, length=0)
    axes.invert_yaxis()
    axes.grid(axis="x")
    return used


def _roof(axes: Axes, traced: Sequence[tuple[str, Attribution]]) -> None:
    markers = ("o", "s", "^", "D", "v", "P")
    handles = []
    for number, (name, item) in enumerate(traced):
        marker = markers[number % len(markers)]
        shown = [each for each in item.operators if each.macs and each.data_bytes and each.ms > 0]
        if shown:
            axes.scatter(
                [_intensity(each) for each in shown],
                [1e-6 * (each.macs or 0) / each.ms for each in shown],
                s=18, marker=marker, alpha=0.75, linewidths=0,
                color=[GROUPS[group_of(each.kind, each.part)] for each in shown],
            )  # fmt: skip
        handles.append(Line2D([], [], color=MUTED, marker=marker, linestyle="", label=name))
    reached = [item.roof for _, item in traced if item.roof]
    roof = Roof(
        statistics.median(each.gmacs_s for each in reached),
        statistics.median(each.gbytes_s for each in reached),
    )
    along = np.geomspace(0.05, 200, 200)
    axes.plot(along, np.minimum(roof.gmacs_s, roof.gbytes_s * along), color=INK, linewidth=1.2)
    label = f"reached: {roof.gmacs_s:.1f} GMAC/s, {roof.gbytes_s:.1f} GB/s"
    handles.append(Line2D([], [], color=INK, label=label))
    axes.set(xscale="log", yscale="log", xlabel="MACs a byte", ylabel="GMAC/s")
    axes.grid(which="major")
    axes.legend(handles=handles, loc="lower right")


def _intensity(operator: Operator) -> float:
    return (operator.macs or 0) / (operator.data_bytes or 1)


PARETO_WIDTH_PX, PARETO_HEIGHT_PX = 900, 560
LABEL_GAP_PT = 13
"""Distance of a label from the one below it, in points."""


def save_pareto(
    path: Path, rows: Sequence[Mapping[str, Any]], device: str, data: str, simulated: bool
) -> None:
    """Draw rows that have both accuracy and latency to a .png or .svg file; `OSError` where it can't be written."""
    shown = sorted((row for row in rows if row["pareto"] is not None), key=lambda row: row["ms"])
    with figure(PARETO_WIDTH_PX, PARETO_HEIGHT_PX) as drawn:
        panel = drawn.add_subplot()
        best = [row for row in shown if row["pareto"]]
        panel.step(
            [row["ms"] for row in best],
            [100 * _accuracy(row)[0] for row in best],
            where="post",
            color=MUTED,
            linewidth=1,
            linestyle=(0, (4, 3)),
        )
        for row in shown:
            _point(panel, row)
        panel.margins(x=0.12, y=0.15)
        made_up = " (SIMULATED)" if simulated else ""
        panel.set(xlabel=f"ms, {device}{made_up}", ylabel=f"top-1, %, {data}")
        panel.grid()
        panel.tick_params(length=0)
        drawn.canvas.draw()
        _label(panel, shown)
        marks = [("o", "file as exported"), ("s", "PyTorch, the file does not run here")]
        kinds = [
            (marker, name) for marker, name in marks if any(_accuracy(row)[3] == marker for row in shown)
        ]
        handles = [
            Line2D([], [], color=BLUE, marker=marker, linestyle="", label=f"{name}, none better and faster")
            for marker, name in kinds
        ]
        handles += [
            Line2D([], [], color=ORANGE, marker="o", linestyle="", label="another is better and faster")
        ]
        legend(drawn, handles if len(best) < len(shown) else handles[:-1], PARETO_WIDTH_PX)
        save_picture(drawn, path)


def _accuracy(row: Mapping[str, Any]) -> tuple[float, float, float, str]:
    """Share, both ends of its interval, and the marker that says whose it is."""
    prefix, marker = ("", "o") if row["top1"] is not None else ("pytorch_", "s")
    return row[f"{prefix}top1"], row[f"{prefix}top1_low"], row[f"{prefix}top1_high"], marker


def _point(panel: Axes, row: Mapping[str, Any]) -> None:
    share, low, high, marker = _accuracy(row)
    colour = BLUE if row["pareto"] else ORANGE
    panel.errorbar(
        row["ms"],
        100 * share,
        xerr=[[row["ms"] - row["ci_low"]], [row["ci_high"] - row["ms"]]],
        yerr=[[100 * (share - low)], [100 * (high - share)]],
        fmt=marker,
        color=colour,
        elinewidth=1,
        markersize=6,
    )


def _label(panel: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """Names beside points: above those whose place is taken, so that none lies on another."""
    taken: list[tuple[float, float, float]] = []
    for row in rows:
        x, y = panel.transData.transform((row["ms"], 100 * _accuracy(row)[0])) * 72 / panel.figure.dpi
        width, up = 6.5 * len(_name(row)), 6.0
        while any(
            abs(y + up - other) < LABEL_GAP_PT and x < right and left < x + width
            for left, right, other in taken
        ):
            up += LABEL_GAP_PT / 2
        taken.append((x, x + width, y + up))
        panel.annotate(
            _name(row),
            (row["ms"], 100 * _accuracy(row)[0]),
            xytext=(7, up),
            textcoords="offset points",
            fontsize=10.5,
        )


def _name(row: Mapping[str, Any]) -> str:
    """Without folders and timm's prefix."""
    network, _, weights = str(row["model"]).removeprefix("timm:").partition(":")
    return " ".join(Path(part).stem if "/" in part else part for part in (network, weights) if part)


COLOURS: Mapping[str, str] = {"conv": BLUE, "transformer": ORANGE, "hybrid": GREEN}
NAMES: Mapping[str, str] = {"conv": "convolutions", "transformer": "transformer", "hybrid": "both in turn"}

SUITE_WIDTH_PX, SUITE_HEIGHT_PX = 900, 640
LABEL_GAP = 0.034
"""Smallest distance of two labels, as a share of the axis."""


def save_suite(path: Path, comparison: Comparison, device: str, simulated: bool) -> None:
    """Draw the comparison to a .png or .svg file; `OSError` where it can't be written."""
    rows = [row for row in comparison.rows if row.measured is not None]
    with figure(SUITE_WIDTH_PX, SUITE_HEIGHT_PX) as drawn:
        panel = drawn.add_subplot()
        low, high = _range(rows)
        panel.set(yscale="log", ylim=(low, high), xlim=(-0.62, 1.62))
        left = _spread({row.entry.row: row.measured.ms for row in rows if row.measured}, low, high)
        right = _spread(
            {row.entry.row: ms for row in rows if (ms := row.entry.published.latency_ms)}, low, high
        )
        for row in rows:
            _line_suite_figure(panel, row, left, right)
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
        legend(
            drawn,
            [Line2D([], [], color=COLOURS[k], marker="o", label=NAMES[k]) for k in kinds],
            SUITE_WIDTH_PX,
        )
        save_picture(drawn, path)


def _line_suite_figure(panel: Axes, row: Row, left: Mapping[str, float], right: Mapping[str, float]) -> None:
    assert row.measured is not None
    name, ms, published = row.entry.row, row.measured.ms, row.entry.published.latency_ms
    colour = COLOURS[row.entry.kind]
    panel.plot([0, 0], [row.measured.ci_low, row.measured.ci_high], color=colour, linewidth=3, alpha=0.4)
    panel.plot([0], [ms], "o", color=colour, markersize=5)
    _label_suite_figure(panel, 0, ms, left[name], f"{name}  {ms:.1f}", "right")
    if published is None:
        return
    panel.plot([0, 1], [ms, published], color=colour, linewidth=1.2, alpha=0.8)
    panel.plot([1], [published], "o", color=colour, markersize=5)
    _label_suite_figure(panel, 1, published, right[name], f"{published:.1f}  {name}", "left")


def _label_suite_figure(panel: Axes, x: float, y: float, label_y: float, text: str, side: str) -> None:
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


SUSTAINED_WIDTH_PX, PANEL_PX, TITLE_PX = 900, 210, 40

_WARM = {"fair": ORANGE, "serious": RED, "critical": RED}
_HEAT_LINES = (("celsius", "°C"), ("headroom", "thermal headroom, 1 = severe"))


def save_sustained(path: Path, points: Sequence[SustainedPoint], slowdown: Slowdown, title: str) -> None:
    """Draw to a .png or .svg file; panels of what the device does not tell are left out. OSError."""
    heat = [(name, label) for name, label in _HEAT_LINES if _told(points, name)][:1]
    clock = _told(points, "mhz") or _told(points, "cap_mhz")
    panels = 1 + len(heat) + clock
    with figure(SUSTAINED_WIDTH_PX, TITLE_PX + PANEL_PX * panels) as drawn:
        axes = list(drawn.subplots(panels, 1, sharex=True, squeeze=False)[:, 0])
        drawn.suptitle(title, fontsize=12, x=0.01, ha="left")
        _latency(axes[0], points, slowdown)
        for panel, (name, label) in zip(axes[1:], heat, strict=False):
            _line_sustained_figure(panel, points, name, ORANGE, label)
            panel.set_ylabel(label)
        if clock:
            _line_sustained_figure(axes[-1], points, "cap_mhz", MUTED, "at most")
            _line_sustained_figure(axes[-1], points, "mhz", GREEN, "clock")
            axes[-1].set_ylabel("MHz, fastest core")
            axes[-1].legend(loc="lower left")
        for panel in axes:
            panel.grid(axis="y")
            panel.tick_params(length=0)
            _shade(panel, points)
        axes[-1].set_xlabel(f"minutes; {_shades(points)}")
        save_picture(drawn, path)


def _latency(panel: Axes, points: Sequence[SustainedPoint], slowdown: Slowdown) -> None:
    for _, part in groupby(points, key=lambda point: point.segment):
        chunks = list(part)
        minutes = [_minute(point) for point in chunks]
        low, high = ([getattr(point, name) for point in chunks] for name in ("p50_ms", "p90_ms"))
        panel.fill_between(minutes, low, high, color=BLUE, alpha=0.25, linewidth=0, label="to p90")
    _line_sustained_figure(panel, points, "p50_ms", BLUE, "p50 of each chunk")
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


def _line_sustained_figure(
    panel: Axes, points: Sequence[SustainedPoint], name: str, colour: str, label: str
) -> None:
    """One line for each segment: the device rested in between."""
    for segment, part in groupby(points, key=lambda point: point.segment):
        told = [(_minute(point), getattr(point, name)) for point in part if getattr(point, name) is not None]
        if told:
            shown = label if segment == points[0].segment else f"_{label}"
            panel.plot(*zip(*told, strict=True), color=colour, linewidth=1.4, label=shown)


def _shade(panel: Axes, points: Sequence[SustainedPoint]) -> None:
    for point in points:
        if colour := _WARM.get(point.thermal_state or ""):
            panel.axvspan(point.start_s / 60, point.end_s / 60, color=colour, alpha=0.12, linewidth=0)


def _shades(points: Sequence[SustainedPoint]) -> str:
    states = [state for state in _WARM if any(point.thermal_state == state for point in points)]
    if states:
        return f"shaded: thermal state {', '.join(states)}"
    told = any(point.thermal_state for point in points)
    return "thermal state nominal throughout" if told else "the device tells no thermal state"


def _told(points: Sequence[SustainedPoint], name: str) -> bool:
    return any(getattr(point, name) is not None for point in points)


def _minute(point: SustainedPoint) -> float:
    return (point.start_s + point.end_s) / 120
