"""Figures of single commands: blocks, breakdown, comparison, suite and sustained runs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullFormatter

from luts.format.errors import UsageError
from orchestrator.breakdown.attribution import METHOD_TITLES, Attribution, NetworkBreakdown, Roof
from orchestrator.export.lower.kinds import KINDS, TITLES, Kind
from orchestrator.journal.sustained import Slowdown, SustainedPoint
from orchestrator.report.draw import (
    BLUE,
    BROWN,
    GREEN,
    GREY,
    INK,
    MUTED,
    ORANGE,
    PALETTE,
    PINK,
    PURPLE,
    RED,
    RUST,
    SKY,
    bar_labels,
    errorbars,
    figure,
    legend,
    marker,
    separate,
    stacked_bar,
)

WIDTH_PX = 900

_LINES = ("-", (0, (5, 2)), (0, (1, 1.5)))
_MARKERS = "os^Dv"

LABEL_PX = 17
"""Height of a label."""


def blocks_figure(rows: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Draw the latency of blocks against tokens.

    A line per block with 95 % intervals, its name where it ends.

    Args:
        rows: With `block`, `tokens`, `ms`, `ms_low` and `ms_high`; rows with `ms` not above 0 are left out.
        title: Device, variant and width.
    """
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: (row["block"], row["tokens"])):
        if row["ms"] > 0:
            lines.setdefault(row["block"], []).append(row)
    with figure(WIDTH_PX, 560) as drawn:
        axes = drawn.add_subplot()
        axes.set(xscale="log", yscale="log")
        for number, points in enumerate(lines.values()):
            ms = [row["ms"] for row in points]
            # an interval that reaches 0 has no end on a logarithmic axis
            ends = [(max(row["ms_low"], 0.05 * row["ms"]), row["ms_high"]) for row in points]
            look = _line_look(number) | {"markersize": 5, "linewidth": 1.8, "elinewidth": 1.2, "capsize": 3}
            errorbars(axes, [row["tokens"] for row in points], ms, y_ends=ends, **look)
        axes.set_title(title, loc="left", fontsize=13, color=INK, pad=12)
        axes.set(xlabel="tokens N (pixels of the map)", ylabel="latency of one more block, ms")
        tokens = sorted({row["tokens"] for row in rows})
        axes.set_xticks(tokens, [f"{count:,}\n{round(count**0.5)} px" for count in tokens])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(axis="x", which="minor", length=0)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        two_and_five = FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
        axes.yaxis.set_minor_formatter(two_and_five)
        axes.margins(x=0.06, y=0.06)
        axes.grid(which="major")
        drawn.draw_without_rendering()
        _label_line_ends(axes, {name: points[-1] for name, points in lines.items()})
    return drawn


def _line_look(number: int) -> dict[str, Any]:
    return {
        "color": PALETTE[number % len(PALETTE)],
        "linestyle": _LINES[number // len(PALETTE) % len(_LINES)],
        "marker": _MARKERS[number % len(_MARKERS)],
    }


def _label_line_ends(axes: Axes, ends: Mapping[str, Mapping[str, Any]]) -> None:
    """Write names to the right of the axes, as near to the ends of their lines as possible without overlap."""
    low, high = np.log(axes.get_ylim())
    wanted = [(np.log(row["ms"]) - low) / (high - low) for row in ends.values()]
    places = separate(wanted, LABEL_PX / axes.bbox.height)
    for number, ((name, row), place) in enumerate(zip(ends.items(), places, strict=True)):
        axes.annotate(
            name,
            (row["tokens"], row["ms"]),
            (1.035, place),
            textcoords="axes fraction",
            color=_line_look(number)["color"],
            va="center",
            fontsize=12,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 4},
        )


