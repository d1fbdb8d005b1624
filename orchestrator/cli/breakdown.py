"""`bench breakdown`: what the latency of networks is made of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from luts.format.errors import UsageError
from luts.format.table import Column
from orchestrator.breakdown.attribution import (
    METHOD_TITLES,
    Attribution,
    Breakdown,
    Method,
    MethodChoice,
    NetworkBreakdown,
)
from orchestrator.breakdown.roofline import Roof
from orchestrator.cli.options import (
    AccessOptions,
    BudgetOption,
    DeviceOption,
    NetworksOption,
    SelfTestOption,
    TaskOptions,
    VariantOptions,
    WorkersOption,
    target_of,
    with_options,
)
from orchestrator.cli.output import JsonOption, emit_json, emit_rows, say, shown_progress, tell
from orchestrator.cli.output_files import output_files, write_table
from orchestrator.export.lower.kinds import KINDS, PART_TITLES, TITLES, Kind
from orchestrator.tasks.breakdown import break_down
from orchestrator.tasks.parsing import parse_budget

OUTPUTS = (".svg", ".png", ".pdf", ".json")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("breakdown")(with_options(breakdown_command))


def breakdown_command(
    device: DeviceOption,
    *,
    model: NetworksOption = None,
    task: TaskOptions,
    method: Annotated[
        MethodChoice, typer.Option(help="ExecuTorch's event tracer, removal of each kind, or both.")
    ] = "both",
    variant: VariantOptions,
    budget: BudgetOption = "2m",
    seed: Annotated[int, typer.Option(help="Of the schedule.")] = 0,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "--output",
            "-o",
            help="Draw stacked bars into a .svg, .png or .pdf, or write a .json; repeatable.",
        ),
    ] = None,
    operators: Annotated[
        Path | None,
        typer.Option(
            help="Draw what attention is made of, and operators against what this machine reaches, into a .svg, "
            ".png or .pdf."
        ),
    ] = None,
    access: AccessOptions,
    self_test: SelfTestOption = True,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Latency by kind of operation: attention, MLP, convolution and so on; the budget is for each network."""
    target, budget_s = target_of(device, variant, access), parse_budget(budget)
    if not model:
        raise UsageError("nothing to break down; give --model (or --arch)")
    files = output_files(output, OUTPUTS)
    drawn = output_files([operators] if operators else None, OUTPUTS[:3])
    if drawn and method == "removal":
        raise UsageError("--operators takes the event tracer; leave --method out")
    with shown_progress() as progress:
        broken_down = break_down(
            task.of(model),
            target,
            method=method,
            budget_s=budget_s,
            seed=seed,
            self_test=self_test,
            workers=workers,
            progress=progress,
        )
    title = f"{device}, {broken_down.variant.name}"
    for file in files:
        _write(file, broken_down, title)
        say(f"written to {file}")
    for file in drawn:
        _draw_operators(file, broken_down, title)
        say(f"written to {file}")
    if as_json:
        emit_json(broken_down.to_dict())
        return
    for network in broken_down.networks:
        _show(network, f"{network.model} on {title}")


def _write(file: Path, broken_down: Breakdown, title: str) -> None:
    if file.suffix == ".json":
        write_table(file, broken_down.to_dict())
        return
    from orchestrator.report.figures import write_breakdown_figure

    simulated = ", SIMULATED" if broken_down.device.simulated else ""
    write_breakdown_figure(file, broken_down.networks, f"{title}{simulated}")


def _draw_operators(file: Path, broken_down: Breakdown, title: str) -> None:
    from orchestrator.report.figures import write_operators_figure

    write_operators_figure(file, broken_down.networks, title)


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
    if "tracer" in by and by["tracer"].roof:
        _show_parts(by["tracer"], by["tracer"].roof)
    for item in by.values():
        for note in item.notes:
            tell(f"{METHOD_TITLES[item.method]}: {note}")


def _cells(by: Mapping[Method, Attribution], kind: Kind) -> dict[str, Any]:
    shares = {method: item.shares[kind] for method, item in by.items() if kind in item.shares}
    cells: dict[str, Any] = {method: share.ms for method, share in shares.items()}
    if "removal" in shares:
        cells |= {"low": shares["removal"].low, "high": shares["removal"].high}
    return cells


_PARTS = [
    Column("kind", "kind"),
    Column("part", "of which"),
    Column("operators", "operators", spare=3),
    Column("ms", "ms", 3),
    Column("share", "of the whole", 1, percent=True),
    Column("macs", "MACs", counted=True, spare=1),
    Column("data_bytes", "bytes", counted=True, spare=1),
    Column("roof_ms", "at the roof, ms", 3),
    Column("memory_bound", "of its ms memory-bound", 0, percent=True),
]


def _show_parts(item: Attribution, roof: Roof) -> None:
    rows = [
        part.to_dict()
        | {
            "kind": TITLES[part.kind],
            "part": PART_TITLES[part.part],
            "share": part.ms / item.whole_ms,
            "memory_bound": part.memory_bound_ms / part.ms if part.ms else None,
        }
        for part in item.parts
    ]
    emit_rows("what each is made of", _PARTS, rows, False)
    tell(
        f"the roof: {roof.gmacs_s:.1f} GMAC/s in a matrix product, {roof.gbytes_s:.1f} GB/s in a copy of 16 MiB, "
        "called between the network's rounds; what lies in a cache can be faster"
    )
