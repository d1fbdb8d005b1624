"""Reports of a LUT or a whole run as one HTML file."""

from __future__ import annotations

from pathlib import Path

from luts.format.files import check_writable
from luts.format.store import LutStore, lut_store
from orchestrator.report.inputs import ReportInputs, read_named_lut, read_run
from orchestrator.report.page import write_report


def report_lut(lut: str, output: Path | None = None, store: LutStore | None = None) -> Path:
    """Write a report of a LUT, by default in the working directory under the LUT's name; return its path.

    Raises:
        UsageError: an unknown LUT.
        InvalidArtifactError: it is damaged.
    """
    ref = (store or lut_store()).resolve(lut)
    path = output or Path(f"report-{'-'.join(ref.parts)}.html")
    check_writable(path)
    return write_report(path, ReportInputs(lut=read_named_lut(ref)))


def report_run(folder: Path, output: Path | None = None, store: LutStore | None = None) -> Path:
    """Write a report of a run's folder, by default `report.html` in it; return its path.

    Raises:
        UsageError: there is nothing to report, or the run's LUT is missing.
        InvalidArtifactError: a file of the run is damaged.
    """
    path = output or folder / "report.html"
    if folder.is_dir():
        check_writable(path)
    return write_report(path, read_run(folder, store or lut_store()))
