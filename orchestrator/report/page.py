"""The page: one HTML file that needs nothing else, no script, no font, no request."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from luts.format.files import storage_error, write_atomically
from orchestrator.report.draw import Section
from orchestrator.report.inputs import ReportInputs
from orchestrator.report.lut_sections import agreement, entries, quiet
from orchestrator.report.provenance import provenance, subtitle, tiles, title
from orchestrator.report.search_sections import architecture, history, latency, tradeoff, training

SECTIONS = (tradeoff, architecture, latency, entries, agreement, history, training, quiet)
"""In the order of the page."""


def render(inputs: ReportInputs) -> str:
    """The report as HTML. Equal inputs give equal text. Raises UsageError where LUT and winner don't fit."""
    environment = Environment(
        loader=PackageLoader("orchestrator.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(
        title=title(inputs),
        subtitle=subtitle(inputs),
        day=inputs.lut.lut.meta.created[:10] if inputs.lut else "",
        simulated=inputs.simulated,
        tiles=tiles(inputs),
        sections=sections(inputs),
        contradictions=inputs.contradictions,
        absent=inputs.absent,
        facts=provenance(inputs),
    )


def sections(inputs: ReportInputs) -> list[Section]:
    """All sections whose numbers are there."""
    made = (make(inputs) for make in SECTIONS)
    return [section for section in made if section is not None]


def write_report(path: Path, html: str) -> None:
    """Write the page, all or nothing. Raises StorageError."""
    try:
        write_atomically(path, html.encode())
    except OSError as error:
        raise storage_error(
            f"report not written to {path}", error, "give another file with --output"
        ) from error
