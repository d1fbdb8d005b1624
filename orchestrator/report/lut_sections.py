"""Sections on a LUT: its entries, its predictions, how quiet the device was."""

from __future__ import annotations

from collections.abc import Sequence

from luts.format.schema import Entry
from orchestrator.report import lut_figures, numbers
from orchestrator.report.inputs import ReportInputs
from orchestrator.report.section import Section, make_section, make_table


def entries(inputs: ReportInputs) -> Section | None:
    """The dearest blocks of the LUT."""
    if inputs.lut is None or not inputs.lut.lut.entries:
        return None
    rows = numbers.dearest_entries(inputs.lut.lut)
    return make_section(
        "entries",
        "What each block costs",
        _entries_caption(rows),
        lambda width_px: lut_figures.entries_figure(rows, width_px),
        make_table(
            ("block", "kind", "ms", "95 % low", "high", "by removal", "loads", "method", "identified"),
            [_entry_row(row) for row in rows],
            (0, 1, 7, 8),
        ),
    )


def _entries_caption(rows: Sequence[Entry]) -> str:
    shown = min(len(rows), lut_figures.ENTRIES_SHOWN)
    removed = sum(row.removal_ms is not None for row in rows)
    said = [f"The {shown} dearest of {len(rows)} blocks: what one call of each adds to a network's latency."]
    said.append(
        f"{removed} of all were also measured by removal, a small difference of two large latencies."
        if removed
        else "No block was measured by removal."
    )
    if migrated := sum(bool(row.migrated_operations) for row in rows):
        said.append(
            f"{migrated} removals sent operations of other blocks to another compute unit; they are not a cost of "
            "the block and were not fitted."
        )
    if sums := sum(row.identified == "sum" for row in rows):
        said.append(
            f"{sums} are known only as a sum with others, since no measured network has one without the other: how "
            "the sum falls apart rests on MACs and traffic; predictions need the sum alone."
        )
    if prior := sum(row.method == "prior" for row in rows):
        said.append(
            f"{prior} of all could not be measured: MACs and activation traffic alone say what they cost."
        )
    return " ".join(said)


def _entry_row(entry: Entry) -> tuple[str, ...]:
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
    return make_section(
        "agreement",
        "Predicted against measured",
        " ".join(parts),
        lambda width_px: lut_figures.agreement_figure(series, width_px),
        make_table(headers, rows, (0, 6)),
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
    return make_section(
        "quiet",
        "How quiet the device was",
        caption,
        lambda width_px: lut_figures.quiet_figure(rows, floor, width_px),
        make_table(headers, cells, (5,)),
    )
