"""`bench search`: the best network within a latency, exported, measured and described."""

from __future__ import annotations

import typer

from orchestrator.cli.options import example, with_options
from orchestrator.cli.output import JsonOption, show
from orchestrator.cli.progress import shown_progress
from orchestrator.tasks.search import find_network
from orchestrator.tasks.search_options import SearchCommand


def register(app: typer.Typer) -> None:
    """Add the command."""
    command = app.command(
        "search",
        epilog=example(
            "bench search --lut pixel8 --latency 10ms",
            "bench search --lut pixel8 --latency 10ms --supernet runs/supernet --device pixel8",
        ),
    )
    command(with_options(search_command))


def search_command(options: SearchCommand, as_json: JsonOption = False) -> None:
    """Find the most accurate network within a latency. Rerun the same command to resume an interrupted search.

    Without --supernet, list the networks within the constraints with the most MACs.
    """
    with shown_progress() as progress:
        result = find_network(options, progress)
    show(result, as_json)
