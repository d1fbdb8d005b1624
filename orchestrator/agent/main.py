"""Starts the host agent: `bench agent`, and `python -m orchestrator.agent` for agents started by a client."""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from luts.errors import UsageError
from orchestrator.agent.contract import TOKEN_VARIABLE
from orchestrator.agent.executorch_runtime import ExecutorchRuntime
from orchestrator.agent.identity import agent_info
from orchestrator.agent.server import Server, listen
from orchestrator.agent.session import Agent
from orchestrator.agent.state import describe_host
from orchestrator.agent.store import DEFAULT_MAX_BYTES, ModelStore

# Besides the end of stdin, which children that a dead parent left behind may hold open. Rare, so that it does
# not wake up inside a timed call more than a few times an hour.
_PARENT_POLL_S = 10.0


def serve_forever(
    port: int,
    token: str,
    store_dir: Path,
    store_max_bytes: int = DEFAULT_MAX_BYTES,
    on_listening: Callable[[int], None] | None = None,
) -> None:
    """Serves on the loopback until interrupted; `on_listening` is called with the port once it is open.

    Raises UsageError for an empty token and DeviceError for a port in use.
    """
    if not token:
        raise UsageError(f"the agent needs a token; set {TOKEN_VARIABLE}")
    with listen(port) as listener:
        agent = Agent(
            token=token,
            store=ModelStore(store_dir, store_max_bytes),
            runtimes={"executorch": ExecutorchRuntime()},
            info=agent_info(),
            device=describe_host(),
        )
        if on_listening is not None:
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