_KIND_COLOURS: dict[Kind, str] = {
    "attention": RED,
    "mlp": ORANGE,
    "convolution": BLUE,
    "normalisation": GREEN,
    "activation": PINK,
    "reshape": SKY,
    "elementwise": BROWN,
    "other": GREY,
}
_HATCH = "////"
BAR_PX, FRAME_PX, ROOF_PX = 36, 160, 380


def breakdown_figure(networks: Sequence[NetworkBreakdown], title: str) -> Figure:
    """Draw a bar for each network and method, in ms by kind of operation.

    What is unexplained is hatched, and to the left of 0 where the parts add up to more than the whole.
    """
    rows = [(network, item) for network in networks for item in network.attributions]
    with figure(WIDTH_PX, FRAME_PX + BAR_PX * len(rows) + 14 * len(networks)) as drawn:
        axes = drawn.add_subplot()
        longest = max(item.whole_ms for _, item in rows)
        places = [row + 0.45 * networks.index(network) for row, (network, _) in enumerate(rows)]
        for place, (_, item) in zip(places, rows, strict=True):
            pieces = [(share.ms, _KIND_COLOURS[kind], None) for kind, share in item.shares.items()]
            right = stacked_bar(
                axes, place, [*pieces, (item.unexplained_ms, "white", _HATCH)], 0.055 * longest
            )
            axes.text(right, place, f"  {item.whole_ms:.2f} ms", va="center", color=INK, size=11)
        bar_labels(axes, places, [f"{network.model}\n{METHOD_TITLES[item.method]}" for network, item in rows])
        axes.margins(x=0.09)
        axes.axvline(0, color=MUTED, linewidth=0.8)
        axes.set_xlabel(f"ms; {title}")
        used = {kind for _, item in rows for kind in item.shares}
        handles = [Patch(color=_KIND_COLOURS[kind], label=TITLES[kind]) for kind in KINDS if kind in used]
        handles.append(Patch(facecolor="white", edgecolor=MUTED, hatch=_HATCH, label="unexplained"))
        legend(drawn, handles, WIDTH_PX)
    return drawn


GROUPS: Mapping[str, str] = {
    "attention: linear and convolution": RED,
    "attention: matrix products": RUST,
    "attention: softmax": PINK,
    "attention: reshape and copy": SKY,
    "attention: the rest": PURPLE,
    TITLES["mlp"]: ORANGE,
    TITLES["convolution"]: BLUE,
    TITLES["normalisation"]: GREEN,
    TITLES["activation"]: "#d9b3cf",
    TITLES["reshape"]: "#b5dcf2",
    TITLES["elementwise"]: BROWN,
    TITLES["other"]: GREY,
}
"""Pieces of a bar and their colours; only attention is divided further, the table has the rest."""

_ATTENTION_PARTS = {
    "projection": "linear and convolution",
    "product": "matrix products",
    "softmax": "softmax",
    "reshape": "reshape and copy",
}


def group_of(kind: str, part: str) -> str:
    """Return the piece of a bar that an operator counts for."""
    if kind != "attention":
        return TITLES[kind]  # type: ignore[index]
    return f"attention: {_ATTENTION_PARTS.get(part, 'the rest')}"


def operators_figure(networks: Sequence[NetworkBreakdown], title: str) -> Figure:
    """Draw traced networks: bars of their operators in percent of the latency, and below them the roofline.

    Raises:
        UsageError: no network was traced.
    """
    traced = [(network.model, item) for network in networks for item in network.attributions if item.roof]
    if not traced:
        raise UsageError(
            "no network was traced; --operators needs the event tracer (omit --method)", code="not_traced"
        )
    bars_px = FRAME_PX + BAR_PX * len(traced)
    with figure(WIDTH_PX, bars_px + ROOF_PX) as drawn:
        bars, roof = drawn.subplots(2, 1, height_ratios=[bars_px - 70, ROOF_PX])
        used = set()
        for place, (_, item) in enumerate(traced):
            shares = dict.fromkeys(GROUPS, 0.0)
            for row in item.parts:
                shares[group_of(row.kind, row.part)] += row.ms
            pieces = [(100 * ms / item.whole_ms, GROUPS[group], None) for group, ms in shares.items() if ms]
            used |= {group for group, ms in shares.items() if ms}
            stacked_bar(bars, place, pieces, 4.0, "{:.0f}")
        bar_labels(bars, range(len(traced)), [f"{name}\n{item.whole_ms:.2f} ms" for name, item in traced])
        bars.set_xlabel(f"% of the latency without the tracer; {title}")
        _draw_roofline(roof, traced)
        legend(drawn, [Patch(color=GROUPS[name], label=name) for name in GROUPS if name in used], WIDTH_PX)
    return drawn


