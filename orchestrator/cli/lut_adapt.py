"""`bench lut adapt`: adapt a LUT to another device by measuring a few networks on it."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.lut_store import LutArgument
from orchestrator.cli.options import AccessOptions, DeviceOption, VariantOptions, target_of, with_options
from orchestrator.cli.output import JsonOption
from orchestrator.cli.profile import show_profile
from orchestrator.cli.progress import shown_progress
from orchestrator.cli.run_options import ProfilingOptions, RunOptions
from orchestrator.tasks.adapt import FEWEST, adapt


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("adapt")(with_options(adapt_command))


def adapt_command(
    lut: LutArgument,
    device: DeviceOption,
    *,
    networks: Annotated[
        int, typer.Option("-n", min=FEWEST, help="Networks to fit; a third as many more are held out.")
    ] = 5,
    variant: VariantOptions,
    profiling: ProfilingOptions,
    run: RunOptions,
    access: AccessOptions,
    as_json: JsonOption = False,
) -> None:
    """Adapt another device's LUT to a device by measuring a few networks on it.

    The same as bench profile --from LUT with a plan of a few networks, for the LUT's space, resolutions and
    classes.
    """
    target = target_of(device, variant, access)
    with shown_progress() as progress:
        profiled = adapt(lut, target, networks, **profiling.parse(), **run.parse(), progress=progress)
    show_profile(profiled, as_json)
