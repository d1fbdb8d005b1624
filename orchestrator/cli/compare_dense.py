"""`bench compare` of networks that `bench train --task` trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from luts.format.table import Column
from orchestrator.cli.output import emit_rows, tell
from orchestrator.tasks.measured import percentile_note

if TYPE_CHECKING:
    from orchestrator.tasks.compare import Compared

_DETECTION = [
    Column("map", "mAP as exported", 2, percent=True),
    Column("map50", "mAP 50", 2, percent=True, spare=2),
    Column("map75", "mAP 75", 2, percent=True, spare=6),
    Column("pytorch_map", "in PyTorch", 2, percent=True, spare=1),
]
_SEGMENTATION = [
    Column("miou", "mIoU as exported", 2, percent=True),
    Column("pixel_accuracy", "pixels right", 2, percent=True, spare=2),
    Column("pytorch_miou", "in PyTorch", 2, percent=True, spare=1),
]


def show_dense(device: str | None, compared: Compared, latency: list[Column], paper: list[Column]) -> None:
    """The table; `latency` and `paper`: columns as other comparisons have them."""
    rows = [dict(row) for row in compared.rows]
    for row in rows:
        row["file_mib"] = row["file_bytes"] / 2**20
    columns, titles = [Column("model", "model")], []
    if data := compared.data:
        columns += _DETECTION if data["task"] == "detection" else _SEGMENTATION
        titles.append(f"{data['task']}: {data['images']} validation images of {data['source']}")
    if setup := compared.setup:
        columns += latency
        made_up = ", SIMULATED: not measured on any device" if compared.simulated else ""
        titles.append(f"{device}, {setup['variant']}{made_up}")
    if compared.data and compared.setup:
        columns.append(Column("pareto", "best"))
    known = [column for column in [*columns, *paper] if any(row.get(column.name) is not None for row in rows)]
    emit_rows("; ".join(titles), known, rows, False)
    tell("milliseconds are of the network alone; decoding, suppression and stretching of masks come on top")
    measured = [row for row in rows if row.get("ms") is not None]
    if compared.setup and measured:
        tell(percentile_note(measured))
