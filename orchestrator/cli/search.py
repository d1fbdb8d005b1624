"""`bench search`: the best network within a latency, exported, measured and described."""

from __future__ import annotations

import typer

from orchestrator.cli.options import add_command
from orchestrator.tasks.search import find_network


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(
        app,
        "search",
        find_network,
        "bench search --lut pixel8 --latency 10ms",
        "bench search --lut pixel8 --latency 10ms --supernet runs/supernet --device pixel8",
    )
