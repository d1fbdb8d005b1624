"""`bench validate`: a LUT's predictions against fresh measurements."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.measuring import check_device, measure_beside
from orchestrator.cli.options import (
    AgentOption,
    AllowOption,
    AppOption,
    BudgetOption,
    DeviceOption,
    WorkersOption,
    parse_access,
)
from orchestrator.cli.output import Column, JsonOption, emit_json, emit_rows
from orchestrator.coverage import covered_space
from orchestrator.devices.discover import resolve
from orchestrator.measure.plan import model_id
from orchestrator.measure.validate import Validation, compare, fresh_archs, summarise, write_validation
from orchestrator.paths import lut_store
from orchestrator.variant import Variant


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("validate")(validate_command)


def validate_command(
    lut: Annotated[str, typer.Option(help="LUT to check.")],
    device: DeviceOption,
    count: Annotated[int, typer.Option("-n", "--count", min=2, help="Fresh architectures.")] = 30,
    budget: BudgetOption = "10m",
    seed: Annotated[int, typer.Option(help="Of the architectures and the schedule.")] = 0,
    reuse: Annotated[
        bool, typer.Option("--reuse", help="Use an equal measurement that was finished.")
    ] = False,
    luts: Annotated[Path | None, typer.Option("--luts", help="A further folder of LUTs.")] = None,
    agent: AgentOption = "python",
    allow: AllowOption = None,
    app: AppOption = None,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predicted against measured latency of random architectures that the LUT has not seen."""
    store = lut_store(luts)
    ref = store.resolve(lut)
    table = store.load(ref.path)
    variant = Variant.parse(table.meta.variant)
    archs = fresh_archs(covered_space(table), table, count, seed)
    found = resolve(device, parse_access(agent, allow, app))
    with found:
        check_device(found, variant)
        specs = {model_id(arch.keys()): variant.export_spec(arch.keys()) for arch in archs}
        measurement, run = measure_beside(found, variant, table, specs, budget, seed, workers, reuse=reuse)
    validation = summarise(table, compare(table, archs, measurement), measurement)
    path = run.folder / "validation.json"
    write_validation(path, validation, {"lut": str(ref), "device": device, "measured": table.meta.measured})
    run.finish(str(path))
    _show_validation(str(ref), validation, as_json)


def _show_validation(name: str, validation: Validation, as_json: bool) -> None:
    if as_json:
        emit_json({"lut": name} | asdict(validation))
        return
    rows = [asdict(c) | {"error": c.error} for c in validation.comparisons]
    columns = [
        Column("predicted_ms", "predicted ms", 3),
        Column("predicted_low", "low", 3),
        Column("predicted_high", "high", 3),
        Column("measured_ms", "measured ms", 3),
        Column("error", "error", 2, percent=True),
    ]
    emit_rows(name, columns, sorted(rows, key=lambda row: row["measured_ms"]), False)
    tau = "-" if validation.kendall_tau is None else f"{validation.kendall_tau:.3f}"
    print(
        f"{len(rows)} architectures: MAPE {100 * validation.mape:.2f} %, largest error "
        f"{100 * validation.max_error:.2f} %, within 2/5/10 %: {100 * validation.within_2:.0f}/"
        f"{100 * validation.within_5:.0f}/{100 * validation.within_10:.0f} %, Kendall tau {tau}\n"
        f"{100 * validation.coverage:.0f} % inside the predicted intervals; noise floor "
        f"{100 * validation.noise_floor:.2f} %; reference today / in the LUT {validation.reference_drift:.3f}"
    )
