"""What the script `bench` imports: next to nothing, because every worker process imports it too."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from orchestrator.cli.main import run

    run()
