"""`bench export`: models as files, with how they were lowered and how far they are from PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from luts.format.errors import UsageError
from luts.format.table import Column
from orchestrator.cli.calibration import CalibrationOptions
from orchestrator.cli.eval import DataOption, OutsideOption
from orchestrator.cli.options import (
    Fp32Option,
    NetworksOption,
    PrecisionOption,
    TaskOptions,
    WorkersOption,
    with_options,
)
from orchestrator.cli.output import JsonOption, emit_json, emit_rows
from orchestrator.cli.progress import shown_progress
from orchestrator.export import Artifact
from orchestrator.tasks.export import Lowering, export_blocks, export_networks
from orchestrator.tasks.measured import outside_text
from orchestrator.tasks.parsing import parse_deployment_target, parse_resolutions
from orchestrator.tasks.trained import Trained


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("export")(with_options(export_command))


def export_command(
    model: NetworksOption = None,
    space: Annotated[
        str | None, typer.Option(help="With --blocks: every block of this space on its own.")
    ] = None,
    blocks: Annotated[bool, typer.Option("--blocks", help="Export the space's blocks.")] = False,
    resolution: Annotated[
        str | None, typer.Option(help="Input size of the networks, or sizes of the blocks; their own, all.")
    ] = None,
    runtime: Annotated[
        str, typer.Option(help="executorch (.pte), coreml (.mlpackage), onnx, litert (.tflite).")
    ] = "executorch",
    backend: Annotated[str | None, typer.Option(help="xnnpack, portable, coreml, vulkan.")] = None,
    precision: PrecisionOption = None,
    fp32: Fp32Option = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="The network's trained weights, FILE.safetensors; random ones without any."),
    ] = None,
    supernet: Annotated[
        Path | None,
        typer.Option(help="Folder of a trained supernet to inherit weights from, or of a `train --arch`."),
    ] = None,
    data: DataOption = None,
    outside: OutsideOption = False,
    *,
    task: TaskOptions,
    calibration: CalibrationOptions,
    ios: Annotated[
        str | None, typer.Option("--ios", help="Oldest iOS of a Core ML model: 15 to 18; 16, for int8 17.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Images that the model computes at once.")] = 1,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File of one network; folder of several, a file by the name of each, and with --blocks. "
            "Core ML: an .mlpackage, or its zip where the name ends so.",
        ),
    ] = None,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export networks, or every block of a space, and check them against PyTorch.

    Many in one call cost less than many calls: loading the toolchain takes longer than lowering a small network.
    """
    if blocks != (space is not None):
        raise UsageError("--space and --blocks go together")
    trained = Trained(file=weights, supernet=supernet, data=data, outside=outside)
    _check_choice(bool(model), blocks, trained)
    if blocks and calibration.calibration:
        raise UsageError("--calibration is of whole networks; leave --blocks out")
    if blocks and batch != 1:
        raise UsageError("a LUT's blocks are of batch 1; leave --batch out, or export networks")
    target = parse_deployment_target(ios) if ios else ""
    if blocks and fp32:
        raise UsageError("--fp32 is of whole networks; leave --blocks out")
    lowering = Lowering(runtime, backend or "", precision or "", target, batch, tuple(fp32 or ()))
    sides = parse_resolutions(resolution)
    with shown_progress() as progress:
        if space is not None:
            artifacts = export_blocks(
                space, lowering, resolutions=sides, output=output, workers=workers, progress=progress
            )
        else:
            if sides and (len(sides) > 1 or sides[0] < 1):
                raise UsageError(f"--resolution {resolution!r}: a network is exported at one size, e.g. 224")
            artifacts = export_networks(
                task.of(model),
                lowering,
                resolution=sides[0] if sides else None,
                trained=trained,
                calibration=calibration.parse(),
                output=output,
                workers=workers,
                progress=progress,
            )
    rows = [_row(name, artifact, trained) for name, artifact in artifacts.items()]
    if as_json:
        emit_json(rows)
        return
    emit_rows("", _COLUMNS, [row | _told(row) for row in rows], False)
    for row in rows:
        print(f"{row['name']}: {row['path']}")


def _check_choice(networks: bool, blocks: bool, trained: Trained) -> None:
    """`UsageError` where options do not say what to export, or with which weights."""
    weights, supernet = trained.file is not None, trained.supernet is not None
    if networks == blocks and not (supernet and not networks and not blocks):
        raise UsageError("give --model (or --arch), as often as needed, or --space with --blocks")
    if weights + supernet + blocks > 1:
        raise UsageError("--weights, --supernet and --blocks exclude each other; give one of them")
    if (trained.data or trained.outside) and not supernet:
        raise UsageError("--data and --outside go with a supernet; add --supernet")


_COLUMNS = [
    Column("name", "model"),
    Column("weights", "weights"),
    Column("bytes", "bytes"),
    Column("delegates", "delegates"),
    Column("outside", "operators outside"),
    Column("max_abs_error", "max |error|"),
    Column("max_relative_error", "of the scale"),
    Column("export_s", "seconds", 1),
]


def _row(name: str, artifact: Artifact, trained: Trained) -> dict[str, Any]:
    report = artifact.report
    return {
        "name": name,
        "weights": str(trained),
        "fp32": list(artifact.spec.fp32) or None,
        "calibration": artifact.spec.calibration or None,
        "weights_sha256": artifact.spec.weights.partition("sha256:")[2] or None,
        "bytes": artifact.payload_bytes,
        "delegates": artifact.delegates,
        "outside": artifact.outside,
        "max_abs_error": report.max_abs_error,
        "max_relative_error": report.max_relative_error,
        "made": report.made,
        "export_s": report.export_s,
        "path": str(artifact.path),
        "sha256": artifact.sha256,
    }


def _told(row: dict[str, Any]) -> dict[str, str]:
    """What a table says otherwise than JSON."""
    errors = {name: _error(row[name]) for name in ("max_abs_error", "max_relative_error")}
    return errors | {"outside": outside_text(row["outside"])}


def _error(error: float | None) -> str:
    return "not run here" if error is None else f"{error:.1e}"
