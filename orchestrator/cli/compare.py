"""`bench compare`: networks and model files by accuracy as exported, milliseconds, size and memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from luts.format.errors import UsageError
from luts.format.files import storage_error
from luts.format.table import Column, filled
from orchestrator.cli.calibration import CalibrationImages
from orchestrator.cli.compare_dense import show_dense
from orchestrator.cli.options import (
    AccessOptions,
    BudgetOption,
    Fp32Option,
    ResolutionOption,
    SelfTestOption,
    VariantOptions,
    WorkersOption,
    target_of,
    with_options,
)
from orchestrator.cli.output import JsonOption, emit_json, emit_rows, say, tell, write_table
from orchestrator.cli.progress import shown_progress
from orchestrator.tasks.measured import PERCENTILE_COLUMNS, percentile_note
from orchestrator.tasks.parsing import parse_budget

if TYPE_CHECKING:
    from orchestrator.tasks.compare import Compared


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compare")(with_options(compare_command))


def compare_command(
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "--arch",
            help="Network by name, JSON file of an architecture, or timm:NAME; :WEIGHTS behind it are a "
            ".safetensors file or the folder of a training; repeatable.",
        ),
    ] = None,
    artifact: Annotated[
        list[Path] | None, typer.Option(help="A .pte file or an .mlpackage; repeatable.")
    ] = None,
    supernet: Annotated[
        Path | None,
        typer.Option(help="Folder of the training that architectures inherit their weights from."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data", help="Images as of `bench train`: imagefolder:DIR, cifar10:FILE; none judged without."
        ),
    ] = None,
    split: Annotated[
        str,
        typer.Option(help="validation (the data's own, or what training holds out), search, or all images."),
    ] = "validation",
    images: Annotated[
        int | None, typer.Option(min=1, help="How many of them, by a seeded choice; all.")
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            help="Which output is which class: imagenet (synsets, n01440764), or a file with a name a line; "
            "the data's own order where a network has as many outputs."
        ),
    ] = None,
    seen_as: Annotated[
        str,
        typer.Option(
            help="How images are normalised for --artifact: imagenet, or timm:NAME for as timm has it."
        ),
    ] = "imagenet",
    device: Annotated[
        str | None, typer.Option("--device", help="What milliseconds are measured on; none measured without.")
    ] = None,
    resolution: ResolutionOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder for table and picture; what is done is kept there, and the same command goes on.",
        ),
    ] = None,
    variant: VariantOptions,
    fp32: Fp32Option = None,
    calibration: CalibrationImages,
    budget: BudgetOption = "2m",
    seed: Annotated[int, typer.Option(help="Of the schedule, and of the choice of images.")] = 0,
    access: AccessOptions,
    self_test: SelfTestOption = True,
    processes: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that run exported programs over images; half the cores."),
    ] = None,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Top-1 of networks as exported, and of PyTorch, beside milliseconds, size and memory; which are best.

    Of folders of `bench train --task` (--model NETWORK:FOLDER) mAP or mIoU on the validation images of --data.

    ExecuTorch's files are judged on this machine, each image on its own, as a phone runs them.
    """
    from orchestrator.agent.device import threads_by_default
    from orchestrator.tasks.compare import compare_networks  # brings torch
    from orchestrator.tasks.compare_dense import compare_dense, dense_runs
    from orchestrator.tasks.judge import Question
    from orchestrator.tasks.latencies import Timing

    target = target_of(device or "host", variant, access)
    question = Question(data, split, images, classes, seen_as, processes or threads_by_default(), seed)
    if not data and (classes or images):
        raise UsageError("--classes and --images go with --data")
    if runs := dense_runs(model or ()):
        if artifact or supernet or images or classes or resolution or fp32 or calibration.calibration:
            raise UsageError(
                "networks of `bench train --task` are judged as they were trained, on all validation images; leave "
                "--artifact, --supernet, --images, --classes, --resolution, --fp32 and --calibration out"
            )
        with shown_progress() as progress:
            compared = compare_dense(
                runs,
                data,
                Timing(target, parse_budget(budget), seed, self_test) if device else None,
                lowered_for=target,
                folder=output,
                processes=question.processes,
                workers=workers,
                progress=progress,
            )
        _emit(compared, device, output, as_json)
        return
    with shown_progress() as progress:
        compared = compare_networks(
            model or (),
            question,
            Timing(target, parse_budget(budget), seed, self_test) if device else None,
            files=artifact or (),
            supernet=supernet,
            resolution=resolution,
            lowered_for=target,
            fp32=fp32 or (),
            calibration=calibration.parse(seed),
            folder=output,
            workers=workers,
            progress=progress,
        )
    _emit(compared, device, output, as_json)


