"""The picture of a latency breakdown: a stacked bar for each network and method, as in AutoViT's figure 4."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from luts.format.atomic_file import storage_error
from luts.format.errors import UsageError
from orchestrator.breakdown.attribution import METHOD_TITLES, Attribution
from orchestrator.breakdown.document import NetworkBreakdown
from orchestrator.export.lower.kinds import KINDS, TITLES, Kind
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

_COLOURS: dict[Kind, str] = {
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
WIDTH_PX, BAR_PX, FRAME_PX = 920, 34, 150
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
    with figure(WIDTH_PX, FRAME_PX + BAR_PX * len(rows) + 14 * len(networks)) as drawn:
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
        handles = [Patch(color=_COLOURS[kind], label=TITLES[kind]) for kind in KINDS if kind in used]
        handles.append(Patch(facecolor="white", edgecolor=MUTED, hatch=_HATCH, label=_UNEXPLAINED))
        legend(drawn, handles, WIDTH_PX)
    return drawn


def _bar(axes: mpl.axes.Axes, place: float, item: Attribution, longest: float) -> None:
    """Positive pieces from 0 to the right, negative ones to the left; the whole stands at the end."""
    right = left = 0.0
    pieces: list[tuple[Kind | None, float]] = [(kind, share.ms) for kind, share in item.shares.items()]
    pieces.append((None, item.unexplained_ms))
    for kind, ms in pieces:
        start = right if ms >= 0 else left
        style = (
            {"color": _COLOURS[kind]}
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
