"""Listens on the loopback and hands one client at a time to a connection of its own."""

from __future__ import annotations

import errno
import socket
import threading

from orchestrator.agent.agent import Agent
from orchestrator.agent.connection import Connection
from orchestrator.agent.contract import LOOPBACK
from orchestrator.agent.reception import Reception
from orchestrator.wire.errors import DeviceError

# Connections that the system holds until they are accepted, which takes a moment even while a model is timed.
_BACKLOG = 128


def listen(port: int) -> socket.socket:
    """A listening socket on the loopback; port 0 takes a free one. DeviceError where the port is in use."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((LOOPBACK, port))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"can't be used: {error.strerror}"
        raise DeviceError(
            f"port {port} {reason}; choose another with --port, or leave it out to take a free one"
        ) from None
    return sock


class Server:
    """Serves connections in the thread that calls `serve`; those who wait are received in another."""

    def __init__(self, agent: Agent, listener: socket.socket) -> None:
        self._agent = agent
        self._reception = Reception(agent.token, listener)

    def serve(self) -> None:
        """Serves clients one after the other until `stop`."""
        threading.Thread(target=self._reception.receive, name="reception", daemon=True).start()
        while (client := self._reception.next_client()) is not None:
            sock, hello = client
            try:
                Connection(self._agent, sock).serve(hello)
            finally:
                self._reception.free_place()

    def stop(self) -> None:
        """Makes `serve` return once the client that it serves has gone. For any thread."""
        self._reception.stop()
