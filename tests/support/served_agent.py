"""An agent of the Python language served in this process, over real sockets."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

from orchestrator.agent.agent import LOOPBACK, Agent
from orchestrator.agent.server import Server, listen
from orchestrator.devices.common.device import Device
from orchestrator.wire.client import AgentClient


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
        thread.join(timeout=300)
        listener.close()


class ServedDevice(Device):
    """A device in this process, whose agent is served on the loopback for as long as it is used."""

    name = "simulated-served"
    identity = ""
    agent_starts = 1

    def __init__(self, agent: Agent) -> None:
        self._token, self._serving = agent.token, serving(agent)

    def describe(self) -> str:
        return "a simulated device"

    def connect(self) -> AgentClient:
        return AgentClient.greeted(
            socket.create_connection((LOOPBACK, self._port)), self._token, 60, self.name
        )

    def __enter__(self) -> ServedDevice:
        self._port = self._serving.__enter__()
        return self

    def __exit__(self, *caught: Any) -> None:
        self._serving.__exit__(*caught)
