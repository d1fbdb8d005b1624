"""Pictures of a LUT: its entries, its predictions, how quiet the device was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from luts.format.schema import Entry
from orchestrator.report.draw import (
    BLUE,
    GREEN,
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
from orchestrator.report.numbers import SERIES_NAMES, AaRow, Series

ENTRIES_SHOWN = 24
"""As many rows as are taken in at a glance; the table has the rest."""

PRIOR_ALPHA = 0.35
BAND = 0.05
"""Half-width of the band around perfect prediction, relative."""

_SERIES_LOOK = dict(zip(SERIES_NAMES, ((BLUE, "o"), (ORANGE, "s"), (GREEN, "D")), strict=True))


def entries_figure(entries: Sequence[Entry], width_px: int) -> Figure:
    """Bars of the dearest entries with their intervals; a diamond where a removal tells the cost too."""
    shown = list(entries)[:ENTRIES_SHOWN]
    small = width_px < SMALL_BELOW_PX
    colours = kind_colours(entry.kind for entry in shown)
    with figure(width_px, 96 + (34 if small else 23) * len(shown)) as drawn:
        axes = drawn.add_subplot()
        for row, entry in enumerate(shown):
            colour, alpha = colours[entry.kind], PRIOR_ALPHA if entry.method == "prior" else 1.0
            axes.barh(row, entry.ms, height=0.44 if small else 0.62, color=colour, alpha=alpha)
            axes.plot([entry.ci_low, entry.ci_high], [row, row], color=INK, linewidth=1.3)
            if (removal_ms := _told_by_removal(entry)) is not None:
                axes.plot(removal_ms, row, "D", markersize=5.5, color=PAPER, markeredgecolor=INK)
        row_labels(axes, [entry.key for entry in shown], small)
        axes.set_xlabel("ms per call")
        axes.grid(axis="x")
        told = [ms for ms in map(_told_by_removal, shown) if ms is not None]
        axes.set_xlim(left=min([0.0, *told]) * 1.05)
        kinds = dict.fromkeys(entry.kind for entry in shown)
        handles: list[Any] = [Patch(color=colours[kind], label=kind) for kind in kinds]
        if any(entry.method == "prior" for entry in shown):
            handles.append(Patch(color=MUTED, alpha=PRIOR_ALPHA, label="pale: not measured, from the prior"))
        handles.append(Line2D([], [], color=INK, linewidth=1.3, label="95 % interval"))
        if told:
            look: dict[str, Any] = {
                "marker": "D",
                "linestyle": "",
                "markersize": 5.5,
                "color": PAPER,
                "markeredgecolor": INK,
            }
            handles.append(Line2D([], [], label="by removal", **look))
        legend(drawn, handles, width_px)
    return drawn


def _told_by_removal(entry: Entry) -> float | None:
    return None if entry.migrated_operations else entry.removal_ms


def row_labels(axes: Any, labels: Sequence[str], small: bool) -> None:
    """Block keys of horizontal bars 0, 1, …, downwards: at their left, or above them where room is scarce."""
    axes.set_ylim(len(labels) - 0.4, -0.8 if small else -0.6)
    axes.tick_params(axis="y", length=0)
    if not small:
        axes.set_yticks(range(len(labels)), labels, family="DejaVu Sans Mono", fontsize=10.5, color=INK)
        return
    axes.set_yticks([])
    for row, label in enumerate(labels):
        axes.annotate(
            label,
            (0, row - 0.28),
            xycoords=("axes fraction", "data"),
            family="DejaVu Sans Mono",
            fontsize=9,
            va="bottom",
        )


def agreement_figure(series: Sequence[Series], width_px: int) -> Figure:
    """Predicted against measured with the diagonal, and the same networks' errors, with a band of 5 %."""
    small = width_px < SMALL_BELOW_PX
    with figure(width_px, 700 if small else 400) as drawn:
        both, errors = drawn.subplots(*((2, 1) if small else (1, 2)))
        low, high = _span(series)
        both.fill_between(
            [low, high],
            [low * (1 - BAND), high * (1 - BAND)],
            [low * (1 + BAND), high * (1 + BAND)],
            color=GRID,
            alpha=0.55,
            linewidth=0,
        )
        both.plot([low, high], [low, high], color=MUTED, linewidth=1)
        errors.axhspan(-100 * BAND, 100 * BAND, color=GRID, alpha=0.55, linewidth=0)
        errors.axhline(0, color=MUTED, linewidth=1)
        for one in series:
            colour, marker = _SERIES_LOOK[one.name]
            measured = [pair.measured_ms for pair in one.pairs]
            predicted = [pair.predicted_ms for pair in one.pairs]
            look = {"fmt": marker, "color": colour, "markersize": 5, "ecolor": (colour, 0.4), "elinewidth": 1}
            both.errorbar(
                measured,
                predicted,
                xerr=_arms(measured, [pair.measured for pair in one.pairs]),
                yerr=_arms(predicted, [pair.predicted for pair in one.pairs]),
                **look,
            )
            errors.errorbar(
                measured,
                [100 * pair.error for pair in one.pairs],
                yerr=_arms(
                    [100 * pair.error for pair in one.pairs],
                    [
                        tuple(100 * (end / pair.measured_ms - 1) for end in pair.predicted)
                        for pair in one.pairs
                    ],
                ),
                **look,
            )
        both.set(xlim=(low, high), ylim=(low, high), xlabel="measured ms", ylabel="predicted ms")
        errors.set(xlim=(low, high), xlabel="measured ms", ylabel="error of the prediction, %")
        errors.grid(axis="y")
        handles: list[Any] = [
            Line2D(
                [],
                [],
                linestyle="",
                color=_SERIES_LOOK[one.name][0],
                marker=_SERIES_LOOK[one.name][1],
                label=one.name,
            )
            for one in series
        ]
        legend(drawn, [*handles, Patch(color=GRID, label="±5 %")], width_px)
    return drawn


