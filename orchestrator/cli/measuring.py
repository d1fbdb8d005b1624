"""`bench measure`: whole networks on a device."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from luts.errors import InvalidArtifactError, UsageError
from luts.lut import Lut
from orchestrator.cli.exports import model_files
from orchestrator.cli.options import (
    AgentOption,
    AllowOption,
    AppOption,
    BackendOption,
    BudgetOption,
    DeviceOption,
    PrecisionOption,
    ResolutionOption,
    RuntimeOption,
    ThreadsOption,
    WorkersOption,
    at_resolution,
    named_arch,
    parse_access,
    parse_budget,
    parse_variant,
    timm_at,
)
from orchestrator.cli.output import Column, JsonOption, emit_json, emit_rows, progress_bar, say
from orchestrator.cli.suites import (
    count_networks,
    draw_suite,
    export_suite,
    raise_failures,
    show_suite,
    suite_comparison,
    suite_networks,
)
from orchestrator.counting import Counts
from orchestrator.devices.base import Device
from orchestrator.devices.discover import resolve
from orchestrator.export import ExportSpec
from orchestrator.measure.link import ModelFile
from orchestrator.measure.policy import Policy
from orchestrator.measure.runs import Run, find_run
from orchestrator.measure.session import Measurement, Subject, check_runtime, default_threads, measure
from orchestrator.measure.validate import reference_of
from orchestrator.paths import runs_root
from orchestrator.suites import Suite, load_suite
from orchestrator.variant import Variant
from search.spaces import Arch, Published, load_arch

REFERENCE = "reference"
"""Journal id of a LUT's reference: one of the measured models may have the same blocks."""

PICTURES = (".png", ".svg")
"""What a picture can be."""

MAX_ARTIFACT_BYTES = 1 << 30
"""Largest model that an agent takes."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("measure")(measure_command)


def measure_command(
    device: DeviceOption,
    arch: Annotated[
        list[str] | None, typer.Option(help="Named architecture or JSON file; repeatable.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="Named network or timm:NAME; repeatable.")] = None,
    artifact: Annotated[list[Path] | None, typer.Option(help="A .pte file; repeatable.")] = None,
    suite: Annotated[
        str | None, typer.Option(help="Published networks side by side: autovit-table2.")
    ] = None,
    resolution: ResolutionOption = None,
    picture: Annotated[
        Path | None, typer.Option(help="With --suite: .png or .svg to draw; both in the run's folder.")
    ] = None,
    runtime: RuntimeOption = "executorch",
    backend: BackendOption = None,
    precision: PrecisionOption = None,
    threads: ThreadsOption = None,
    budget: BudgetOption = "2m",
    seed: Annotated[int, typer.Option(help="Of the schedule.")] = 0,
    agent: AgentOption = "python",
    allow: AllowOption = None,
    app: AppOption = None,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Latency of whole networks with intervals, all interleaved in one measurement; the first is the reference."""
    variant = parse_variant(device, runtime, backend, precision, threads)
    chosen = _chosen_suite(suite, arch, model, artifact, resolution, picture)
    names = [entry.model for entry in chosen.in_order] if chosen else model or []
    ours, absent = suite_networks(names) if chosen else ({name: named_arch(name) for name in names}, {})
    archs: dict[str, Arch | Published] = {name: load_arch(name) for name in arch or []}
    archs |= {name: found for name, found in ours.items() if found}
    archs = {name: at_resolution(name, found, resolution) for name, found in archs.items()}
    specs = {
        name: variant.export_spec(archs[name].keys())
        if name in archs
        else variant.export_spec(module=timm_at(name, resolution))
        for name in (*(arch or []), *ours)
    }
    given = {str(path): _model_file(path) for path in artifact or []}
    if not specs and not given:
        raise UsageError("nothing to measure; give --arch, --model or --artifact, or a --suite")
    found = resolve(device, parse_access(agent, allow, app))
    with found:
        if threads is None and device != "host":
            variant = default_threads(found, variant)
        check_device(found, variant)
        exported = export_suite(variant, specs, workers) if chosen else None
        files = (exported.files if exported else model_files(variant, specs, workers)) | given
        measurement, run = measure_files(found, variant, files, next(iter(files)), budget, seed)
    run.finish("measured")
    failed = {name: measurement.failures.get(_journal_id(name), "") for name in files}
    counts = count_networks(specs, archs)
    rows = [
        _measured_row(name, counts.get(name), files[name], measurement) for name in files if not failed[name]
    ]
    simulated = ", SIMULATED: this is no such device" if measurement.header.simulated else ""
    head = {
        "device": measurement.hello.device.model_dump(),
        "variant": variant.name,
        "noise_floor": measurement.estimates.noise_floor,
    }
    if chosen and exported:
        reasons = absent | exported.failures | {name: reason for name, reason in failed.items() if reason}
        comparison = suite_comparison(chosen.networks, rows, exported, counts, reasons)
        pictures = [picture] if picture else [run.folder / "suite.png", run.folder / "suite.svg"]
        draw_suite(comparison, f"{device}, {variant.name}", measurement.header.simulated, pictures)
        title = f"{chosen.title}: {device}, {variant.name}{simulated}"
        show_suite(title, comparison, {"suite": suite} | head, pictures, as_json)
        raise_failures(comparison)
        return
    for name, reason in failed.items():
        if reason:
            say(f"{name} can't be measured: {reason}")
    if as_json:
        emit_json(head | {"models": rows})
        return
    columns = [
        Column("model", "model"),
        Column("params", "parameters"),
        Column("conv_linear_macs", "conv+linear MACs"),
        Column("all_macs", "all MACs"),
        Column("ms", "ms", 3),
        Column("ci_low", "95 % low", 3),
        Column("ci_high", "high", 3),
        Column("ratio", "to the first", 3),
        Column("ratio_low", "95 % low", 3),
        Column("ratio_high", "high", 3),
        Column("load_ms", "load, ms", 2),
        *([Column("first_ms", "first load, ms", 2)] if any(row["first_ms"] for row in rows) else []),
        *([Column("compile_ms", "compiling, ms", 1)] if any(row["compile_ms"] for row in rows) else []),
        Column("loads", "loads"),
        Column("rounds", "rounds"),
    ]
    emit_rows(f"{device}, {variant.name}{simulated}", columns, rows, False)
    print(
        f"reference {next(iter(files))}: ratios to it are known better than milliseconds, whose intervals "
        f"include its own; noise floor {100 * measurement.estimates.noise_floor:.2f} % between two loads"
    )


