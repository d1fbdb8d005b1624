"""`bench measure --suite`: networks beside the published figures, as tables and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from luts.format.errors import BlocktimeError
from luts.format.files import storage_error
from luts.format.table import Column
from orchestrator.cli.lowered import outside_text
from orchestrator.cli.output import emit_json, emit_rows, say, shown_progress, tell
from orchestrator.cli.output_files import output_files, write_table
from orchestrator.cli.percentiles import PERCENTILES, told_columns
from orchestrator.suites.suite import Row
from orchestrator.tasks.suite import MeasuredSuite, run_suite
from orchestrator.tasks.target import Target

OUTPUTS = (".png", ".svg", ".json")
"""What `--output` can be: pictures, or the table."""


def measure_suite(
    name: str,
    target: Target,
    output: Sequence[Path],
    as_json: bool,
    *,
    budget_s: float,
    seed: int,
    self_test: bool,
    workers: int | None,
) -> None:
    """Measure, draw and print; BlocktimeError at the end that names the networks without a latency."""
    files = output_files(output, OUTPUTS)
    with shown_progress() as progress:
        measured = run_suite(
            name,
            target,
            budget_s=budget_s,
            seed=seed,
            self_test=self_test,
            workers=workers,
            progress=progress,
        )
    pictures = [file for file in files if file.suffix != ".json"]
    pictures = pictures or [measured.folder / "suite.png", measured.folder / "suite.svg"]
    title = f"{target.device}, {measured.setup.variant.name}"
    _draw(measured, title, pictures)
    for file in set(files) - set(pictures):
        write_table(file, measured.to_dict())
    if as_json:
        emit_json(measured.to_dict() | {"pictures": [str(path) for path in pictures]})
    else:
        _show(f"{measured.suite.title}: {title}{measured.setup.warning}", measured, pictures)
    if failure := measured.comparison.failure:
        raise BlocktimeError(failure)


_COLUMNS = [
    Column("row", "network"),
    Column("params", "parameters", counted=True, spare=3),
    Column("published_params", "published", counted=True, spare=6),
    Column("conv_linear_macs", "conv+linear MACs", counted=True, spare=3),
    Column("all_macs", "all MACs", counted=True, spare=7),
    Column("published_flops", "published", counted=True, spare=6),
    Column("ms", "ms", 2),
    Column("ci_low", "95 % low", 2, spare=2),
    Column("ci_high", "high", 2, spare=2),
    *PERCENTILES,
    Column("rank", "rank"),
    Column("shared_rank", "of shared", spare=4),
    Column("published_ms", "published ms", 1),
    Column("published_rank", "its rank", spare=4),
    Column("published_top1_percent", "published top-1", 1, spare=5),
]

_LOWERED = [
    Column("row", "network"),
    Column("model", "model"),
    Column("delegates", "delegates"),
    Column("outside", "outside them"),
    Column("remark", "remark"),
]


def _show(title: str, measured: MeasuredSuite, pictures: Sequence[Path]) -> None:
    """The table, how each network was lowered, and how far the two orders agree."""
    comparison = measured.comparison
    rows = [_cells(row) for row in comparison.rows]
    emit_rows(title, told_columns(_COLUMNS, rows), rows, False)
    emit_rows("how each was lowered", _LOWERED, [_lowered(row) for row in comparison.rows], False)
    for table in comparison.tables.values():
        device = f"latency on {table.latency_device}" if table.latency_device else "no latency of a phone"
        tell(f"published figures: {table.paper}, {table.table}; {device}. {table.note}")
    tau = "-" if comparison.kendall_tau is None else f"{comparison.kendall_tau:.2f}"
    tell(
        f"Kendall's tau of measured and published latency: {tau} over the {comparison.shared} networks that have "
        "both; other phones, runtimes and delegates are not a reason to expect 1"
    )
    for path in pictures:
        say(f"picture: {path}")


def _cells(row: Row) -> dict[str, Any]:
    """As in JSON, with what papers print in millions and billions as numbers."""
    cells = row.to_dict()
    published = {"params": (cells["published_params_m"], 1e6), "flops": (cells["published_flops_g"], 1e9)}
    return cells | {f"published_{name}": n and n * unit for name, (n, unit) in published.items()}


def _lowered(row: Row) -> dict[str, Any]:
    cells = row.to_dict()
    if row.measured and row.measured.outside is not None:
        cells["outside"] = outside_text(row.measured.outside)
    cells["remark"] = f"not measured: {row.failure}" if row.failure else row.entry.differs
    return cells


def _draw(measured: MeasuredSuite, title: str, paths: Sequence[Path]) -> None:
    from orchestrator.report.figures import save_suite as save

    for path in paths:
        try:
            save(path, measured.comparison, title, measured.setup.simulated)
        except OSError as error:
            raise storage_error(f"cannot write {path}", error, "choose another --output") from error
