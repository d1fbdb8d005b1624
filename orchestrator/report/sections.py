"""Sections of a report: a picture, what it says in a sentence or two, and the table of its numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.figure import Figure

from luts.schema import Entry
from orchestrator.report import architecture_figure, lut_figures, numbers, search_figures
from orchestrator.report.draw import NARROW_PX, WIDE_PX, svg
from orchestrator.report.inputs import ReportInputs

MAX_TABLE_ROWS = 1000
"""Longer tables would make the page slow to open; `bench lut show` has the whole LUT."""


@dataclass(frozen=True)
class Table:
    """Cells as text; columns in `text_columns` (by number) are no numbers. `rest` rows were left out."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: tuple[int, ...] = (0,)
    rest: int = 0


@dataclass(frozen=True)
class Section:
    """`wide` and `narrow` are the same picture for two widths of screen."""

    name: str
    title: str
    caption: str
    wide: Markup
    narrow: Markup
    table: Table


def sections(inputs: ReportInputs) -> Iterator[Section]:
    """All sections whose numbers are there, in the order of the page."""
    makers = (tradeoff, architecture, latency, entries, agreement, history, quiet)
    for make in makers:
        section = make(inputs)
        if section is not None:
            yield section


def _section(name: str, title: str, caption: str, draw: Callable[[int], Figure], table: Table) -> Section:
    caption = caption.replace(" %", "\N{NO-BREAK SPACE}%").replace(" ms", "\N{NO-BREAK SPACE}ms")
    wide, narrow = (
        svg(draw(width_px), f"{name}-{suffix}", title, caption)
        for suffix, width_px in (("wide", WIDE_PX), ("narrow", NARROW_PX))
    )
    return Section(name, title, caption, wide, narrow, table)


def _table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], text_columns: tuple[int, ...] = (0,)
) -> Table:
    kept = tuple(tuple(row) for row in rows[:MAX_TABLE_ROWS])
    return Table(tuple(headers), kept, text_columns, len(rows) - len(kept))


def entries(inputs: ReportInputs) -> Section | None:
    """The dearest blocks of the LUT."""
    if inputs.lut is None or not inputs.lut.lut.entries:
        return None
    rows = numbers.dearest_entries(inputs.lut.lut)
    shown = min(len(rows), lut_figures.ENTRIES_SHOWN)
    removed = [row for row in rows if row.removal_ms is not None]
    moved = sum(bool(row.moved) for row in rows)
    prior = sum(row.method == "prior" for row in rows)
    sums = sum(row.identified == "sum" for row in rows)
    caption = (
        f"The {shown} dearest of {len(rows)} blocks: what one call of each adds to a network's latency. "
    )
    caption += (
        f"{len(removed)} of all were also measured by removal, a small difference of two large latencies. "
        if removed
        else "No block was measured by removal. "
    )
    if moved:
        caption += (
            f"{moved} removals sent operations of other blocks to another compute unit; they are no cost of the "
            "block and were not fitted. "
        )
    if sums:
        caption += (
            f"{sums} are known only as a sum with others, since no measured network has one without the other: how "
            "the sum falls apart rests on MACs and traffic; predictions need the sum alone. "
        )
    if prior:
        caption += (
            f"{prior} of all could not be measured: MACs and activation traffic alone say what they cost."
        )
    return _section(
        "entries",
        "What each block costs",
        caption.strip(),
        lambda width_px: lut_figures.entries_figure(rows, width_px),
        _table(
            ("block", "kind", "ms", "95 % low", "high", "by removal", "loads", "method", "known"),
            [_entry_row(row) for row in rows],
            (0, 1, 7, 8),
        ),
    )


