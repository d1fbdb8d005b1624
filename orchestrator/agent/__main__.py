"""`python -m orchestrator.agent`: token from the environment, one JSON line on stdout once it listens."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from luts.errors import BlocktimeError
from orchestrator.agent.contract import TOKEN_VARIABLE
from orchestrator.agent.main import serve_forever, watch_parent
from orchestrator.agent.store import DEFAULT_MAX_BYTES


def main() -> int:
    """Runs the agent; the exit code of an expected error is its class's."""
    parser = argparse.ArgumentParser(prog="python -m orchestrator.agent", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port on the loopback; 0 takes a free one")
    parser.add_argument("--store", type=Path, required=True, help="folder of the model store")
    parser.add_argument(
        "--store-bytes", type=int, default=DEFAULT_MAX_BYTES, help="bound on the store's size"
    )
    parser.add_argument("--parent-watch", action="store_true", help="exit when stdin closes")
    options = parser.parse_args()
    if options.parent_watch:
        watch_parent()
    try:
        serve_forever(
            options.port, os.environ.pop(TOKEN_VARIABLE, ""), options.store, options.store_bytes, _announce
        )
    except BlocktimeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 0
    return 0


def _announce(port: int) -> None:
    print(json.dumps({"port": port, "pid": os.getpid()}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
