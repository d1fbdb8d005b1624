"""Sections on a search and its training: evaluated networks, the winner, and the course of both."""

from __future__ import annotations

import dataclasses
import itertools
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import BoxStyle, FancyBboxPatch, Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from luts.format.lut import Lut
from luts.format.schema import MIB
from orchestrator.plan.plan import with_classifier_prices
from orchestrator.report.draw import (
    BASE,
    BLUE,
    GRID,
    INK,
    MOVED,
    MUTED,
    ORANGE,
    PALETTE,
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
from orchestrator.report.lut_sections import row_labels
from orchestrator.winner.winner import MeasuredArch
from search.algorithms.pareto import pareto_front
from search.algorithms.record import Evaluated, SearchResult
from search.blocks import BlockSpec
from search.spaces import Arch
from search.supernet.train.logs import LogRow


def tradeoff_figure(
    search: SearchResult, winner: Evaluated, measured: MeasuredArch | None, width_px: int
) -> Figure:
    """Draw accuracy against predicted latency of all evaluated networks, with front, budget and winner."""
    best = pareto_front(search.evaluated, ("latency", "accuracy"))
    accuracy = 100 * winner.accuracy
    with figure(width_px, 380 if width_px < SMALL_BELOW_PX else 420) as drawn:
        axes = drawn.add_subplot()
        everything = [(row.latency_ms, 100 * row.accuracy) for row in search.evaluated]
        look: dict[str, Any] = {"s": 18, "color": MUTED, "alpha": 0.45, "linewidth": 0}
        axes.scatter(*zip(*everything, strict=True), label="evaluated", **look)
        look = {"color": BLUE, "marker": "o", "markersize": 4.5, "linewidth": 1.6}
        front_line = [(row.latency_ms, 100 * row.accuracy) for row in best]
        axes.step(*zip(*front_line, strict=True), where="post", label="best for its latency", **look)
        budget_ms = search.constraints.latency_ms
        look = {"color": RED, "linewidth": 1.4, "linestyle": (0, (5, 3))}
        axes.axvline(budget_ms, label=f"budget {budget_ms:.4g} ms", **look)
        look = {"color": ORANGE, "markeredgecolor": INK, "markersize": 17, "zorder": 4}
        axes.plot(winner.latency_ms, accuracy, "*", label="winner, predicted", **look)
        if measured is not None:
            look = {"color": INK, "markerfacecolor": PAPER, "markersize": 6.5, "capsize": 3, "zorder": 5}
            interval = [(measured.measured_low, measured.measured_high)]
            look |= {"fmt": "D", "label": "winner, measured"}
            errorbars(axes, [measured.measured_ms], [accuracy], interval, **look)
        axes.set(xlabel="latency, ms", ylabel=f"{search.value_name} on held-out images, %")
        axes.grid()
        axes.margins(0.06)
        legend(drawn, axes.get_legend_handles_labels()[0], width_px)
    return drawn


def new_accuracies(search: SearchResult) -> list[tuple[float, ...]]:
    """Return the lower quartile, median and upper quartile of each generation's new networks."""
    rows = []
    for generation in search.history:
        new = [row.accuracy for row in search.evaluated if row.generation == generation.index]
        rows.append(tuple(map(float, np.quantile(new or [generation.mean], (0.25, 0.5, 0.75)))))
    return rows


def history_figure(search: SearchResult, width_px: int) -> Figure:
    """Draw best so far, and median and quartiles of the new networks, by generation."""
    index = [generation.index for generation in search.history]
    low, median, high = 100 * np.array(new_accuracies(search)).T
    with figure(width_px, 280) as drawn:
        axes = drawn.add_subplot()
        band: dict[str, Any] = {"color": BLUE, "alpha": 0.18, "linewidth": 0}
        axes.fill_between(index, low, high, label="middle half of the new", **band)
        look: dict[str, Any] = {"marker": "o", "markersize": 4}
        axes.plot(index, median, color=BLUE, label="median", **look)
        best = [100 * generation.best for generation in search.history]
        axes.step(index, best, where="post", color=ORANGE, linewidth=2, label="best so far", **look)
        axes.set(xlabel="generation", ylabel=f"{search.value_name}, %")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y")
        legend(drawn, axes.get_legend_handles_labels()[0], width_px)
    return drawn


@dataclass(frozen=True)
class LatencyPart:
    """A part of a network's predicted latency; `key` is "" for base and data moved."""

    kind: str
    key: str
    ms: float
    start_ms: float


def latency_parts(lut: Lut, arch: Arch) -> list[LatencyPart]:
    """Return the parts of a predicted latency: base, blocks in order of execution, data moved.

    Raises:
        UsageError: the LUT lacks a block.
    """
    model, blocks = lut.latency_model, arch.blocks()
    model.predict([block.key for block in blocks], 0)
    costs = [(BASE, "", model.base_ms)]
    costs += [(block.kind, block.key, model.costs[block.key].ms) for block in blocks]
    costs.append((MOVED, "", model.transfer_ms_per_mib * arch.boundary_bytes() / MIB))
    parts, start_ms = [], 0.0
    for kind, key, ms in costs:
        parts.append(LatencyPart(kind, key, ms, start_ms))
        start_ms += ms
    return parts


def latency_figure(parts: Sequence[LatencyPart], measured: MeasuredArch | None, width_px: int) -> Figure:
    """Draw the whole network as one bar of its parts in order of execution, and below it each part in its place."""
    small = width_px < SMALL_BELOW_PX
    colours = kind_colours(part.kind for part in parts)
    total_ms = parts[-1].start_ms + parts[-1].ms
    labels = [f"whole network, {total_ms:.3f} ms", *(part.key or part.kind for part in parts)]
    text: dict[str, Any] = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "fontsize": 10}
    text |= {"color": MUTED, "bbox": {"facecolor": PAPER, "edgecolor": "none", "pad": 1}}
    with figure(width_px, 104 + (33 if small else 21) * len(labels)) as drawn:
        axes = drawn.add_subplot()
        for row, part in enumerate(parts, start=1):
            look: dict[str, Any] = {"left": part.start_ms, "color": colours[part.kind], "linewidth": 0.8}
            look["height"] = 0.44 if small else 0.72
            axes.barh(0, part.ms, edgecolor=PAPER, **look)
            axes.barh(row, part.ms, edgecolor=colours[part.kind], **look)
            axes.annotate(f"{part.ms:.3f}", (part.start_ms + part.ms, row), **text)
        if measured is not None:
            axes.axvspan(measured.measured_low, measured.measured_high, color=INK, alpha=0.12, linewidth=0)
            label = f"measured {measured.measured_ms:.3f} ms"
            axes.axvline(measured.measured_ms, color=INK, linewidth=1.3, label=label, zorder=0.9)
        row_labels(axes, labels, small)
        axes.axhline(0.36 if small else 0.5, color=GRID, linewidth=1)
        axes.set_xlim(0, 1.14 * max(total_ms, measured.measured_high if measured else 0.0))
        axes.set_xlabel("ms from the start of the call")
        axes.grid(axis="x")
        handles, _ = axes.get_legend_handles_labels()
        kinds = dict.fromkeys(part.kind for part in parts)
        legend(drawn, [*(Patch(color=colours[kind], label=kind) for kind in kinds), *handles], width_px)
    return drawn


