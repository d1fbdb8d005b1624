"""What the script `bench` imports: next to nothing, because every worker process imports it too."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    try:
        from orchestrator.cli.main import run

        run()
    except KeyboardInterrupt:  # while it imports, or for a second time
        sys.exit(130)
