"""`bench lut adapt`: adapt a LUT to another device by measuring a few networks on it."""

from __future__ import annotations

import typer

from orchestrator.cli.options import example, with_options
from orchestrator.cli.output import JsonOption
from orchestrator.cli.profile import show_profile
from orchestrator.cli.progress import shown_progress
from orchestrator.tasks.adapt import AdaptCommand, adapt


def register(app: typer.Typer) -> None:
    """Add the command."""
    command = app.command(
        "adapt", epilog=example("bench lut adapt pixel8/autovit-xxs --device iphone13 -n 5")
    )
    command(with_options(adapt_command))


def adapt_command(options: AdaptCommand, as_json: JsonOption = False) -> None:
    """Adapt another device's LUT: measure a few networks, and learn the rest from the LUT.

    Same as bench profile --from LUT with a plan of a few networks of the LUT's space, resolutions and classes.
    """
    with shown_progress() as progress:
        profiled = adapt(options, progress)
    show_profile(profiled, as_json)
