"""`bench breakdown`: what the latency of networks is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from luts.errors import UsageError
from orchestrator.breakdown.attribution import METHOD_TITLES, Attribution, Method
from orchestrator.breakdown.document import NetworkBreakdown, attribution_document, document
from orchestrator.cli.exports import export_all
from orchestrator.cli.options import (
    AgentOption,
    AllowOption,
    AppOption,
    BackendOption,
    BudgetOption,
    DeviceOption,
    PrecisionOption,
    RuntimeOption,
    ThreadsOption,
    WorkersOption,
    named_arch,
    parse_access,
    parse_budget,
    parse_variant,
)
from orchestrator.cli.output import Column, JsonOption, emit_json, emit_rows, progress_bar, say
from orchestrator.devices.base import Device
from orchestrator.devices.discover import resolve
from orchestrator.export import Artifact, ExportSpec
from orchestrator.export.kinds import KINDS, TITLES, Kind
from orchestrator.export.pool import ExportError
from orchestrator.measure.link import ModelFile
from orchestrator.measure.session import check_runtime, default_threads
from orchestrator.variant import Variant
from orchestrator.winner import write_json
from orchestrator.wire.messages import HelloReply
from search.spaces import load_arch

if TYPE_CHECKING:
    from orchestrator.export.removal import Census

Choice = Literal["both", "tracer", "removal"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("breakdown")(breakdown_command)


@dataclass(frozen=True)
class _Settings:
    device: Device
    variant: Variant
    method: Choice
    budget_s: float
    seed: int
    workers: int | None


def breakdown_command(
    device: DeviceOption,
    model: Annotated[
        list[str], typer.Option(help="Named architecture, JSON file of one, or timm:NAME; repeatable.")
    ],
    method: Annotated[
        Choice, typer.Option(help="ExecuTorch's event tracer, removal of each kind, or both.")
    ] = "both",
    runtime: RuntimeOption = "executorch",
    backend: BackendOption = None,
    precision: PrecisionOption = None,
    threads: ThreadsOption = None,
    budget: BudgetOption = "2m",
    seed: Annotated[int, typer.Option(help="Of the schedule.")] = 0,
    picture: Annotated[
        Path | None, typer.Option(help="Draw stacked bars into this .svg, .png or .pdf file.")
    ] = None,
    agent: AgentOption = "python",
    allow: AllowOption = None,
    app: AppOption = None,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Latency by kind of operation: attention, MLP, convolution and so on; the budget is for each network."""
    variant = parse_variant(device, runtime, backend, precision, threads)
    if variant.is_simulated:
        raise UsageError("a simulated device knows blocks alone, no operations; break down on a real one")
    if picture is not None:
        from orchestrator.report.breakdown_figure import check_suffix

        check_suffix(picture)
    specs = {name: _spec(name, variant) for name in dict.fromkeys(model)}
    with resolve(device, parse_access(agent, allow, app)) as found:
        if threads is None and device != "host":
            variant = default_threads(found, variant)
        with found.connect() as client:
            hello = client.hello()
        check_runtime(found.name, hello, variant)
        settings = _Settings(found, variant, method, parse_budget(budget), seed, workers)
        networks = [_break_down(name, spec, settings, hello) for name, spec in specs.items()]
    result = document(hello.device.model_dump(), variant.name, networks, hello.device.simulated)
    if picture is not None:
        from orchestrator.report.breakdown_figure import write_breakdown_figure

        simulated = ", SIMULATED" if hello.device.simulated else ""
        write_breakdown_figure(picture, networks, f"{device}, {variant.name}{simulated}")
        say(f"picture in {picture}")
    if as_json:
        emit_json(result)
        return
    for network in networks:
        _show(network, f"{network.model} on {device}, {variant.name}")


def _spec(name: str, variant: Variant) -> ExportSpec:
    if name.endswith(".json"):
        return variant.export_spec(load_arch(name).keys())
    arch = named_arch(name)
    return variant.export_spec(arch.keys()) if arch else variant.export_spec(module=name)