PRICED: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "linear layers, 1x1 convolutions": (ORANGE, ("gemm",)),
    "convolutions": (BLUE, ("conv(", "conv.", "conv_transpose", "grouped")),
    "depthwise convolutions": (GREEN, ("depthwise",)),
    "products and softmax": (RED, ("bmm", "softmax")),
    "transposes and copies": (SKY, ("transpose", "copy", "slice", "constantpad", "reshape")),
    "outside the delegates": (PURPLE, ("portable", "border")),
    "the rest": (GREY, ("",)),
}
"""Pieces of a predicted network: colour and beginnings of kinds of operators, the first that fits."""


def predictions_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw a bar in ms for each network that was predicted from its operators, with its interval."""
    with figure(WIDTH_PX, FRAME_PX + BAR_PX * len(rows)) as drawn:
        axes, used = drawn.add_subplot(), set()
        longest = max(row["high"] for row in rows)
        for place, row in enumerate(rows):
            sums = dict.fromkeys(PRICED, 0.0)
            for each in row["operators"]:
                sums[next(name for name in PRICED if each["key"].startswith(PRICED[name][1]))] += each["ms"]
            pieces = [(ms, PRICED[name][0], None) for name, ms in sums.items() if ms]
            used |= {name for name, ms in sums.items() if ms}
            stacked_bar(axes, place, pieces, 0.055 * longest)
            axes.plot([row["low"], row["high"]], [place + 0.42] * 2, color=INK, linewidth=1.2)
        names = [f"{row['arch']}{', extrapolated' if row['extrapolated'] else ''}" for row in rows]
        bar_labels(
            axes, range(len(rows)), [f"{n}\n{r['ms']:.2f} ms" for n, r in zip(names, rows, strict=True)]
        )
        axes.set_xlabel("predicted ms; lines are 95 % intervals")
        legend(drawn, [Patch(color=PRICED[name][0], label=name) for name in PRICED if name in used], WIDTH_PX)
    return drawn


def _draw_roofline(axes: Axes, traced: Sequence[tuple[str, Attribution]]) -> None:
    """Draw 10^9 MACs a second against MACs a byte for every operator, and the limits of the device."""
    handles = []
    for (name, item), shape in zip(traced, "os^DvP" * len(traced), strict=False):
        shown = [each for each in item.operators if each.macs and each.data_bytes and each.ms > 0]
        if shown:
            axes.scatter(
                [(each.macs or 0) / (each.data_bytes or 1) for each in shown],
                [1e-6 * (each.macs or 0) / each.ms for each in shown],
                s=18,
                marker=shape,
                alpha=0.75,
                linewidths=0,
                color=[GROUPS[group_of(each.kind, each.part)] for each in shown],
            )
        handles.append(marker(name, MUTED, shape))
    roofs = [item.roof for _, item in traced if item.roof]
    roof = Roof(
        statistics.median(each.gmacs_s for each in roofs), statistics.median(each.gbytes_s for each in roofs)
    )
    intensity = np.geomspace(0.05, 200, 200)
    axes.plot(intensity, np.minimum(roof.gmacs_s, roof.gbytes_s * intensity), color=INK, linewidth=1.2)
    label = f"reached: {roof.gmacs_s:.1f} GMAC/s, {roof.gbytes_s:.1f} GB/s"
    handles.append(Line2D([], [], color=INK, label=label))
    axes.set(xscale="log", yscale="log", xlabel="MACs a byte", ylabel="GMAC/s")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    axes.grid(which="major")
    axes.legend(handles=handles, loc="lower right")


LABEL_GAP_PT = 13
"""Distance of a label from the one below it, in points."""


def pareto_figure(rows: Sequence[Mapping[str, Any]], device: str, data: str, simulated: bool) -> Figure:
    """Draw accuracy against latency of compared networks."""
    shown = sorted((row for row in rows if row["pareto"] is not None), key=lambda row: row["ms"])
    best = [row for row in shown if row["pareto"]]
    with figure(WIDTH_PX, 560) as drawn:
        panel = drawn.add_subplot()
        front_ms, front_percent = [row["ms"] for row in best], [_accuracy(row)[0] for row in best]
        look: dict[str, Any] = {"color": MUTED, "linewidth": 1, "linestyle": (0, (4, 3))}
        panel.step(front_ms, front_percent, where="post", **look)
        for row in shown:
            percent, ends, shape = _accuracy(row)
            look = {"color": BLUE if row["pareto"] else ORANGE, "elinewidth": 1, "markersize": 6}
            interval = [(row["ci_low"], row["ci_high"])]
            errorbars(panel, [row["ms"]], [percent], interval, [ends], fmt=shape, **look)
        panel.margins(x=0.12, y=0.15)
        mark = " (SIMULATED)" if simulated else ""
        panel.set(xlabel=f"ms, {device}{mark}", ylabel=f"top-1, %, {data}")
        panel.grid()
        panel.tick_params(length=0)
        drawn.canvas.draw()
        _label_points(panel, shown)
        origins = {"o": "file as exported", "s": "PyTorch, the file does not run here"}
        used = {_accuracy(row)[2] for row in shown}
        handles = [
            marker(f"{name}, none better and faster", BLUE, shape)
            for shape, name in origins.items()
            if shape in used
        ]
        if len(best) < len(shown):
            handles.append(marker("another is better and faster", ORANGE))
        legend(drawn, handles, WIDTH_PX)
    return drawn


def _accuracy(row: Mapping[str, Any]) -> tuple[float, tuple[float, float], str]:
    """Return top-1 in percent, the ends of its interval, and the marker that says where it is from."""
    prefix, shape = ("", "o") if row["top1"] is not None else ("pytorch_", "s")
    percent, low, high = (100 * row[f"{prefix}top1{end}"] for end in ("", "_low", "_high"))
    return percent, (low, high), shape


def _label_points(panel: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write names next to points, higher where another label would overlap."""
    boxes: list[tuple[float, float, float]] = []
    for row in rows:
        point = (row["ms"], _accuracy(row)[0])
        x, y = panel.transData.transform(point) * 72 / panel.figure.dpi
        name = _short_name(row)
        right, up = x + 6.5 * len(name), 6.0
        while any(
            abs(y + up - other) < LABEL_GAP_PT and x < end and left < right for left, end, other in boxes
        ):
            up += LABEL_GAP_PT / 2
        boxes.append((x, right, y + up))
        panel.annotate(name, point, xytext=(7, up), textcoords="offset points", fontsize=10.5)


