"""`bench compare`: networks and model files by accuracy as exported, latency, size and memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from luts.format.table import Column, filled
from orchestrator.cli.options import example, with_options
from orchestrator.cli.output import JsonOption, emit_json, emit_rows, say, tell, write_table
from orchestrator.cli.progress import shown_progress
from orchestrator.tasks.evaluation_options import CompareOptions
from orchestrator.tasks.measured import PERCENTILE_COLUMNS, percentile_note

if TYPE_CHECKING:
    from orchestrator.tasks.compare import Comparison

_EXAMPLE = example(
    "bench compare winner.json timm:mobilenetv3_small_100 --supernet RUN --data imagefolder:DIR --device host",
    "bench compare mobilevit-xxs:DETECTOR --data coco:DIR --device host",
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compare", epilog=_EXAMPLE)(with_options(compare_command))


def compare_command(options: CompareOptions, as_json: JsonOption = False) -> None:
    """Compare top-1 of networks as exported and in PyTorch, latency, size and memory; mark the best.

    Of trainings for detection or segmentation (NETWORK:FOLDER): mAP or mIoU on the validation images. ExecuTorch's
    files are evaluated on this machine, each image on its own, as on a phone.
    """
    from orchestrator.tasks.compare import compare_networks  # imports torch

    with shown_progress() as progress:
        comparison = compare_networks(options, progress)
    for name, reason in comparison.failures.items():
        say(f"{name}: {reason}")
    if options.output is not None:
        _write(options.output, comparison)
    if as_json:
        emit_json(comparison.to_dict())
    else:
        _show(options.target.device, comparison)


_CLASSIFICATION = [
    Column("top1", "top-1 as exported", 2, percent=True),
    Column("top1_low", "95 % low", 2, percent=True, spare=3),
    Column("top1_high", "high", 2, percent=True, spare=3),
    Column("top5", "top-5", 2, percent=True, spare=2),
    Column("top5_low", "95 % low", 2, percent=True, spare=8),
    Column("top5_high", "high", 2, percent=True, spare=8),
    Column("pytorch_top1", "in PyTorch", 2, percent=True, spare=1),
    Column("pytorch_top5", "top-5", 2, percent=True, spare=8),
    Column("agreement", "same prediction", 2, percent=True, spare=4),
]
_DETECTION = [
    Column("map", "mAP as exported", 2, percent=True),
    Column("map50", "mAP 50", 2, percent=True, spare=2),
    Column("map75", "mAP 75", 2, percent=True, spare=6),
    Column("pytorch_map", "in PyTorch", 2, percent=True, spare=1),
]
_SEGMENTATION = [
    Column("miou", "mIoU as exported", 2, percent=True),
    Column("pixel_accuracy", "pixel accuracy", 2, percent=True, spare=2),
    Column("pytorch_miou", "in PyTorch", 2, percent=True, spare=1),
]
_METRICS = {"detection": _DETECTION, "segmentation": _SEGMENTATION}
_LATENCY = [
    Column("ms", "ms", 3),
    Column("ci_low", "95 % low", 3, spare=2),
    Column("ci_high", "high", 3, spare=2),
    *PERCENTILE_COLUMNS,
    Column("load_ms", "load ms", 2, spare=4),
]
_PAPER = [
    Column("file_mib", "file MiB", 2, spare=1),
    Column("peak_mib", "peak memory MiB", 1, spare=2),
    Column("planned_mib", "activations MiB", 2, spare=6),
    Column("params", "parameters", counted=True, spare=3),
    Column("conv_linear_macs", "conv+linear MACs", counted=True, spare=5),
    Column("all_macs", "all MACs", counted=True, spare=7),
]


def _show(device: str, comparison: Comparison) -> None:
    rows = [_cells(row) for row in comparison.rows]
    columns, titles = [Column("model", "model")], []
    data, setup = comparison.data, comparison.setup
    task = data.get("task") if data else None
    if data:
        columns += _METRICS.get(task or "", _CLASSIFICATION)
        titles.append(f"{data['images']} {data['split']} images of {data['source']}")
    if setup:
        columns += _LATENCY
        simulated = ", SIMULATED: not measured on any device" if comparison.simulated else ""
        titles.append(f"{device}, {setup['variant']}{simulated}")
    if data and setup:
        columns.append(Column("pareto", "best"))
    if not any(row["peak_mib"] for row in rows):
        columns += [column for column in _PAPER if column.name != "peak_mib"]
    else:
        columns += _PAPER
    emit_rows("; ".join(titles), filled(columns, rows, PERCENTILE_COLUMNS), rows, False)
    for line in _notes(rows, comparison, task):
        tell(line)


def _notes(rows: list[dict[str, Any]], comparison: Comparison, task: str | None) -> list[str]:
    """Return what explains the table."""
    data, setup, notes = comparison.data, comparison.setup, []
    if data and setup:
        notes.append("best: no other is at least as accurate and as fast, and better in one")
    if task:
        notes.append("latency is of the network alone, without decoding, suppression and resizing of masks")
    elif data:
        notes.append("intervals of accuracies are Wilson's, of the choice of images alone")
    notes += [
        f"{row['model']} is not evaluated as exported: {row['accuracy_note']}"
        for row in rows
        if row.get("accuracy_note")
    ]
    if simulated := [row["model"] for row in rows if str(row.get("judged_by")).startswith("PyTorch")]:
        notes.append(
            f"{', '.join(simulated)}: the Core ML program was evaluated in PyTorch, weights and int8 as in it, "
            "sums in fp32; Core ML itself, whose sums are fp16, runs on Apple devices only"
        )
    if any(row["peak_mib"] for row in rows):
        notes.append(
            "peak memory is the agent's with the model alone, minus what it had before; if only a larger model's "
            "peak is known, what it holds after running"
        )
    measured = [row for row in rows if row.get("ms") is not None]
    return [*notes, percentile_note(measured)] if setup and measured else notes


def _cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the cells of JSON, with bytes in MiB."""
    peak = row.get("peak_memory_bytes") or row.get("memory_bytes")
    sizes = {"file_mib": row["file_bytes"], "planned_mib": row["planned_bytes"], "peak_mib": peak}
    return {**row, **{name: value and value / 2**20 for name, value in sizes.items()}}


def _write(folder: Path, comparison: Comparison) -> None:
    """Write the table as JSON and CSV, and a picture where there are accuracies and latencies."""
    document = comparison.to_dict()
    names = list(dict.fromkeys(name for row in document["models"] for name in row))
    level = [{name: row.get(name) for name in names} for row in document["models"]]
    write_table(folder / "compare.json", document)
    write_table(folder / "compare.csv", {"models": level}, "models")
    data, setup = comparison.data, comparison.setup
    if not any(row["pareto"] is not None for row in comparison.rows) or not data or not setup:
        return
    if data.get("task"):  # the picture's axis is top-1
        return
    from orchestrator.report.draw import write_figure
    from orchestrator.report.figures import pareto_figure

    device = f"{setup['device']['model']}, {setup['variant']}"
    images = f"{data['images']} images of {data['source'].partition(':')[0]}"
    drawn = pareto_figure(comparison.rows, device, images, comparison.simulated)
    for path in (folder / "compare.png", folder / "compare.svg"):
        write_figure(path, drawn)
        say(f"picture: {path}")