def _entry_row(entry: Entry) -> tuple[str, ...]:
    removal = "–" if entry.removal_ms is None else f"{entry.removal_ms:.4f}"
    if entry.moved:
        removal += f" ({entry.moved} moved)"
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
    """Predictions beside measurements of whole networks."""
    series = numbers.agreement(inputs)
    if not series:
        return None
    parts = []
    for one in series:
        parts.append(
            f"{one.name[0].upper()}{one.name[1:]} ({len(one.pairs)}): mean error {100 * one.mape:.2f} %, largest "
            f"{100 * one.worst:.2f} %, {100 * one.within_5:.0f} % of them within 5 %."
        )
    if inputs.validation:
        parts.append(
            f"The noise floor of the validation was {100 * inputs.validation.noise_floor:.2f} %; "
            f"{100 * inputs.validation.coverage:.0f} % of its measurements lie inside their predicted intervals."
        )
    parts.append("Upright lines are the predictions' intervals, level ones those of the measurements.")
    rows = [
        (
            one.name,
            f"{pair.predicted_ms:.3f}",
            f"{pair.predicted[0]:.3f} – {pair.predicted[1]:.3f}",
            f"{pair.measured_ms:.3f}",
            f"{pair.measured[0]:.3f} – {pair.measured[1]:.3f}",
            f"{100 * pair.error:+.2f} %",
            pair.label,
        )
        for one in series
        for pair in sorted(one.pairs, key=lambda pair: (pair.measured_ms, pair.label))
    ]
    headers = ("network", "predicted ms", "interval", "measured ms", "interval", "error", "id or choice")
    return _section(
        "agreement",
        "Predicted against measured",
        " ".join(parts),
        lambda width_px: lut_figures.agreement_figure(series, width_px),
        _table(headers, rows, (0, 6)),
    )


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
    if budget.cautious:
        caption += " The budget holds the upper end of the predicted interval."
    if measured is not None:
        caption += (
            f" Measured again: {measured.measured_ms:.3f} ms "
            f"({measured.measured_low:.3f} to {measured.measured_high:.3f})."
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
    return _section(
        "tradeoff",
        "Accuracy against latency",
        caption,
        lambda width_px: search_figures.tradeoff_figure(search, winner, measured, width_px),
        _table(headers, rows, (0, 6)),
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
    return _section(
        "architecture",
        "The winner",
        caption,
        lambda width_px: architecture_figure.architecture_figure(arch, width_px),
        _table(headers, rows, (0, 2, 3, 4)),
    )


def latency(inputs: ReportInputs) -> Section | None:
    """The winner's parts. Raises UsageError where the LUT lacks one of its blocks."""
    if inputs.lut is None or inputs.winner is None:
        return None
    parts, measured = numbers.latency_parts(inputs.lut.lut, inputs.winner), inputs.winner_measured
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
    return _section(
        "latency",
        "Where the winner's milliseconds go",
        caption,
        lambda width_px: search_figures.latency_figure(parts, measured, width_px),
        _table(("part", "kind", "ms", "share"), rows, (0, 1)),
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
    return _section(
        "history",
        "How the search went",
        caption,
        lambda width_px: search_figures.history_figure(rows, width_px),
        _table(headers, cells, ()),
    )


def quiet(inputs: ReportInputs) -> Section | None:
    """A/A differences."""
    if inputs.lut is None:
        return None
    lut = inputs.lut.lut
    rows, floor = numbers.aa_rows(lut), lut.meta.noise_floor
    if not rows:
        return None
    rejected = len({row.batch for row in rows if not row.kept})
    caption = (
        "The same model file is loaded twice in every batch; a quiet device shows no difference. "
        f"Its spread, {100 * floor:.2f} %, is the noise floor: no smaller difference between networks is known. "
        f"{rejected or 'No'} {'batch was' if rejected == 1 else 'batches were'} rejected."
    )
    cells = [
        (
            str(row.batch),
            str(row.segment),
            f"{100 * row.difference:+.3f} %",
            f"{100 * row.se:.3f} %",
            str(row.rounds),
            "kept" if row.kept else "rejected",
        )
        for row in rows
    ]
    headers = ("batch", "session", "difference", "standard error", "rounds", "verdict")
    return _section(
        "quiet",
        "How quiet the device was",
        caption,
        lambda width_px: lut_figures.quiet_figure(rows, floor, width_px),
        _table(headers, cells, (5,)),
    )
