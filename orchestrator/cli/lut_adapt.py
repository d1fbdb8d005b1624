"""`bench lut adapt`: another device's LUT becomes one of this device by a few measured networks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.amounts import parse_budget
from orchestrator.cli.lut_store import LutArgument, open_store
from orchestrator.cli.options import (
    AccessOptions,
    BudgetOption,
    DeviceOption,
    SelfTestOption,
    VariantOptions,
    WorkersOption,
    parse_name,
    target_of,
    with_blocks,
)
from orchestrator.cli.output import JsonOption, shown_progress
from orchestrator.cli.profile import RunOptions, show_profile
from orchestrator.tasks.adapt import FEWEST, adapt


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("adapt")(with_blocks(adapt_command))


def adapt_command(
    lut: LutArgument,
    device: DeviceOption,
    *,
    networks: Annotated[
        int, typer.Option("-n", min=FEWEST, help="Networks to fit; a third as many more are held out.")
    ] = 5,
    variant: VariantOptions,
    budget: BudgetOption = "15m",
    run: RunOptions,
    luts: Annotated[Path | None, typer.Option("--luts", help="Where the LUT is written.")] = None,
    access: AccessOptions,
    self_test: SelfTestOption = True,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make another device's LUT one of a device: few networks are measured, the LUT tells the rest.

    As bench profile --from LUT with a plan of a few networks; the LUT's space, resolutions and classes.
    """
    target, store = target_of(device, variant, access), open_store(luts, made=True)
    if run.name is not None:
        parse_name(run.name)
    with shown_progress() as progress:
        profiled = adapt(
            lut,
            target,
            networks,
            store=store,
            budget_s=parse_budget(budget),
            self_test=self_test,
            name=run.name,
            run_folder=run.run_folder,
            fresh=run.fresh,
            reuse=run.reuse,
            workers=workers,
            progress=progress,
        )
    show_profile(profiled, as_json)