def _short_name(row: Mapping[str, Any]) -> str:
    """Return a network's name without folders and timm's prefix."""
    network, _, weights = str(row["model"]).removeprefix("timm:").partition(":")
    return " ".join(Path(part).stem if "/" in part else part for part in (network, weights) if part)


COLOURS: Mapping[str, str] = {"conv": BLUE, "transformer": ORANGE, "hybrid": GREEN, "mlp": PURPLE}
NAMES: Mapping[str, str] = {
    "conv": "convolutions",
    "transformer": "transformer",
    "hybrid": "both in turn",
    "mlp": "MLPs",
}

SUITE_LABEL_PX = 18.5
"""Smallest distance of two labels; more than fit into `SUITE_PX` make the picture higher."""

SUITE_PX, AXIS_PX = 640, 544
"""Height of a suite's picture and of its axis, if the labels fit."""


def suite_figure(
    rows: Sequence[Mapping[str, Any]], device: str, published_on: Sequence[str], simulated: bool
) -> Figure:
    """Draw measured next to published latencies, of rows as a suite's JSON has them."""
    rows = [row for row in rows if row["ms"] is not None]
    measured = {row["row"]: row["ms"] for row in rows}
    published = {row["row"]: ms for row in rows if (ms := row["published_ms"])}
    every = [*measured.values(), *published.values()]
    low, high = min(every) / 1.35, max(every) * 1.35
    axis_px: float = max(AXIS_PX, SUITE_LABEL_PX * (len(rows) + 1))
    with figure(WIDTH_PX, round(axis_px + SUITE_PX - AXIS_PX)) as drawn:
        panel = drawn.add_subplot()
        panel.set(yscale="log", ylim=(low, high), xlim=(-0.62, 1.62))
        labels = [
            _label_places(values, low, high, SUITE_LABEL_PX / axis_px) for values in (measured, published)
        ]
        for row in rows:
            _draw_suite_row(panel, row, *labels)
        mark = " (SIMULATED)" if simulated else ""
        heads = (f"measured: {device}{mark}", f"published: {', '.join(published_on)}")
        for x, head in enumerate(heads):
            panel.text(x, 1.01, head, transform=panel.get_xaxis_transform(), ha="center")
        panel.set_xticks([])
        panel.yaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_formatter("{x:g}")
        panel.set_ylabel("ms, logarithmic")
        panel.grid(axis="y", which="both")
        panel.tick_params(which="both", length=0)
        kinds = [kind for kind in NAMES if any(row["kind"] == kind for row in rows)]
        legend(drawn, [marker(NAMES[kind], COLOURS[kind], line="-") for kind in kinds], WIDTH_PX)
    return drawn