def _break_down(name: str, spec: ExportSpec, settings: _Settings, hello: HelloReply) -> NetworkBreakdown:
    from orchestrator.breakdown.removing import WHOLE, census_of, removals

    say(f"{name}: looking for what it is made of")
    found = census_of(spec)
    wanted = {WHOLE: spec} if settings.method == "tracer" else removals(spec, found)
    artifacts, unexported = _exported(wanted, settings.workers)
    attributions = []
    if settings.method != "removal":
        attributions += _traced(name, artifacts[WHOLE], settings, hello)
    if settings.method != "tracer":
        attributions.append(_removed(artifacts, unexported, found, settings))
    parts = {kind: counts.parts for kind, counts in found.items()}
    return NetworkBreakdown(name, artifacts[WHOLE].sha256, parts, tuple(attributions))


def _exported(
    specs: Mapping[str, ExportSpec], workers: int | None
) -> tuple[dict[str, Artifact], dict[str, str]]:
    """Models by id, and why some kinds could not be exported without; the whole network must be."""
    try:
        return export_all(specs, workers), {}
    except ExportError as error:
        failed = {failure.spec.cache_key: failure.message for failure in error.failures}
        if any(not failure.spec.without for failure in error.failures):
            raise
    left = {name: spec for name, spec in specs.items() if spec.cache_key not in failed}
    reasons = {name: failed[spec.cache_key] for name, spec in specs.items() if spec.cache_key in failed}
    return export_all(left, workers), reasons


def _traced(name: str, artifact: Artifact, settings: _Settings, hello: HelloReply) -> list[Attribution]:
    """By the tracer; nothing, and a line that says why, where there is none."""
    from orchestrator.breakdown.tracing import trace, why_untraced

    reason = why_untraced(hello, settings.variant)
    if reason and settings.method == "tracer":
        raise UsageError(reason.replace("by removal alone", "use --method removal"))
    if reason:
        say(f"{name}: {reason}")
        return []
    say(f"{name}: tracing")
    return [trace(settings.device, settings.variant, artifact)]


def _removed(
    artifacts: Mapping[str, Artifact],
    unexported: Mapping[str, str],
    found: Mapping[Kind, Census],
    settings: _Settings,
) -> Attribution:
    from orchestrator.breakdown.removing import find_removal_run, measure_removals

    files = {kind: ModelFile(artifact.path, artifact.sha256) for kind, artifact in artifacts.items()}
    run = find_removal_run(settings.device, settings.variant, files)
    with progress_bar() as progress:
        removed = measure_removals(
            settings.device,
            settings.variant,
            files,
            found,
            run,
            unexported,
            budget_s=settings.budget_s,
            seed=settings.seed,
            progress=progress,
        )
    result = run.folder / "breakdown.json"
    write_json(result, attribution_document(removed))
    run.finish(str(result))
    return removed


def _show(network: NetworkBreakdown, title: str) -> None:
    by = {item.method: item for item in network.attributions}
    rows = [
        {"kind": TITLES[kind], "parts": network.parts.get(kind)} | _cells(by, kind)
        for kind in KINDS
        if any(kind in item.shares for item in by.values())
    ]
    for name, value in (("unexplained", "unexplained_ms"), ("whole", "whole_ms")):
        rows.append({"kind": name} | {method: getattr(item, value) for method, item in by.items()})
    columns = [Column("kind", "kind"), Column("parts", "parts")]
    for method, item in by.items():
        columns.append(Column(method, f"{METHOD_TITLES[method]}, ms", 3))
        for row in rows:
            if isinstance(ms := row.get(method), float):
                row[f"{method}_share"] = ms / item.whole_ms
        columns.append(Column(f"{method}_share", "of the whole", 1, percent=True))
    if "removal" in by:
        columns += [Column("low", "95 % low, ms", 3), Column("high", "high, ms", 3)]
    emit_rows(title, columns, rows, False)
    for item in by.values():
        for note in item.notes:
            print(f"{METHOD_TITLES[item.method]}: {note}")


def _cells(by: Mapping[Method, Attribution], kind: Kind) -> dict[str, Any]:
    shares = {method: item.shares[kind] for method, item in by.items() if kind in item.shares}
    cells: dict[str, Any] = {method: share.ms for method, share in shares.items()}
    if "removal" in shares:
        cells |= {"low": shares["removal"].low, "high": shares["removal"].high}
    return cells
