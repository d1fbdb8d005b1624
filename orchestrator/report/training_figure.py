"""Loss and accuracy as training went (AutoViT's figure 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from orchestrator.report.draw import BLUE, GREEN, ORANGE, PINK, RED, SKY, SMALL_BELOW_PX, figure, legend
from search.supernet.train.logs import LogRow

COLOURS = (BLUE, ORANGE, GREEN, PINK, RED, SKY)


def training_figure(curves: Mapping[str, Sequence[LogRow]], width_px: int) -> Figure:
    """Two panels over steps, a line for each training; one below the other where there is no room for both."""
    small = width_px < SMALL_BELOW_PX
    with figure(width_px, 520 if small else 300) as drawn:
        panels = drawn.subplots(2, 1) if small else drawn.subplots(1, 2)
        for number, rows in enumerate(curves.values()):
            colour, steps = COLOURS[number % len(COLOURS)], [row.step for row in rows]
            marker = "o" if len(rows) < 3 else None
            panels[0].plot(steps, [row.loss for row in rows], color=colour, marker=marker)
            panels[1].plot(steps, [100 * row.accuracy for row in rows], color=colour, marker=marker)
        for panel, what in zip(panels, ("loss", "accuracy, %"), strict=True):
            panel.set(xlabel="step", ylabel=what)
            panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            panel.grid(axis="y")
        if len(curves) > 1:
            handles = [
                Line2D([], [], color=COLOURS[number % len(COLOURS)], label=name)
                for number, name in enumerate(curves)
            ]
            legend(drawn, handles, width_px)
    return drawn
