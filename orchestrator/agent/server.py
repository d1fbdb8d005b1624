"""Listens on the loopback and serves one client at a time; agents as programs, as PROTOCOL.md defines them."""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import resource
import select
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from luts.format.errors import BlocktimeError, UsageError, first_problem
from orchestrator.agent.agent import LOOPBACK, MAX_WAITING, TOKEN_VARIABLE, Agent, ConnectionQueue
from orchestrator.agent.operations import Operations
from orchestrator.agent.store import DEFAULT_MAX_BYTES, ModelStore
from orchestrator.wire.errors import AgentError, DeviceError, FrameError, exit_code
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
        except AgentError as error:
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
            raise AgentError("unknown_op", f"unknown op {str(op)[:64]!r}; known: {', '.join(REQUESTS)}")
        try:
            return request_type.model_validate(header)
        except ValidationError as error:
            raise AgentError("bad_request", f"{op}: {first_problem(error)}") from None

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


_DESCRIPTORS = 2 * MAX_WAITING
"""Descriptors for those that wait and for models; macOS gives a process 256 unless it asks for more."""


def listen(port: int) -> socket.socket:
    """Return a listening socket on the loopback; port 0 selects a free one.

    Raises:
        DeviceError: The port is in use.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < _DESCRIPTORS:
        with contextlib.suppress(ValueError, OSError):  # a user's own limit stays, and fewer can wait
            resource.setrlimit(resource.RLIMIT_NOFILE, (_DESCRIPTORS, hard))
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
        with listen(options.port) as listener:
            agent = make_agent(token, ModelStore(options.store, options.store_bytes))
            port = listener.getsockname()[1]
            print(json.dumps({"port": port, "pid": os.getpid()}), flush=True)
            Server(agent, listener).serve()
    except BlocktimeError as error:
        print(error, file=sys.stderr)
        return exit_code(error)
    except KeyboardInterrupt:
        return 0
    return 0


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
