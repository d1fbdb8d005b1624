"""The page: one HTML file that needs nothing else, no script, no font, no request."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from luts.errors import StorageError
from orchestrator.report.inputs import ReportInputs
from orchestrator.report.provenance import provenance, subtitle, tiles, title
from orchestrator.report.sections import sections
from search.files import write_atomically


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
        sections=tuple(sections(inputs)),
        contradictions=inputs.contradictions,
        absent=inputs.absent,
        facts=provenance(inputs),
    )


def write_report(path: Path, html: str) -> None:
    """Write the page, all or nothing. Raises StorageError."""
    try:
        write_atomically(path, html.encode())
    except OSError as error:
        raise StorageError(
            f"report not written to {path}: {error.strerror}; free space or give another file with -o"
        ) from error