BOX_PX, BOX_HEIGHT_PX = 126, 113
TEXT_LEFT_PX, SMALL_CHARACTER_PX = 12, 5.5
"""Left edge of a box's text, and the mean width of a character of its small lines, of which three fit."""

GAP_PX, ROW_GAP_PX = 20, 30
MARGIN_PX = 6


@dataclass(frozen=True)
class RepeatedBlock:
    """Equal blocks in a row, shown as one box."""

    block: BlockSpec
    times: int

    @property
    def title(self) -> str:
        """Kind, and number of repetitions."""
        return self.block.kind + (f" × {self.times}" if self.times > 1 else "")

    @property
    def channels(self) -> str:
        """Width before and after."""
        return f"{_change(self.block.in_channels, self.block.out_channels)} ch"

    @property
    def sides(self) -> str:
        """Side of the map before and after, in pixels."""
        return f"{_change(self.block.resolution, self.block.out_resolution)} px"

    @property
    def details(self) -> str:
        """Other fields of its key."""
        known = {"in", "out", "c", "classes", "patch"}
        named = [
            (field.metadata["key"], getattr(self.block, field.name))
            for field in dataclasses.fields(self.block)
            if "key" in field.metadata
        ]
        return ", ".join(f"{name}\N{NO-BREAK SPACE}{value:g}" for name, value in named if name not in known)


