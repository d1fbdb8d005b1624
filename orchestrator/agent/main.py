"""Agents as programs: serve until interrupted, with the options, the token and the first line of PROTOCOL.md."""

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

# Besides the end of stdin, which children that a dead parent left behind may hold open. Rare, so that it does
# not wake up inside a timed call more than a few times an hour.
_PARENT_POLL_S = 10.0


def program_options(prog: str, description: str | None) -> argparse.ArgumentParser:
    """The options that all agents take as programs."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("--port", type=int, default=0, help="port on the loopback; 0 takes a free one")
    parser.add_argument("--store", type=Path, required=True, help="folder of the model store")
    parser.add_argument(
        "--store-bytes", type=int, default=DEFAULT_MAX_BYTES, help="bound on the store's size"
    )
    parser.add_argument("--parent-watch", action="store_true", help="exit when stdin closes")
    return parser


def run_program(options: argparse.Namespace, make_agent: Callable[[str, ModelStore], Agent]) -> int:
    """Runs an agent, made of token and store; the exit code of an expected error is its class's."""
    if options.parent_watch:
        watch_parent()
    token = os.environ.pop(TOKEN_VARIABLE, "")
    try:
        if not token:
            raise UsageError(f"the agent needs a token; set {TOKEN_VARIABLE}")
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
    """Serves on the loopback until interrupted; `on_listening` is called with the port once it is open.

    Raises DeviceError for a port in use, before the agent is made.
    """
    with listen(port) as listener:
        agent = make_agent()
        on_listening(listener.getsockname()[1])
        Server(agent, listener).serve()


def watch_parent() -> None:
    """Ends this process when its stdin closes or its parent is gone, so that no agent is orphaned."""
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