def _emit(compared: Compared, device: str | None, output: Path | None, as_json: bool) -> None:
    for name, reason in compared.failures.items():
        say(f"{name}: {reason}")
    if output is not None:
        _write(output, compared)
    if as_json:
        emit_json(compared.to_dict())
    elif compared.data and compared.data.get("task"):
        show_dense(device, compared, _LATENCY, _PAPER)
    else:
        _show(device, compared)


_ACCURACY = [
    Column("top1", "top-1 as exported", 2, percent=True),
    Column("top1_low", "95 % low", 2, percent=True, spare=3),
    Column("top1_high", "high", 2, percent=True, spare=3),
    Column("top5", "top-5", 2, percent=True, spare=2),
    Column("top5_low", "95 % low", 2, percent=True, spare=8),
    Column("top5_high", "high", 2, percent=True, spare=8),
    Column("pytorch_top1", "in PyTorch", 2, percent=True, spare=1),
    Column("pytorch_top5", "top-5", 2, percent=True, spare=8),
    Column("agreement", "same guess", 2, percent=True, spare=4),
]
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


def _show(device: str | None, compared: Compared) -> None:
    rows = [_cells(row) for row in compared.rows]
    columns = [Column("model", "model")]
    titles = []
    if data := compared.data:
        columns += _ACCURACY
        titles.append(f"{data['images']} {data['split']} images of {data['source']}")
    if setup := compared.setup:
        columns += _LATENCY
        made_up = ", SIMULATED: not measured on any device" if compared.simulated else ""
        titles.append(f"{device}, {setup['variant']}{made_up}")
    if compared.data and compared.setup:
        columns.append(Column("pareto", "best"))
    emit_rows(
        "; ".join(titles), filled(_known([*columns, *_PAPER], rows), rows, PERCENTILE_COLUMNS), rows, False
    )
    if compared.data and compared.setup:
        tell("best: no other is at least as accurate and as fast, and better in one")
    if compared.data:
        tell("intervals of accuracies are Wilson's, of the choice of images alone")
    for row in rows:
        if row.get("accuracy_note"):
            tell(f"{row['model']} is not judged as exported: {row['accuracy_note']}")
    if evaluated := [row["model"] for row in rows if str(row.get("judged_by")).startswith("PyTorch")]:
        tell(
            f"{', '.join(evaluated)}: judged by evaluating the Core ML program in PyTorch, weights and int8 as in "
            "the file, sums in fp32; Core ML itself, whose sums are fp16, runs on Apple devices alone"
        )
    if any(row["peak_mib"] for row in rows):
        tell(
            "peak memory is the agent's with the model alone, less what it had before; where only a larger model's "
            "peak is known, what it holds after running"
        )
    measured = [row for row in rows if row["ms"] is not None]
    if compared.setup and measured:
        tell(percentile_note(measured))


def _known(columns: list[Column], rows: list[dict[str, Any]]) -> list[Column]:
    """Without the memory that no device told."""
    return [c for c in columns if c.name != "peak_mib" or any(row["peak_mib"] for row in rows)]


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    """As in JSON, with bytes in MiB."""
    peak = row.get("peak_memory_bytes") or row.get("memory_bytes")
    sizes = {"file_mib": row["file_bytes"], "planned_mib": row["planned_bytes"], "peak_mib": peak}
    return row | {name: value and value / 2**20 for name, value in sizes.items()}


def _write(folder: Path, compared: Compared) -> None:
    """The table as JSON and CSV, and, where there is anything to draw, the picture."""
    document = compared.to_dict()
    names = list(dict.fromkeys(name for row in document["models"] for name in row))
    level = [{name: row.get(name) for name in names} for row in document["models"]]
    write_table(folder / "compare.json", document)
    write_table(folder / "compare.csv", {"models": level}, "models")
    if not any(row["pareto"] is not None for row in compared.rows) or not compared.data or not compared.setup:
        return
    if compared.data.get("task"):  # the picture's axis is top-1
        return
    from orchestrator.report.figures import save_pareto as save

    device = f"{compared.setup['device']['model']}, {compared.setup['variant']}"
    data = f"{compared.data['images']} images of {compared.data['source'].partition(':')[0]}"
    for path in (folder / "compare.png", folder / "compare.svg"):
        try:
            save(path, compared.rows, device, data, compared.simulated)
        except OSError as error:
            raise storage_error(f"cannot write {path}", error, "choose another --output") from error
        say(f"picture: {path}")
