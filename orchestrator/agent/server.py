"""Listens on the loopback and hands one client at a time to a session."""

from __future__ import annotations

import errno
import queue
import socket
import threading

from luts.errors import DeviceError
from orchestrator.agent.contract import LOOPBACK
from orchestrator.agent.session import Agent, Session
from orchestrator.wire.frames import encode_header
from orchestrator.wire.sockets import close_after_answer

# A client that has just left may still be being cleaned up after; the next one waits for that long.
_HANDOVER_S = 2.0


def listen(port: int) -> socket.socket:
    """A listening socket on the loopback; port 0 takes a free one. DeviceError where the port is in use."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((LOOPBACK, port))
        sock.listen(4)
    except OSError as error:
        sock.close()
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"can't be used: {error.strerror}"
        raise DeviceError(
            f"port {port} {reason}; choose another with --port, or leave it out to take a free one"
        ) from None
    return sock


class Server:
    """Sessions run in the thread that calls `serve`; the accepting thread only sleeps, accepts and refuses.

    It therefore takes no time from a timing loop unless a second client calls during one.
    """

    def __init__(self, agent: Agent, listener: socket.socket) -> None:
        self._agent = agent
        self._listener = listener
        self._place = threading.Semaphore(1)
        self._clients: queue.SimpleQueue[socket.socket | None] = queue.SimpleQueue()

    def serve(self) -> None:
        """Serves clients one after the other until the listener is closed."""
        threading.Thread(target=self._accept, name="accept", daemon=True).start()
        while (sock := self._clients.get()) is not None:
            try:
                Session(self._agent, sock).serve()
            finally:
                self._place.release()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError as error:
                if error.errno == errno.ECONNABORTED:
                    continue
                self._clients.put(None)
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._place.acquire(timeout=_HANDOVER_S):
                self._clients.put(sock)
            else:
                _refuse(sock)


def _refuse(sock: socket.socket) -> None:
    message = "another client is connected; wait for it to end, or stop it"
    try:
        sock.settimeout(_HANDOVER_S)
        sock.sendall(encode_header({"id": None, "error": {"code": "busy", "message": message}}))
    except OSError:
        pass
    close_after_answer(sock)
