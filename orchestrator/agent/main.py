"""Agents as programs: options, token and first line of output as PROTOCOL.md defines them."""

from __future__ import annotations

import argparse
import json
import os
import select
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from luts.format.errors import BlocktimeError, UsageError
from orchestrator.agent.agent import TOKEN_VARIABLE, Agent
from orchestrator.agent.server import Server, listen
from orchestrator.agent.store import DEFAULT_MAX_BYTES, ModelStore
from orchestrator.wire.errors import exit_code

_PARENT_POLL_S = 10.0
"""Seconds between two checks that the parent lives: another child may keep a dead parent's stdin open. Rare, so
that it does not disturb timed calls."""


def program_options(prog: str, description: str | None) -> argparse.ArgumentParser:
    """Return the options that all agents have as programs."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("--port", type=int, default=0, help="port on the loopback (0: a free one)")
    parser.add_argument("--store", type=Path, required=True, help="folder of the model store")
    parser.add_argument(
        "--store-bytes", type=int, default=DEFAULT_MAX_BYTES, help="largest size of the store"
    )
    parser.add_argument("--parent-watch", action="store_true", help="exit when stdin closes")
    return parser


def run_program(options: argparse.Namespace, make_agent: Callable[[str, ModelStore], Agent]) -> int:
    """Run an agent, made from token and store, and return the exit code."""
    if options.parent_watch:
        watch_parent()
    token = os.environ.pop(TOKEN_VARIABLE, "")
    try:
        if not token:
            raise UsageError(f"the agent needs a token; set {TOKEN_VARIABLE}", code="missing_token")
        serve_forever(
            options.port,
            lambda: make_agent(token, ModelStore(options.store, options.store_bytes)),
            _announce,
        )
    except BlocktimeError as error:
        print(error, file=sys.stderr)
        return exit_code(error)
    except KeyboardInterrupt:
        return 0
    return 0


def serve_forever(port: int, make_agent: Callable[[], Agent], on_listening: Callable[[int], None]) -> None:
    """Serve on the loopback until interrupted.

    Args:
        port: Port; 0 selects a free one.
        make_agent: Makes the agent, after the port is open.
        on_listening: Called with the port once the agent is made.

    Raises:
        DeviceError: The port is in use.
    """
    with listen(port) as listener:
        agent = make_agent()
        on_listening(listener.getsockname()[1])
        Server(agent, listener).serve()


def watch_parent() -> None:
    """End this process when its stdin closes or its parent is gone, so that no agent is orphaned."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            ready, _, _ = select.select([sys.stdin.fileno()], [], [], _PARENT_POLL_S)
            if ready and not os.read(sys.stdin.fileno(), 4096):
                break
        os._exit(0)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _announce(port: int) -> None:
    print(json.dumps({"port": port, "pid": os.getpid()}), flush=True)