def _chosen_suite(
    name: str | None,
    arch: list[str] | None,
    model: list[str] | None,
    artifact: list[Path] | None,
    resolution: int | None,
    picture: Path | None,
) -> Suite | None:
    if name is None:
        if picture is not None:
            raise UsageError("--picture is for --suite")
        return None
    if arch or model or artifact or resolution:
        raise UsageError("--suite says which networks at which resolution; leave the other options out")
    if picture is not None and picture.suffix not in PICTURES:
        raise UsageError(f"--picture {str(picture)!r}: expected a name that ends in {' or '.join(PICTURES)}")
    return load_suite(name)


def measure_beside(
    device: Device,
    variant: Variant,
    lut: Lut,
    models: Mapping[str, ExportSpec],
    budget: str,
    seed: int,
    workers: int | None,
    *,
    reuse: bool = False,
) -> tuple[Measurement, Run]:
    """Measure models, by model id, beside a LUT's reference: both speak of the same milliseconds then."""
    reference = reference_of(lut)
    files = model_files(variant, {REFERENCE: variant.export_spec(reference.blocks), **models}, workers)
    if files[REFERENCE].sha256 != reference.artifact_sha256:
        say("note: this version exports the LUT's reference to other bytes than the LUT was measured with")
    measurement, run = measure_files(device, variant, files, REFERENCE, budget, seed, reuse=reuse)
    for name, reason in measurement.failures.items():
        raise InvalidArtifactError(f"{name} can't be measured: {reason}")
    return measurement, run


def check_device(device: Device, variant: Variant) -> None:
    """`DeviceError` where the device does not answer, `UsageError` where it can't run the variant."""
    with device.connect() as client:
        check_runtime(device.name, client.hello(), variant)


def measure_files(
    device: Device,
    variant: Variant,
    files: Mapping[str, ModelFile],
    reference: str,
    budget: str,
    seed: int,
    *,
    reuse: bool = False,
) -> tuple[Measurement, Run]:
    """Measure models by name against the one named `reference`, going on with an open run of the same models."""
    ids = {name: _journal_id(name) for name in files}
    digest = hashlib.sha256(" ".join(file.sha256 for file in files.values()).encode()).hexdigest()
    subject = Subject({ids[name]: file for name, file in files.items()}, ids[reference], digest, seed)
    run = find_run(runs_root(), f"measure-{device.name}-{variant.name}-{digest[:8]}", reuse=reuse)
    with progress_bar() as progress:
        measured = measure(
            device,
            variant,
            subject,
            run.journal,
            Policy.of(variant.is_simulated),
            budget_s=parse_budget(budget),
            progress=progress,
        )
    return measured, run


def _journal_id(name: str) -> str:
    """Names of people's choosing, paths among them, as ids of a journal; model ids stay as they are."""
    if name == REFERENCE or (len(name) == 12 and all(c in "0123456789abcdef" for c in name)):
        return name
    return hashlib.sha256(name.encode()).hexdigest()[:12]


def _model_file(path: Path) -> ModelFile:
    try:
        size = path.stat().st_size
        if not 0 < size <= MAX_ARTIFACT_BYTES:
            raise InvalidArtifactError(f"{path} has {size} bytes; a model has 1 byte to 1 GiB")
        with path.open("rb") as file:
            return ModelFile(path, hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        raise InvalidArtifactError(f"{path}: cannot read the model ({error.strerror})") from error


def _measured_row(
    name: str, counts: Counts | None, file: ModelFile, measurement: Measurement
) -> dict[str, Any]:
    ratio = measurement.estimates.ratios[_journal_id(name)]
    ms, low, high = measurement.ms(_journal_id(name))
    low, high = measurement.reference.widen(ms, low, high)
    return {
        "model": name,
        "sha256": file.sha256,
        "params": counts.params if counts else None,
        "conv_linear_macs": counts.conv_linear_macs if counts else None,
        "all_macs": counts.all_macs if counts else None,
        "ms": ms,
        "ci_low": low,
        "ci_high": high,
        "ratio": math.exp(ratio.log_ratio),
        "ratio_low": math.exp(ratio.low),
        "ratio_high": math.exp(ratio.high),
        **asdict(measurement.loads[_journal_id(name)]),
        "loads": ratio.loads,
        "rounds": ratio.rounds,
    }
