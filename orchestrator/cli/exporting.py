"""`bench export`: models as files, with how they were lowered and how far they are from PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from luts.errors import UsageError
from orchestrator.cli.exports import export_all
from orchestrator.cli.options import (
    PrecisionOption,
    WorkersOption,
    at_resolution,
    named_arch,
    parse_deployment_target,
    timm_at,
)
from orchestrator.cli.output import Column, JsonOption, emit_rows
from orchestrator.cli.spaces import parse_resolutions
from orchestrator.export import Artifact, ExportSpec, block_specs_for
from orchestrator.export.package import deliver
from search.spaces import get_space, load_arch


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("export")(export_command)


def export_command(
    arch: Annotated[str | None, typer.Option(help="Named architecture or JSON file.")] = None,
    model: Annotated[str | None, typer.Option(help="Named network or timm:NAME.")] = None,
    space: Annotated[
        str | None, typer.Option(help="With --blocks: every block of this space on its own.")
    ] = None,
    blocks: Annotated[bool, typer.Option("--blocks", help="Export the space's blocks.")] = False,
    resolution: Annotated[
        str | None, typer.Option(help="Input size of the network, or sizes of the blocks; its own, all.")
    ] = None,
    runtime: Annotated[str, typer.Option(help="executorch (.pte) or coreml (.mlpackage).")] = "executorch",
    backend: Annotated[str | None, typer.Option(help="xnnpack, portable, coreml, vulkan.")] = None,
    precision: PrecisionOption = None,
    ios: Annotated[
        str | None, typer.Option("--ios", help="Oldest iOS of a Core ML model: 15 to 18; 16, for int8 17.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="File, or folder with --blocks. Core ML: an .mlpackage, or its zip where the name ends so.",
        ),
    ] = None,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export a network, or every block of a space, and check it against PyTorch."""
    if blocks != (space is not None):
        raise UsageError("--space and --blocks go together")
    if (arch is not None) + (model is not None) + blocks != 1:
        raise UsageError("give exactly one of --arch, --model, or --space with --blocks")
    options = (("deployment_target", parse_deployment_target(ios)),) if ios else ()
    how: dict[str, Any] = {
        "runtime": runtime,
        "backend": backend or "",
        "precision": precision or "",
        "options": options,
    }
    if space is not None:
        specs = {s.name: s for s in block_specs_for(get_space(space), parse_resolutions(resolution), **how)}
    else:
        name = arch or str(model)
        side = _one_resolution(resolution)
        found = load_arch(arch) if arch else named_arch(name)
        if found:
            specs = {name: ExportSpec(at_resolution(name, found, side).keys(), **how)}
        else:
            specs = {name: ExportSpec(module=timm_at(name, side), **how)}
    artifacts = export_all(specs, workers)
    if output is not None:
        _copy(artifacts, output, folder=blocks)
    emit_rows("", _COLUMNS, [_row(name, artifact) for name, artifact in artifacts.items()], as_json)


def _one_resolution(text: str | None) -> int | None:
    sides = parse_resolutions(text)
    if sides is None:
        return None
    if len(sides) > 1 or sides[0] < 1:
        raise UsageError(f"--resolution {text!r}: a network is exported at one size, e.g. 224")
    return sides[0]


_COLUMNS = [
    Column("name", "model"),
    Column("bytes", "bytes"),
    Column("delegates", "delegates"),
    Column("operators", "operators outside"),
    Column("max_abs_error", "max |error|"),
    Column("max_relative_error", "of the scale"),
    Column("export_s", "seconds", 1),
    Column("path", "file"),
]


def _row(name: str, artifact: Artifact) -> dict[str, Any]:
    report = artifact.report
    return {
        "name": name,
        "bytes": artifact.payload_bytes,
        "delegates": report.delegates,
        "operators": " ".join(f"{op}x{n}" for op, n in report.operators) or "none",
        "max_abs_error": _error(report.max_abs_error),
        "max_relative_error": _error(report.max_relative_error),
        "export_s": report.export_s,
        "path": str(artifact.path),
        "sha256": artifact.sha256,
    }


def _error(error: float | None) -> str:
    return "not run here" if error is None else f"{error:.1e}"


def _copy(artifacts: dict[str, Artifact], output: Path, *, folder: bool) -> None:
    for name, artifact in artifacts.items():
        deliver(artifact.path, output / f"{name}{artifact.suffix}" if folder else output)
