"""Sections on a search: what it saw, its winner, and how it went."""

from __future__ import annotations

from orchestrator.plan.classes import priced_for
from orchestrator.report import architecture_figure, numbers, search_figures
from orchestrator.report.inputs import ReportInputs
from orchestrator.report.section import Section, make_section, make_table


def tradeoff(inputs: ReportInputs) -> Section | None:
    """Everything that the search evaluated."""
    search, winner = inputs.search, inputs.chosen
    if search is None or winner is None:
        return None
    measured, budget = inputs.winner_measured, search.budget
    caption = (
        f"{len(search.evaluated)} networks evaluated. The winner has {100 * winner.accuracy:.2f} % at a predicted "
        f"{winner.latency_ms:.3f} ms (at most {winner.latency_high_ms:.3f}) within a budget of "
        f"{budget.latency_ms:.4g} ms, {winner.params:,} parameters, {winner.macs / 1e6:.1f} M conv+linear MACs."
    )
    if search.own_objective:
        caption += f" Judged by the objective {search.own_objective}: here accuracy is what that gives."
    if budget.cautious:
        caption += " The budget holds the upper end of the predicted interval."
    if measured is not None:
        caption += (
            f" Measured again: {measured.measured_ms:.3f} ms "
            f"({measured.measured_low:.3f} to {measured.measured_high:.3f})"
            f"{f'; {measured.percentiles}' if measured.percentiles else ''}."
        )
    if winner != search.winner:
        caption += " Measurements chose it: those ranked before it were beyond the budget on the device."
    elif inputs.measured is not None and not inputs.measured.meets_budget:
        caption += " None of the networks measured is within the budget on the device."
    best = numbers.front(search.evaluated)
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
    headers = ("", "accuracy", "predicted ms", "at most", "parameters", "M MACs", "choice")
    return make_section(
        "tradeoff",
        "Accuracy against latency",
        caption,
        lambda width_px: search_figures.tradeoff_figure(search, winner, measured, width_px),
        make_table(headers, rows, (0, 6)),
    )


def architecture(inputs: ReportInputs) -> Section | None:
    """The winner, block after block."""
    if inputs.winner is None:
        return None
    arch, shown = inputs.winner, architecture_figure.steps(inputs.winner)
    layers = sum(step.times for step in shown if step.block.kind == "mvit.layer")
    caption = (
        f"{len(arch.blocks())} blocks at {arch.resolution} x {arch.resolution} px, {layers} transformer layers "
        "among them; equal neighbours stand in one box. Channels and the side of the map, before and after."
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
        lambda width_px: architecture_figure.architecture_figure(arch, width_px),
        make_table(headers, rows, (0, 2, 3, 4)),
    )


def latency(inputs: ReportInputs) -> Section | None:
    """The winner's parts. Raises UsageError where the LUT lacks one of its blocks."""
    if inputs.lut is None or inputs.winner is None:
        return None
    lut, measured = priced_for(inputs.lut.lut, inputs.winner.classes), inputs.winner_measured
    parts = numbers.latency_parts(lut, inputs.winner)
    total_ms = sum(part.ms for part in parts)
    by_kind: dict[str, float] = {}
    for part in parts:
        by_kind[part.kind] = by_kind.get(part.kind, 0.0) + part.ms
    dearest = sorted(by_kind, key=lambda kind: -by_kind[kind])[:3]
    shares = ", ".join(f"{kind} {100 * by_kind[kind] / total_ms:.0f} %" for kind in dearest)
    caption = f"The winner's predicted {total_ms:.3f} ms, block after block. Most of it: {shares}."
    rows = [
        (part.key or part.kind, part.kind, f"{part.ms:.4f}", f"{100 * part.ms / total_ms:.1f} %")
        for part in parts
    ]
    return make_section(
        "latency",
        "Where the winner's milliseconds go",
        caption,
        lambda width_px: search_figures.latency_figure(parts, measured, width_px),
        make_table(("part", "kind", "ms", "share"), rows, (0, 1)),
    )


def history(inputs: ReportInputs) -> Section | None:
    """The search, generation by generation."""
    if inputs.search is None or not inputs.search.history:
        return None
    rows, coarse = numbers.history(inputs.search), inputs.search.coarse
    caption = (
        f"{coarse.priced:,} networks priced, {coarse.feasible:,} within the budget, {coarse.skeletons} skeletons "
        f"kept; then {len(rows) - 1} generations of evolution, seed {inputs.search.settings.seed}."
    )
    cells = [
        (
            str(row.index),
            str(row.new),
            *(
                f"{100 * value:.2f} %"
                for value in (row.best, row.low_quartile, row.median, row.high_quartile)
            ),
        )
        for row in rows
    ]
    headers = ("generation", "new networks", "best so far", "lower quartile", "median", "upper quartile")
    return make_section(
        "history",
        "How the search went",
        caption,
        lambda width_px: search_figures.history_figure(rows, width_px),
        make_table(headers, cells, ()),
    )
