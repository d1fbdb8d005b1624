"""The picture of a comparison: top-1 against milliseconds, with intervals, and the line that nothing lies above."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from orchestrator.report.draw import BLUE, MUTED, ORANGE, figure, legend, save_picture

WIDTH_PX, HEIGHT_PX = 900, 560
LABEL_GAP_PT = 13
"""Distance of a label from the one below it, in points."""


def save(path: Path, rows: Sequence[Mapping[str, Any]], device: str, data: str, simulated: bool) -> None:
    """Draw rows that have both accuracy and latency to a .png or .svg file; `OSError` where it can't be written."""
    shown = sorted((row for row in rows if row["pareto"] is not None), key=lambda row: row["ms"])
    with figure(WIDTH_PX, HEIGHT_PX) as drawn:
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
        legend(drawn, handles if len(best) < len(shown) else handles[:-1], WIDTH_PX)
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
