"""An agent of the Python language served in this process, over real sockets."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from orchestrator.agent.agent import Agent
from orchestrator.agent.server import Server, listen


@contextlib.contextmanager
def serving(agent: Agent) -> Iterator[int]:
    """The port that it listens on."""
    listener = listen(0)
    server = Server(agent, listener)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.stop()
        thread.join(timeout=60)
        listener.close()
