"""Listens on the loopback and serves one client at a time."""

from __future__ import annotations

import errno
import select
import socket
import sys
import threading
import traceback
from typing import Any

from pydantic import ValidationError

from luts.format.errors import first_problem
from orchestrator.agent.agent import LOOPBACK, Agent, ConnectionQueue
from orchestrator.agent.operations import Operations
from orchestrator.wire.errors import DeviceError, FrameError, OpError
from orchestrator.wire.frames import Payload, SocketSource, close_after_answer, read_frame
from orchestrator.wire.messages import (
    REQUESTS,
    ByeRequest,
    Reply,
    Request,
    error_reply,
    reply_frame,
    request_id_of,
)

FRAME_TIMEOUT_S = 30.0
"""Longest pause within a frame; between frames a client may be silent for hours."""


class Connection:
    """Serves one connected client; `serve` returns when the connection is over and everything is freed."""

    def __init__(self, agent: Agent, sock: socket.socket) -> None:
        """Serve the client at the other end of `sock`."""
        self._sock = sock
        self._source = SocketSource(sock)
        self._operations = Operations(agent, self._client_is_there, self._send)
        self._leaving = False

    def serve(self, hello: dict[str, Any]) -> None:
        """Answer the hello, then requests until the client leaves, vanishes or breaks the protocol."""
        try:
            self._answer(hello, Payload(self._source, 0))
            while not self._leaving:
                select.select([self._sock], [], [])
                self._sock.settimeout(FRAME_TIMEOUT_S)
                frame = read_frame(self._source)
                if frame is None:
                    break
                self._answer(*frame)
        except FrameError as error:
            self._reply_last(None, error.code, str(error))
        except TimeoutError:
            self._reply_last(None, "timeout", f"a frame stood still for {FRAME_TIMEOUT_S:.0f} s")
        except OSError:
            pass
        finally:
            self._operations.unload_all()
            close_after_answer(self._sock)

    def _answer(self, header: dict[str, Any], payload: Payload) -> None:
        request_id = request_id_of(header)
        try:
            request = self._parse(header)
            answer = reply_frame(*self._operations.answer(request, payload))
            self._leaving |= isinstance(request, ByeRequest)
        except OpError as error:
            if error.closes:
                self._leaving = True
                self._reply_last(request_id, error.code, str(error))
                return
            answer = reply_frame(error_reply(request_id, error.code, str(error)))
        except (FrameError, OSError):
            raise
        except MemoryError:
            answer = reply_frame(error_reply(request_id, "out_of_memory", "no memory left for this request"))
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            reason = f"the agent failed: {type(error).__name__}: {error}"
            answer = reply_frame(error_reply(request_id, "internal", reason))
        payload.drain()
        self._sock.sendall(answer)

    def _parse(self, header: dict[str, Any]) -> Request:
        op = header.get("op")
        request_type = REQUESTS.get(op) if isinstance(op, str) else None
        if request_type is None:
            raise OpError("unknown_op", f"unknown op {str(op)[:64]!r}; known: {', '.join(REQUESTS)}")
        try:
            return request_type.model_validate(header)
        except ValidationError as error:
            raise OpError("bad_request", f"{op}: {first_problem(error)}") from None

    def _send(self, reply: Reply) -> None:
        self._sock.sendall(reply_frame(reply))

    def _reply_last(self, request_id: int | None, code: str, message: str) -> None:
        """Send the error that ends the connection; a client that is gone does not receive it."""
        try:
            self._sock.settimeout(FRAME_TIMEOUT_S)
            self._sock.sendall(reply_frame(error_reply(request_id, code, message)))
        except OSError:
            return

    def _client_is_there(self) -> bool:
        if not select.select([self._sock], [], [], 0)[0]:
            return True
        try:
            return bool(self._sock.recv(1, socket.MSG_PEEK))
        except OSError:
            return False


_BACKLOG = 128
"""Connections that the system queues until they are accepted, which takes a moment while a model is timed."""


def listen(port: int) -> socket.socket:
    """Return a listening socket on the loopback; port 0 selects a free one.

    Raises:
        DeviceError: The port is in use.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((LOOPBACK, port))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"can't be used: {error.strerror}"
        raise DeviceError(
            f"port {port} {reason}; choose another with --port, or leave it out to use a free one",
            code="port_in_use",
        ) from None
    return sock


class Server:
    """Serves connections in the thread that calls `serve`; waiting ones are accepted in another."""

    def __init__(self, agent: Agent, listener: socket.socket) -> None:
        """Serve clients of `listener`."""
        self._agent = agent
        self._queue = ConnectionQueue(agent.token, listener)

    def serve(self) -> None:
        """Serve clients one after the other until `stop`."""
        threading.Thread(target=self._queue.receive, name="connections", daemon=True).start()
        while (client := self._queue.next_client()) is not None:
            sock, hello = client
            try:
                Connection(self._agent, sock).serve(hello)
            finally:
                self._queue.free_place()

    def stop(self) -> None:
        """Make `serve` return once the current client has gone; from any thread."""
        self._queue.stop()