def repeated_blocks(arch: Arch) -> tuple[RepeatedBlock, ...]:
    """Return the blocks of a network with equal neighbours combined."""
    groups = itertools.groupby(arch.blocks())
    return tuple(RepeatedBlock(block, len(list(same))) for block, same in groups)


def architecture_figure(arch: Arch, width_px: int) -> Figure:
    """Draw the blocks as boxes from left to right, row after row."""
    shown = repeated_blocks(arch)
    columns = max(2, (width_px + GAP_PX - 2 * MARGIN_PX) // (BOX_PX + GAP_PX))
    rows = -(-len(shown) // columns)
    height_px = rows * BOX_HEIGHT_PX + (rows - 1) * ROW_GAP_PX + 2 * MARGIN_PX
    pitch_px = (width_px - 2 * MARGIN_PX + GAP_PX) / columns
    colours = kind_colours(step.block.kind for step in shown)
    places = [
        (
            MARGIN_PX + (index % columns) * pitch_px,
            MARGIN_PX + (index // columns) * (BOX_HEIGHT_PX + ROW_GAP_PX),
        )
        for index in range(len(shown))
    ]
    with figure(width_px, height_px) as drawn:
        drawn.set_layout_engine("none")
        axes = drawn.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, width_px)
        axes.set_ylim(height_px, 0)
        for step, place in zip(shown, places, strict=True):
            _box(axes, step, place, pitch_px - GAP_PX, colours[step.block.kind])
        for before, after in itertools.pairwise(places):
            _arrow(axes, before, after, pitch_px - GAP_PX)
    return drawn


def _box(axes: Axes, step: RepeatedBlock, place: tuple[float, float], width_px: float, colour: str) -> None:
    left, top = place
    rounded = BoxStyle.Round(pad=0, rounding_size=5)
    axes.add_patch(FancyBboxPatch(place, width_px, BOX_HEIGHT_PX, rounded, facecolor=PAPER, edgecolor=colour))
    axes.add_patch(Rectangle((left, top + 5), 5, BOX_HEIGHT_PX - 10, facecolor=colour, linewidth=0))
    room = int((width_px - TEXT_LEFT_PX) / SMALL_CHARACTER_PX)
    lines = [(step.title, 12.0, INK, 19), (step.channels, 11.0, INK, 39), (step.sides, 11.0, INK, 56)]
    for number, text in enumerate(textwrap.wrap(step.details, room)):
        lines.append((text, 9.5, MUTED, 75 + 13 * number))
    for text, size, ink, offset in lines:
        weight = "bold" if size == 12 else "normal"
        axes.text(
            left + TEXT_LEFT_PX, top + offset, text, fontsize=size, color=ink, weight=weight, va="center"
        )


def _arrow(axes: Axes, before: tuple[float, float], after: tuple[float, float], width_px: float) -> None:
    """Draw an arrow to the next box, around the end of the row if it is in the next one."""
    look = {"arrowstyle": "-|>", "color": MUTED, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 9}
    if before[1] == after[1]:
        middle = before[1] + BOX_HEIGHT_PX / 2
        axes.annotate("", (after[0], middle), (before[0] + width_px, middle), arrowprops=look)
        return
    start, end = before[0] + width_px / 2, after[0] + width_px / 2
    turn = before[1] + BOX_HEIGHT_PX + ROW_GAP_PX / 2
    axes.plot([start, start, end], [before[1] + BOX_HEIGHT_PX, turn, turn], color=MUTED, linewidth=1)
    axes.annotate("", (end, after[1]), (end, turn), arrowprops=look)


def _change(before: int, after: int) -> str:
    return f"{before}" if before == after else f"{before} → {after}"


def tradeoff(inputs: ReportInputs) -> Section | None:
    """Return the section on all networks that the search evaluated."""
    search, winner = inputs.search, inputs.chosen
    if search is None or winner is None:
        return None
    measured, budget = inputs.winner_measured, search.constraints
    caption = (
        f"{len(search.evaluated)} networks evaluated. The winner has {100 * winner.accuracy:.2f} % at a predicted "
        f"{winner.latency_ms:.3f} ms (at most {winner.latency_high_ms:.3f}) within a budget of "
        f"{budget.latency_ms:.4g} ms, {winner.params:,} parameters, {winner.macs / 1e6:.1f} M conv+linear MACs."
    )
    if search.own_objective:
        caption += f" The objective is {search.own_objective}."
    if budget.cautious:
        caption += " The budget limits the upper end of the predicted interval."
    if measured is not None:
        caption += (
            f" Measured again: {measured.measured_ms:.3f} ms "
            f"({measured.measured_low:.3f} to {measured.measured_high:.3f})"
            f"{f'; {measured.percentiles}' if measured.percentiles else ''}."
        )
    if inputs.finals is not None:
        caption += (
            f" Networks were trained alone by the recipe {inputs.finals.recipe}. {inputs.finals.verdict()}"
        )
    elif winner != search.winner:
        caption += " Measurements chose it: networks ranked before it exceeded the budget on the device."
    elif inputs.measured is not None and not inputs.measured.meets_budget:
        caption += " None of the measured networks is within the budget on the device."
    best = pareto_front(search.evaluated, ("latency", "accuracy"))
    rows = [
        (
            "winner" if row == winner else "",
            f"{100 * row.accuracy:.2f} %",
            f"{row.latency_ms:.3f}",
            f"{row.latency_high_ms:.3f}",
            f"{row.params:,}",
            f"{row.macs / 1e6:.1f}",
            row.arch,
        )
        for row in [*best, *([] if winner in best else [winner])]
    ]
    headers = ("", search.value_name, "predicted ms", "at most", "parameters", "M MACs", "choice")
    return make_section(
        "tradeoff",
        f"{search.value_name.capitalize()} against latency",
        caption,
        lambda width_px: tradeoff_figure(search, winner, measured, width_px),
        headers,
        rows,
        (0, 6),
    )


def architecture(inputs: ReportInputs) -> Section | None:
    """Return the section on the winner's blocks."""
    if inputs.winner is None:
        return None
    arch, shown = inputs.winner, repeated_blocks(inputs.winner)
    layers = sum(step.times for step in shown if step.block.kind == "mvit.layer")
    caption = (
        f"{len(arch.blocks())} blocks at {arch.resolution} x {arch.resolution} px, {layers} transformer layers "
        "among them; equal neighbours share one box. Channels and the side of the map, before and after."
    )
    rows = [
        (
            step.block.kind,
            str(step.times),
            step.channels,
            step.sides,
            step.details,
            f"{step.block.params():,}",
            f"{step.block.macs().conv_linear / 1e6:.2f}",
        )
        for step in shown
    ]
    headers = ("kind", "times", "channels", "side", "details", "parameters each", "M MACs each")
    return make_section(
        "architecture",
        "The winner",
        caption,
        lambda width_px: architecture_figure(arch, width_px),
        headers,
        rows,
        (0, 2, 3, 4),
    )


def latency(inputs: ReportInputs) -> Section | None:
    """Return the section on the winner's latency. Raises UsageError: the LUT lacks one of its blocks."""
    if inputs.lut is None or inputs.winner is None:
        return None
    lut, measured = with_classifier_prices(inputs.lut.lut, inputs.winner.classes), inputs.winner_measured
    parts = latency_parts(lut, inputs.winner)
    total_ms = sum(part.ms for part in parts)
    by_kind: dict[str, float] = {}
    for part in parts:
        by_kind[part.kind] = by_kind.get(part.kind, 0.0) + part.ms
    costliest = sorted(by_kind, key=lambda kind: -by_kind[kind])[:3]
    shares = ", ".join(f"{kind} {100 * by_kind[kind] / total_ms:.0f} %" for kind in costliest)
    caption = f"The winner's predicted {total_ms:.3f} ms, block after block. Most of it: {shares}."
    rows = [
        (part.key or part.kind, part.kind, f"{part.ms:.4f}", f"{100 * part.ms / total_ms:.1f} %")
        for part in parts
    ]
    return make_section(
        "latency",
        "Where the winner's milliseconds go",
        caption,
        lambda width_px: latency_figure(parts, measured, width_px),
        ("part", "kind", "ms", "share"),
        rows,
        (0, 1),
    )


def history(inputs: ReportInputs) -> Section | None:
    """Return the section on the search's generations."""
    search = inputs.search
    if search is None or not search.history:
        return None
    caption = (
        f"{search.coarse.priced:,} networks priced, {search.coarse.feasible:,} within the budget, "
        f"{search.coarse.skeletons} skeletons kept; then {len(search.history) - 1} generations of evolution, seed "
        f"{search.settings.seed}."
    )
    cells = [
        (
            str(generation.index),
            str(generation.new),
            *(f"{100 * value:.2f} %" for value in (generation.best, *quartiles)),
        )
        for generation, quartiles in zip(search.history, new_accuracies(search), strict=True)
    ]
    headers = ("generation", "new networks", "best so far", "lower quartile", "median", "upper quartile")
    return make_section(
        "history",
        "How the search went",
        caption,
        lambda width_px: history_figure(search, width_px),
        headers,
        cells,
        (),
    )


def training_figure(curves: Mapping[str, Sequence[LogRow]], width_px: int) -> Figure:
    """Draw loss and accuracy over steps in two panels, with a line for each training."""
    small = width_px < SMALL_BELOW_PX
    colours = dict(zip(curves, itertools.cycle(PALETTE), strict=False))
    with figure(width_px, 520 if small else 300) as drawn:
        panels = drawn.subplots(2, 1) if small else drawn.subplots(1, 2)
        for name, rows in curves.items():
            steps = [row.step for row in rows]
            look: dict[str, Any] = {"color": colours[name], "marker": "o" if len(rows) < 3 else None}
            panels[0].plot(steps, [row.loss for row in rows], **look)
            panels[1].plot(steps, [100 * row.accuracy for row in rows], **look)
        for panel, quantity in zip(panels, ("loss", "accuracy, %"), strict=True):
            panel.set(xlabel="step", ylabel=quantity)
            panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            panel.grid(axis="y")
        if len(curves) > 1:
            legend(drawn, [marker(name, colour, "", "-") for name, colour in colours.items()], width_px)
    return drawn


def training(inputs: ReportInputs) -> Section | None:
    """Return the section on loss and accuracy of trainings."""
    curves = inputs.curves
    if not curves:
        return None
    ends = "; ".join(
        f"{name}: {rows[-1].step:,} steps, {rows[-1].epoch} epochs, loss {rows[-1].loss:.3f}, accuracy "
        f"{100 * rows[-1].accuracy:.1f} %"
        for name, rows in curves.items()
    )
    caption = (
        f"{ends} at the end. Both are means over the steps before, of training batches with their augmentation; "
        "for a supernet, of the sampled networks. They show whether training converges, not how accurate a network "
        "is."
    )
    cells = [
        (
            name,
            f"{row.step:,}",
            str(row.epoch),
            f"{row.learning_rate:.3g}",
            f"{row.loss:.4f}",
            f"{100 * row.accuracy:.2f} %",
        )
        for name, rows in curves.items()
        for row in rows
    ]
    headers = ("training", "step", "epoch", "learning rate", "loss", "accuracy")
    return make_section(
        "training",
        "How training went",
        caption,
        lambda width_px: training_figure(curves, width_px),
        headers,
        cells,
    )