def _draw_suite_row(
    panel: Axes, row: Mapping[str, Any], left: Mapping[str, float], right: Mapping[str, float]
) -> None:
    name, ms, published = row["row"], row["ms"], row["published_ms"]
    colour = COLOURS[row["kind"]]

    def label(x: float, y: float, label_y: float, text: str, sign: int) -> None:
        panel.plot([x + sign * 0.015, x + sign * 0.055], [y, label_y], color=MUTED, linewidth=0.6)
        side = "right" if sign < 0 else "left"
        panel.text(x + sign * 0.065, label_y, text, ha=side, va="center", fontsize=10.5)

    panel.plot([0, 0], [row["ci_low"], row["ci_high"]], color=colour, linewidth=3, alpha=0.4)
    panel.plot([0], [ms], "o", color=colour, markersize=5)
    label(0, ms, left[name], f"{name}  {ms:.1f}", -1)
    if published is not None:
        panel.plot([0, 1], [ms, published], color=colour, linewidth=1.2, alpha=0.8)
        panel.plot([1], [published], "o", color=colour, markersize=5)
        label(1, published, right[name], f"{published:.1f}  {name}", 1)


def _label_places(values: Mapping[str, float], low: float, high: float, gap: float) -> dict[str, float]:
    """Return the latencies at which labels stand, no two closer than `gap` of the axis, within it."""
    scale = math.log(high / low)
    places = separate([math.log(value / low) / scale for value in values.values()], gap)
    below = np.argsort(np.argsort(places))
    inside = np.clip(places, gap * (below + 0.5), 1 - gap * (len(places) - below - 0.5))
    return {name: low * math.exp(place * scale) for name, place in zip(values, inside, strict=True)}


PANEL_PX, TITLE_PX = 210, 40

