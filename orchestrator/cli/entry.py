"""What the script `bench` imports: next to nothing, because every worker process imports it too."""

from __future__ import annotations

import sys

from orchestrator.cli import stop


def main() -> None:
    """Run the command line."""
    stop.before_it_begins()
    try:
        from orchestrator.cli.main import run

        stop.from_now_on()
        run()
    except KeyboardInterrupt:  # for a second time
        sys.exit(stop.exit_code())
