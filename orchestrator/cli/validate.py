"""`bench validate`: a LUT's predictions against fresh measurements."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.amounts import parse_budget
from orchestrator.cli.lut_store import LutsOption, open_store
from orchestrator.cli.options import (
    AccessOptions,
    BudgetOption,
    DeviceOption,
    WorkersOption,
    with_blocks,
)
from orchestrator.cli.output import Column, JsonOption, emit_json, emit_rows, shown_progress, tell
from orchestrator.measure.validate import Validation
from orchestrator.tasks.validate import validate


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("validate")(with_blocks(validate_command))


def validate_command(
    lut: Annotated[str, typer.Option(help="LUT to check.")],
    device: DeviceOption,
    *,
    count: Annotated[int, typer.Option("-n", "--count", min=2, help="Fresh architectures.")] = 30,
    budget: BudgetOption = "10m",
    seed: Annotated[int, typer.Option(help="Of the architectures and the schedule.")] = 0,
    classes: Annotated[
        int | None, typer.Option(min=1, help="Of the architectures; as many as the LUT measured.")
    ] = None,
    reuse: Annotated[
        bool, typer.Option("--reuse", help="Use an equal measurement that was finished.")
    ] = False,
    luts: LutsOption = None,
    access: AccessOptions,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predicted against measured latency of random architectures that the LUT has not seen."""
    with shown_progress() as progress:
        validation = validate(
            lut,
            device,
            access=access.parse(),
            count=count,
            budget_s=parse_budget(budget),
            seed=seed,
            classes=classes,
            reuse=reuse,
            store=open_store(luts),
            workers=workers,
            progress=progress,
        )
    if as_json:
        emit_json(validation.model_dump(exclude={"device", "measured"}))
    else:
        _show(validation)


_COLUMNS = [
    Column("predicted_ms", "predicted ms", 3),
    Column("predicted_low", "low", 3),
    Column("predicted_high", "high", 3),
    Column("measured_ms", "measured ms", 3),
    Column("error", "error", 2, percent=True),
]


def _show(validation: Validation) -> None:
    rows = sorted(validation.comparisons, key=lambda row: row.measured_ms)
    emit_rows(validation.lut, _COLUMNS, [row.model_dump() | {"error": row.error} for row in rows], False)
    tau = "-" if validation.kendall_tau is None else f"{validation.kendall_tau:.3f}"
    tell(
        f"{len(rows)} architectures: MAPE {100 * validation.mape:.2f} %, largest error "
        f"{100 * validation.max_error:.2f} %, within 2/5/10 %: {100 * validation.within_2:.0f}/"
        f"{100 * validation.within_5:.0f}/{100 * validation.within_10:.0f} %, Kendall tau {tau}\n"
        f"{100 * validation.coverage:.0f} % inside the predicted intervals; noise floor "
        f"{100 * validation.noise_floor:.2f} %; reference today / in the LUT {validation.reference_drift:.3f}"
    )
