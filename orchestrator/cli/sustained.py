"""`bench measure --sustained`: latency against time, heat and clock, as a table and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from luts.format.files import storage_error
from luts.format.table import Column
from orchestrator.cli.output import emit_json, emit_rows, say, shown_progress, tell
from orchestrator.cli.output_files import TABLES, output_files, write_table
from orchestrator.journal.sustained import merge_points
from orchestrator.tasks.networks import Networks
from orchestrator.tasks.sustained import SustainedRun, measure_sustained
from orchestrator.tasks.target import Target

PICTURES = (".png", ".svg")
ROWS = 20
"""Of the table; JSON and CSV have every chunk."""

_COLUMNS = [
    Column("minutes", "minutes", 1),
    Column("p50_ms", "p50 ms", 3),
    Column("p90_ms", "p90 ms", 3),
    Column("thermal_state", "thermal state", spare=1),
    Column("headroom", "headroom", 2, spare=2),
    Column("celsius", "°C", 1, spare=1),
    Column("mhz", "MHz", 0, spare=2),
    Column("cap_mhz", "at most", 0, spare=3),
    Column("calls", "calls", spare=4),
    Column("segment", "part", spare=1),
]


def measure_for_long(
    networks: Networks,
    target: Target,
    files: Sequence[Path],
    output: Sequence[Path],
    as_json: bool,
    *,
    resolution: int | None,
    duration_s: float,
    workers: int | None,
) -> None:
    """Measure, draw and print."""
    written = output_files(output, (*TABLES, *PICTURES))
    with shown_progress() as progress:
        measured = measure_sustained(
            networks,
            target,
            files=files,
            resolution=resolution,
            duration_s=duration_s,
            workers=workers,
            progress=progress,
        )
    pictures = [file for file in written if file.suffix in PICTURES]
    pictures = pictures or [measured.folder / f"sustained{suffix}" for suffix in PICTURES]
    _draw(measured, pictures)
    for file in set(written) - set(pictures):
        write_table(file, measured.to_dict(), "points")
    if as_json:
        emit_json(measured.to_dict() | {"pictures": [str(path) for path in pictures]})
        return
    show_sustained(measured)
    for path in pictures:
        say(f"picture: {path}")


def show_sustained(measured: SustainedRun) -> None:
    """The table, and what it shows in words."""
    rows = [
        asdict(point) | {"minutes": point.start_s / 60, "segment": point.segment + 1}
        for point in merge_points(measured.points, ROWS)
    ]
    untold = {column.name for column in _COLUMNS if all(row[column.name] is None for row in rows)}
    untold |= {"segment"} if measured.segments == 1 else set()
    columns = [column for column in _COLUMNS if column.name not in untold]
    title = f"{measured.model} on {measured.device}, {measured.variant}, without a pause{measured.warning}"
    emit_rows(title, columns, rows, False)
    tell(str(measured.slowdown))
    tell(str(measured.percentiles))
    if usage := str(measured.usage):
        tell(usage)
    if measured.segments > 1:
        tell(f"in {measured.segments} parts: it was interrupted, and the device cooled in between")


def _draw(measured: SustainedRun, paths: Sequence[Path]) -> None:
    from orchestrator.report.figures import save_sustained as save

    title = f"{measured.model} on {measured.device}, {measured.variant}{measured.warning}"
    for path in paths:
        try:
            save(path, measured.points, measured.slowdown, title)
        except OSError as error:
            raise storage_error(f"cannot write {path}", error, "choose another --output") from error