_WARM = {"fair": ORANGE, "serious": RED, "critical": RED}
_HEAT_LINES = (("celsius", "°C"), ("headroom", "thermal headroom, 1 = severe"))


def sustained_figure(points: Sequence[SustainedPoint], slowdown: Slowdown, title: str) -> Figure:
    """Draw latency, heat and clock over time, as far as they are known."""
    heat = [(name, label) for name, label in _HEAT_LINES if _is_known(points, name)][:1]
    clock = _is_known(points, "mhz") or _is_known(points, "cap_mhz")
    panels = 1 + len(heat) + clock
    with figure(WIDTH_PX, TITLE_PX + PANEL_PX * panels) as drawn:
        axes = list(drawn.subplots(panels, 1, sharex=True, squeeze=False)[:, 0])
        drawn.suptitle(title, fontsize=12, x=0.01, ha="left")
        _draw_latency(axes[0], points, slowdown)
        for panel, (name, label) in zip(axes[1:], heat, strict=False):
            _draw_over_time(panel, points, name, ORANGE, label)
            panel.set_ylabel(label)
        if clock:
            _draw_over_time(axes[-1], points, "cap_mhz", MUTED, "at most")
            _draw_over_time(axes[-1], points, "mhz", GREEN, "clock")
            axes[-1].set_ylabel("MHz, fastest core")
            axes[-1].legend(loc="lower left")
        for panel in axes:
            panel.grid(axis="y")
            panel.tick_params(length=0)
            for point in points:
                if colour := _WARM.get(point.thermal_state or ""):
                    span = (point.start_s / 60, point.end_s / 60)
                    panel.axvspan(*span, color=colour, alpha=0.12, linewidth=0)
        axes[-1].set_xlabel(f"minutes; {_shading_note(points)}")
    return drawn


def _draw_latency(panel: Axes, points: Sequence[SustainedPoint], slowdown: Slowdown) -> None:
    for _, part in groupby(points, key=lambda point: point.segment):
        chunks = list(part)
        low, high = ([getattr(point, name) for point in chunks] for name in ("p50_ms", "p90_ms"))
        minutes = [_minute(point) for point in chunks]
        panel.fill_between(minutes, low, high, color=BLUE, alpha=0.25, linewidth=0, label="to p90")
    _draw_over_time(panel, points, "p50_ms", BLUE, "p50 of each chunk")
    panel.axhline(slowdown.first_ms, color=MUTED, linewidth=0.8, linestyle=":")
    if slowdown.since_s is not None:
        panel.axvline(slowdown.since_s / 60, color=RED, linewidth=0.8)
        place = (slowdown.since_s / 60, 1)
        panel.annotate(f" {100 * slowdown.rise:+.0f} %", place, xycoords=("data", "axes fraction"), va="top")
    panel.set(ylim=(0, 1.1 * max(point.p90_ms for point in points)), ylabel="ms: p50, to p90")


def _draw_over_time(
    panel: Axes, points: Sequence[SustainedPoint], name: str, colour: str, label: str
) -> None:
    """Draw one line for each segment: the device rested in between."""
    for segment, part in groupby(points, key=lambda point: point.segment):
        known = [(_minute(point), value) for point in part if (value := getattr(point, name)) is not None]
        if known:
            shown = label if segment == points[0].segment else f"_{label}"
            panel.plot(*zip(*known, strict=True), color=colour, linewidth=1.4, label=shown)


def _shading_note(points: Sequence[SustainedPoint]) -> str:
    states = [state for state in _WARM if any(point.thermal_state == state for point in points)]
    if states:
        return f"shaded: thermal state {', '.join(states)}"
    known = any(point.thermal_state for point in points)
    return "thermal state nominal throughout" if known else "the device reports no thermal state"


def _is_known(points: Sequence[SustainedPoint], name: str) -> bool:
    return any(getattr(point, name) is not None for point in points)


def _minute(point: SustainedPoint) -> float:
    return (point.start_s + point.end_s) / 120
