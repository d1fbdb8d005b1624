"""Pictures of a search: what it saw, how it went, and where its winner's milliseconds go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from orchestrator.report.draw import (
    BLUE,
    GRID,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    RED,
    SMALL_BELOW_PX,
    figure,
    kind_colours,
    legend,
)
from orchestrator.report.lut_figures import row_labels
from orchestrator.report.numbers import GenerationSpread, Part, front
from orchestrator.winner.choice import MeasuredArch
from search.algorithms.record import Evaluated, SearchResult


def tradeoff_figure(
    search: SearchResult, winner: Evaluated, measured: MeasuredArch | None, width_px: int
) -> Figure:
    """Accuracy against predicted latency of every network evaluated; front, budget, winner and its measurement."""
    small = width_px < SMALL_BELOW_PX
    best = front(search.evaluated)
    with figure(width_px, 380 if small else 420) as drawn:
        axes = drawn.add_subplot()
        axes.scatter(
            [row.latency_ms for row in search.evaluated],
            [100 * row.accuracy for row in search.evaluated],
            s=18,
            color=MUTED,
            alpha=0.45,
            linewidth=0,
            label="evaluated",
        )
        axes.step(
            [row.latency_ms for row in best],
            [100 * row.accuracy for row in best],
            where="post",
            color=BLUE,
            marker="o",
            markersize=4.5,
            linewidth=1.6,
            label="best for its latency",
        )
        axes.axvline(
            search.budget.latency_ms,
            color=RED,
            linewidth=1.4,
            linestyle=(0, (5, 3)),
            label=f"budget {search.budget.latency_ms:.4g} ms",
        )
        accuracy = 100 * winner.accuracy
        axes.plot(
            winner.latency_ms,
            accuracy,
            "*",
            color=ORANGE,
            markeredgecolor=INK,
            markersize=17,
            label="winner, predicted",
            zorder=4,
        )
        if measured is not None:
            axes.errorbar(
                measured.measured_ms,
                accuracy,
                xerr=[
                    [measured.measured_ms - measured.measured_low],
                    [measured.measured_high - measured.measured_ms],
                ],
                fmt="D",
                color=INK,
                markerfacecolor=PAPER,
                markersize=6.5,
                capsize=3,
                label="winner, measured",
                zorder=5,
            )
        axes.set_xlabel("latency, ms")
        axes.set_ylabel("accuracy on held-out images, %")
        axes.grid()
        axes.margins(0.06)
        legend(drawn, axes.get_legend_handles_labels()[0], width_px)
    return drawn


def history_figure(rows: Sequence[GenerationSpread], width_px: int) -> Figure:
    """Best so far, median and middle half of the new networks, generation by generation."""
    with figure(width_px, 280) as drawn:
        axes = drawn.add_subplot()
        index = [row.index for row in rows]
        axes.fill_between(
            index,
            [100 * row.low_quartile for row in rows],
            [100 * row.high_quartile for row in rows],
            color=BLUE,
            alpha=0.18,
            linewidth=0,
            label="middle half of the new",
        )
        axes.plot(
            index, [100 * row.median for row in rows], color=BLUE, marker="o", markersize=4, label="median"
        )
        axes.step(
            index,
            [100 * row.best for row in rows],
            where="post",
            color=ORANGE,
            linewidth=2,
            marker="o",
            markersize=4,
            label="best so far",
        )
        axes.set_xlabel("generation")
        axes.set_ylabel("accuracy, %")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y")
        legend(drawn, axes.get_legend_handles_labels()[0], width_px)
    return drawn


def latency_figure(parts: Sequence[Part], measured: MeasuredArch | None, width_px: int) -> Figure:
    """The whole network as one bar of its parts in order of execution, and below it each part in its place."""
    small = width_px < SMALL_BELOW_PX
    colours = kind_colours(part.kind for part in parts)
    total_ms = parts[-1].start_ms + parts[-1].ms
    right_ms = 1.14 * max(total_ms, measured.measured_high if measured else 0.0)
    labels = [f"whole network, {total_ms:.3f} ms", *(part.key or part.kind for part in parts)]
    with figure(width_px, 104 + (33 if small else 21) * len(labels)) as drawn:
        axes = drawn.add_subplot()
        height = 0.44 if small else 0.72
        for row, part in enumerate(parts, start=1):
            look: dict[str, Any] = {"left": part.start_ms, "color": colours[part.kind], "linewidth": 0.8}
            axes.barh(0, part.ms, height=height, edgecolor=PAPER, **look)
            axes.barh(row, part.ms, height=height, edgecolor=colours[part.kind], **look)
            axes.annotate(
                f"{part.ms:.3f}",
                (part.start_ms + part.ms, row),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=10,
                color=MUTED,
                bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1},
            )
        if measured is not None:
            axes.axvspan(measured.measured_low, measured.measured_high, color=INK, alpha=0.12, linewidth=0)
            label = f"measured {measured.measured_ms:.3f} ms"
            axes.axvline(measured.measured_ms, color=INK, linewidth=1.3, label=label, zorder=0.9)
        row_labels(axes, labels, small)
        axes.axhline(0.5 if not small else 0.36, color=GRID, linewidth=1)
        axes.set_xlim(0, right_ms)
        axes.set_xlabel("ms from the start of the call")
        axes.grid(axis="x")
        kinds = dict.fromkeys(part.kind for part in parts)
        handles, _ = axes.get_legend_handles_labels()
        handles = [Patch(color=colours[kind], label=kind) for kind in kinds] + handles
        legend(drawn, handles, width_px)
    return drawn
