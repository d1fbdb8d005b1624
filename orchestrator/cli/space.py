"""`bench space` and `bench arch`: search spaces, architectures, and the latencies that they can reach."""

from __future__ import annotations

import typer

from orchestrator.cli.options import add_command, with_options
from orchestrator.cli.output import JsonOption, show
from orchestrator.cli.progress import shown_progress
from orchestrator.tasks.space import (
    ArchView,
    ShowArchOptions,
    arch_table,
    sample_arch,
    show_arch,
    show_space,
    space_table,
)
from search.spaces import Arch


def register(app: typer.Typer) -> None:
    """Add the two groups of commands."""
    spaces = typer.Typer(help="Search spaces.", no_args_is_help=True)
    spaces.command("list")(_list_spaces)
    add_command(spaces, "show", show_space)
    app.add_typer(spaces, name="space")
    archs = typer.Typer(help="Architectures.", no_args_is_help=True)
    archs.command("show", help=ShowArchOptions.__doc__)(with_options(_show_arch))
    archs.command("list")(_list_archs)
    add_command(archs, "sample", sample_arch)
    app.add_typer(archs, name="arch")


def _list_spaces(as_json: JsonOption = False) -> None:
    """List all spaces with their sizes."""
    show(space_table(), as_json)


def _show_arch(options: ShowArchOptions, as_json: JsonOption = False) -> None:
    with shown_progress() as progress:
        shown = show_arch(options, progress)
    show(shown, as_json)
    if isinstance(shown, ArchView) and isinstance(shown.network, Arch) and not as_json:
        print(shown.network.to_json())


def _list_archs(as_json: JsonOption = False) -> None:
    """List the named networks: architectures of spaces, and published networks."""
    show(arch_table(), as_json)