def _span(series: Sequence[Series]) -> tuple[float, float]:
    """Both axes' limits. Long intervals of predictions may leave the first picture; the second holds them."""
    ends = [end for one in series for pair in one.pairs for end in (*pair.measured, pair.predicted_ms)]
    margin = 0.05 * (max(ends) - min(ends)) or 0.05 * max(ends)
    return max(min(ends) - margin, 0.0), max(ends) + margin


def _arms(centres: Sequence[float], ends: Sequence[tuple[float, ...]]) -> list[list[float]]:
    """Lengths of error bars below and above; never negative, whatever rounding left."""
    below = [max(centre - end[0], 0.0) for centre, end in zip(centres, ends, strict=True)]
    above = [max(end[1] - centre, 0.0) for centre, end in zip(centres, ends, strict=True)]
    return [below, above]


def quiet_figure(rows: Sequence[AaRow], noise_floor: float, width_px: int) -> Figure:
    """A/A differences in the order they were measured, the noise floor as a band."""
    with figure(width_px, 280) as drawn:
        axes = drawn.add_subplot()
        floor = 100 * noise_floor
        axes.axhspan(-floor, floor, color=GRID, alpha=0.7, linewidth=0, label=f"noise floor ±{floor:.2g} %")
        axes.axhline(0, color=MUTED, linewidth=1)
        for kept, colour, marker, label in (
            (True, BLUE, "o", "kept batch"),
            (False, RED, "X", "rejected batch, measured again"),
        ):
            places = [(place, row) for place, row in enumerate(rows) if row.kept is kept]
            if places:
                axes.errorbar(
                    [place for place, _ in places],
                    [100 * row.difference for _, row in places],
                    yerr=[196 * row.se for _, row in places],
                    fmt=marker,
                    color=colour,
                    markersize=5,
                    elinewidth=0.9,
                    label=label,
                )
        axes.set_xlabel("session, in order of time")
        axes.set_ylabel("difference of two loads, %")
        axes.grid(axis="y")
        legend(drawn, axes.get_legend_handles_labels()[0], width_px)
    return drawn
