"""Sections on a LUT: its entries, the accuracy of its predictions, and how quiet the device was."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from luts.build import estimates_of
from luts.estimate.ratios import AaDifference
from luts.estimate.statistics import mape, relative_errors, share_within
from luts.format.lut import Lut
from luts.format.schema import Entry
from orchestrator.measure.validate import LatencyComparison
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
    Section,
    errorbars,
    figure,
    kind_colours,
    legend,
    make_section,
    marker,
)
from orchestrator.report.inputs import ReportInputs

ENTRIES_SHOWN = 24
"""Rows of the figure; the table has the rest."""

PRIOR_ALPHA = 0.35
BAND = 0.05
"""Half-width of the band around perfect prediction, relative."""

_LOOK_BY_ORIGIN = {
    "held out of the LUT": (BLUE, "o"),
    "new random networks": (ORANGE, "s"),
    "found by the search": (GREEN, "D"),
}
"""Colour and marker of networks with a prediction and a measurement, by their origin."""


def entries_figure(entries: Sequence[Entry], width_px: int) -> Figure:
    """Draw bars of the costliest entries with their intervals, and a diamond for the cost by removal."""
    shown = list(entries)[:ENTRIES_SHOWN]
    small = width_px < SMALL_BELOW_PX
    colours = kind_colours(entry.kind for entry in shown)
    diamond: dict[str, Any] = {"markersize": 5.5, "color": PAPER, "markeredgecolor": INK}
    by_removal = [None if entry.migrated_operations else entry.removal_ms for entry in shown]
    with figure(width_px, 96 + (34 if small else 23) * len(shown)) as drawn:
        axes = drawn.add_subplot()
        for row, (entry, removal_ms) in enumerate(zip(shown, by_removal, strict=True)):
            alpha = PRIOR_ALPHA if entry.method == "prior" else 1.0
            axes.barh(row, entry.ms, height=0.44 if small else 0.62, color=colours[entry.kind], alpha=alpha)
            axes.plot([entry.ci_low, entry.ci_high], [row, row], color=INK, linewidth=1.3)
            if removal_ms is not None:
                axes.plot(removal_ms, row, "D", **diamond)
        row_labels(axes, [entry.key for entry in shown], small)
        axes.set_xlabel("ms per call")
        axes.grid(axis="x")
        removals = [ms for ms in by_removal if ms is not None]
        axes.set_xlim(left=min([0.0, *removals]) * 1.05)
        kinds = dict.fromkeys(entry.kind for entry in shown)
        handles: list[Any] = [Patch(color=colours[kind], label=kind) for kind in kinds]
        if any(entry.method == "prior" for entry in shown):
            handles.append(Patch(color=MUTED, alpha=PRIOR_ALPHA, label="pale: not measured, from the prior"))
        handles.append(Line2D([], [], color=INK, linewidth=1.3, label="95 % interval"))
        if removals:
            handles.append(Line2D([], [], marker="D", linestyle="", label="by removal", **diamond))
        legend(drawn, handles, width_px)
    return drawn


def row_labels(axes: Any, labels: Sequence[str], small: bool) -> None:
    """Label horizontal bars 0, 1, … from the top with block keys.

    At their left, or above them on a small screen.
    """
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


def predicted_and_measured(inputs: ReportInputs) -> dict[str, Sequence[LatencyComparison]]:
    """Return the networks that were predicted and measured by their origin; empty origins are left out."""
    groups = (
        _held_out(inputs.lut.lut) if inputs.lut else (),
        inputs.validation.comparisons if inputs.validation else (),
        inputs.measured.models if inputs.measured else (),
    )
    return {origin: rows for origin, rows in zip(_LOOK_BY_ORIGIN, groups, strict=True) if rows}


def _held_out(lut: Lut) -> list[LatencyComparison]:
    rows = []
    for model in lut.models:
        if model.split == "heldout":
            predicted = lut.latency_model.predict(model.blocks, model.boundary_bytes)
            row = LatencyComparison.model_construct(
                arch=model.model_id,
                predicted_ms=predicted.ms,
                predicted_low=predicted.low,
                predicted_high=predicted.high,
                measured_ms=model.ms,
                measured_low=model.ci_low,
                measured_high=model.ci_high,
            )
            rows.append(row)
    return rows


def agreement_figure(groups: Mapping[str, Sequence[LatencyComparison]], width_px: int) -> Figure:
    """Draw predicted against measured latency, and the errors of the predictions, each with a band of 5 %."""
    small = width_px < SMALL_BELOW_PX
    with figure(width_px, 700 if small else 400) as drawn:
        both, errors = drawn.subplots(*((2, 1) if small else (1, 2)))
        # long intervals of predictions may leave the first panel; the second shows them
        ends = [
            end
            for rows in groups.values()
            for row in rows
            for end in (row.measured_low, row.measured_high, row.predicted_ms)
        ]
        margin = 0.05 * (max(ends) - min(ends)) or 0.05 * max(ends)
        limits = np.array([max(min(ends) - margin, 0.0), max(ends) + margin])
        look = {"color": GRID, "alpha": 0.55, "linewidth": 0}
        both.fill_between(limits, limits * (1 - BAND), limits * (1 + BAND), **look)
        both.plot(limits, limits, color=MUTED, linewidth=1)
        errors.axhspan(-100 * BAND, 100 * BAND, **look)
        errors.axhline(0, color=MUTED, linewidth=1)
        for origin, rows in groups.items():
            colour, shape = _LOOK_BY_ORIGIN[origin]
            points: dict[str, Any] = {
                "fmt": shape,
                "color": colour,
                "markersize": 5,
                "ecolor": (colour, 0.4),
                "elinewidth": 1,
            }
            measured = [row.measured_ms for row in rows]
            predicted = [row.predicted_ms for row in rows]
            measured_ends = [(row.measured_low, row.measured_high) for row in rows]
            predicted_ends = [(row.predicted_low, row.predicted_high) for row in rows]
            errorbars(both, measured, predicted, measured_ends, predicted_ends, **points)
            percent = [100 * row.error for row in rows]
            percent_ends = [
                (100 * (low / ms - 1), 100 * (high / ms - 1))
                for ms, (low, high) in zip(measured, predicted_ends, strict=True)
            ]
            errorbars(errors, measured, percent, y_ends=percent_ends, **points)
        both.set(xlim=limits, ylim=limits, xlabel="measured ms", ylabel="predicted ms")
        errors.set(xlim=limits, xlabel="measured ms", ylabel="error of the prediction, %")
        errors.grid(axis="y")
        handles: list[Any] = [marker(origin, *_LOOK_BY_ORIGIN[origin]) for origin in groups]
        legend(drawn, [*handles, Patch(color=GRID, label="±5 %")], width_px)
    return drawn


def quiet_figure(
    rows: Sequence[AaDifference], kept_batches: Collection[int], noise_floor: float, width_px: int
) -> Figure:
    """Draw A/A differences in the order they were measured, and the noise floor as a band."""
    with figure(width_px, 280) as drawn:
        axes = drawn.add_subplot()
        floor = 100 * noise_floor
        axes.axhspan(-floor, floor, color=GRID, alpha=0.7, linewidth=0, label=f"noise floor ±{floor:.2g} %")
        axes.axhline(0, color=MUTED, linewidth=1)
        for kept, colour, shape, label in (
            (True, BLUE, "o", "kept batch"),
            (False, RED, "X", "rejected batch, measured again"),
        ):
            places = [place for place, row in enumerate(rows) if (row.batch in kept_batches) is kept]
            percent = [100 * float(np.expm1(rows[place].log_difference)) for place in places]
            arms = [196 * rows[place].se for place in places]
            if places:
                look: dict[str, Any] = {"color": colour, "markersize": 5, "elinewidth": 0.9, "label": label}
                axes.errorbar(places, percent, yerr=arms, fmt=shape, **look)
        axes.set(xlabel="segment, in order of time", ylabel="difference of two loads, %")
        axes.grid(axis="y")
        legend(drawn, axes.get_legend_handles_labels()[0], width_px)
    return drawn


def entries(inputs: ReportInputs) -> Section | None:
    """Return the section on the costliest blocks of the LUT."""
    if inputs.lut is None or not inputs.lut.lut.entries:
        return None
    rows = sorted(inputs.lut.lut.entries, key=lambda entry: (-entry.ms, entry.key))
    headers = ("block", "kind", "ms", "95 % low", "high", "by removal", "loads", "method", "identified")
    return make_section(
        "entries",
        "What each block costs",
        _entries_caption(rows),
        lambda width_px: entries_figure(rows, width_px),
        headers,
        [_entry_cells(row) for row in rows],
        (0, 1, 7, 8),
    )


def _entries_caption(rows: Sequence[Entry]) -> str:
    shown = min(len(rows), ENTRIES_SHOWN)
    removed = sum(row.removal_ms is not None for row in rows)
    sentences = [f"The {shown} costliest of {len(rows)} blocks: the latency that each adds to a network."]
    sentences.append(
        f"{removed} of all were also measured by removal, a small difference of two large latencies."
        if removed
        else "No block was measured by removal."
    )
    if migrated := sum(bool(row.migrated_operations) for row in rows):
        sentences.append(
            f"{migrated} removals moved operations of other blocks to another compute unit; they are not the cost "
            "of the block and were not fitted."
        )
    if sums := sum(row.identified == "sum" for row in rows):
        sentences.append(
            f"{sums} are known only as a sum with others, since no measured network has one without the other: how "
            "the sum is divided rests on MACs and traffic; predictions need only the sum."
        )
    if prior := sum(row.method == "prior" for row in rows):
        sentences.append(
            f"{prior} of all could not be measured: their cost is estimated from MACs and activation traffic."
        )
    return " ".join(sentences)


def _entry_cells(entry: Entry) -> tuple[str, ...]:
    removal = "–" if entry.removal_ms is None else f"{entry.removal_ms:.4f}"
    if entry.migrated_operations:
        removal += f" ({entry.migrated_operations} migrated)"
    milliseconds = (f"{value:.4f}" for value in (entry.ms, entry.ci_low, entry.ci_high))
    return (
        entry.key,
        entry.kind,
        *milliseconds,
        removal,
        str(entry.loads),
        entry.method,
        entry.identified or "–",
    )


def agreement(inputs: ReportInputs) -> Section | None:
    """Return the section on predictions and measurements of whole networks."""
    groups = predicted_and_measured(inputs)
    if not groups:
        return None
    sentences = [_errors_of(origin, rows) for origin, rows in groups.items()]
    if inputs.validation:
        sentences.append(
            f"The noise floor of the validation was {100 * inputs.validation.noise_floor:.2f} %; "
            f"{100 * inputs.validation.coverage:.0f} % of its measurements are inside their predicted intervals."
        )
    sentences.append(
        "Vertical lines are the predictions' intervals, horizontal ones those of the measurements."
    )
    cells = [
        (
            origin,
            f"{row.predicted_ms:.3f}",
            f"{row.predicted_low:.3f} – {row.predicted_high:.3f}",
            f"{row.measured_ms:.3f}",
            f"{row.measured_low:.3f} – {row.measured_high:.3f}",
            f"{100 * row.error:+.2f} %",
            row.arch,
        )
        for origin, rows in groups.items()
        for row in sorted(rows, key=lambda row: (row.measured_ms, row.arch))
    ]
    headers = ("network", "predicted ms", "interval", "measured ms", "interval", "error", "id or choice")
    return make_section(
        "agreement",
        "Predicted against measured",
        " ".join(sentences),
        lambda width_px: agreement_figure(groups, width_px),
        headers,
        cells,
        (0, 6),
    )


def _errors_of(origin: str, rows: Sequence[LatencyComparison]) -> str:
    latencies = [row.measured_ms for row in rows], [row.predicted_ms for row in rows]
    return (
        f"{origin[0].upper()}{origin[1:]} ({len(rows)}): mean error {100 * mape(*latencies):.2f} %, largest "
        f"{100 * float(np.abs(relative_errors(*latencies)).max()):.2f} %, "
        f"{100 * share_within(*latencies, 0.05):.0f} % of them within 5 %."
    )


def quiet(inputs: ReportInputs) -> Section | None:
    """Return the section on A/A differences, those of rejected batches included."""
    if inputs.lut is None:
        return None
    estimation, floor = estimates_of(inputs.lut.lut), inputs.lut.lut.meta.noise_floor
    rows = estimation.differences
    if not rows:
        return None
    kept = {segment.batch for segment in estimation.segments if segment.kept}
    rejected = len({row.batch for row in rows} - kept)
    caption = (
        "The same model file is loaded twice in every batch; a quiet device shows no difference. "
        f"Its spread, {100 * floor:.2f} %, is the noise floor: smaller differences between networks are unknown. "
        f"{rejected or 'No'} {'batch was' if rejected == 1 else 'batches were'} rejected."
    )
    cells = [
        (
            str(row.batch),
            str(row.segment),
            f"{100 * float(np.expm1(row.log_difference)):+.3f} %",
            f"{100 * row.se:.3f} %",
            str(row.rounds),
            "kept" if row.batch in kept else "rejected",
        )
        for row in rows
    ]
    headers = ("batch", "segment", "difference", "standard error", "rounds", "verdict")
    return make_section(
        "quiet",
        "How quiet the device was",
        caption,
        lambda width_px: quiet_figure(rows, kept, floor, width_px),
        headers,
        cells,
        (5,),
    )
