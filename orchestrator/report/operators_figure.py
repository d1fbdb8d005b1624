"""What traced networks spend inside attention (EfficientViT's figure 2), operators against the machine's roof."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from luts.format.atomic_file import storage_error
from luts.format.errors import UsageError
from orchestrator.breakdown.attribution import Attribution
from orchestrator.breakdown.document import NetworkBreakdown
from orchestrator.breakdown.roofline import Operator, Roof
from orchestrator.export.lower.kinds import TITLES
from orchestrator.report.breakdown_figure import check_suffix
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
WIDTH_PX, BAR_PX, FRAME_PX, ROOF_PX = 920, 36, 170, 380
_LABEL_SHARE = 4.0
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
    bars_px = FRAME_PX + BAR_PX * len(traced)
    with figure(WIDTH_PX, bars_px + ROOF_PX) as drawn:
        bars, roof = drawn.subplots(2, 1, height_ratios=[bars_px - 70, ROOF_PX])
        used = _bars(bars, traced)
        bars.set_xlabel(f"% of the latency without the tracer; {title}")
        _roof(roof, traced)
        legend(
            drawn, [Patch(color=GROUPS[group], label=group) for group in GROUPS if group in used], WIDTH_PX
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
            if share > _LABEL_SHARE:
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
