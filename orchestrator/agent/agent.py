"""An agent's shared state, and how it admits one client at a time."""

from __future__ import annotations

import contextlib
import errno
import hmac
import math
import queue
import selectors
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from luts.format.errors import first_problem
from orchestrator.agent.device import read_state
from orchestrator.agent.runtime import Runtime
from orchestrator.agent.store import ModelStore
from orchestrator.agent.timing import spin
from orchestrator.wire.errors import AgentError, FrameError
from orchestrator.wire.frames import LINGER_BYTES, LINGER_S, PREFIX_BYTES, decode_header, read_header_length
from orchestrator.wire.messages import (
    PROTOCOL_VERSION,
    AgentInfo,
    DeviceInfo,
    DeviceState,
    HelloRequest,
    error_reply,
    reply_frame,
    request_id_of,
)

TOKEN_VARIABLE = "BLOCKTIME_TOKEN"
ALLOW_VARIABLE = "BLOCKTIME_ALLOW"
LOOPBACK = "127.0.0.1"
PHONE_PORT = 47613


@dataclass(frozen=True)
class Agent:
    """Shared state of an agent's connections; clock, sleep and state are the machine's or simulated.

    Attributes:
        token: Secret that clients must know.
        store: Model files.
        runtimes: Runtimes by name.
        info: Name and version of the agent.
        device: What the device is.
        clock: Monotonic nanoseconds.
        state: Reads the device's state.
        sleep: Waits for some seconds.
        spin: Keeps the processor busy for a moment before calls; None: not supported.
    """

    token: str
    store: ModelStore
    runtimes: Mapping[str, Runtime]
    info: AgentInfo
    device: DeviceInfo
    clock: Callable[[], int] = time.perf_counter_ns
    state: Callable[[], DeviceState] = read_state
    sleep: Callable[[float], None] = time.sleep
    spin: Callable[[], None] | None = spin


def read_hello(header: dict[str, Any]) -> HelloRequest:
    """Return the hello in a connection's first header; raises AgentError for another or an invalid request."""
    if header.get("op") != "hello":
        raise AgentError("unauthorized", "say hello first", closes=True)
    try:
        return HelloRequest.model_validate(header)
    except ValidationError as error:
        raise AgentError("bad_request", f"hello: {first_problem(error)}", closes=True) from None


def refusal_of(hello: HelloRequest, token: str) -> AgentError | None:
    """Return why a hello is refused, or None; the token is checked first."""
    if not hmac.compare_digest(hello.token.encode(errors="replace"), token.encode()):
        return AgentError(
            "unauthorized", "wrong token; use the one that the agent was started with", closes=True
        )
    if hello.protocol != PROTOCOL_VERSION:
        return AgentError(
            "protocol_version",
            f"this agent speaks protocol {PROTOCOL_VERSION}, not {hello.protocol}; "
            "install the same version of blocktime on both sides",
            closes=True,
        )
    return None


HELLO_TIMEOUT_S = 10.0
"""Time in which a hello must have arrived."""

HANDOVER_S = 2.0
"""How long a hello waits for its turn: models of a client that has just left may still be being freed."""

MAX_WAITING = 512
"""Waiting connections; a further one replaces the one that has waited longest without the token.

So many must come between a client's connection and its hello to replace it. Each takes a descriptor, of which
systems give a process 1,024 or more.
"""

MAX_HELLO_BYTES = 4096
"""What a stranger can make the agent store and parse; a hello with the longest token fits."""

_ACCEPTED_AT_ONCE = 64
"""Connections that are accepted before those that wait are read again: a client behind hundreds is reached soon."""

_RETRY_S = 0.1
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

Client = tuple[socket.socket, dict[str, Any]]
"""A connection whose hello is correct and not yet answered, with the hello's header."""


@dataclass(eq=False)
class _Visitor:
    """A connection that waits for its hello, then (`header` set) for its turn, or (`is_leaving`) to end."""

    sock: socket.socket
    deadline_s: float = math.inf
    received: bytearray = field(default_factory=bytearray)
    header: dict[str, Any] | None = None
    refusal: AgentError | None = None
    is_leaving: bool = False
    left_bytes: int = LINGER_BYTES

    @property
    def holds_token(self) -> bool:
        return self.header is not None and self.refusal is None and not self.is_leaving


class ConnectionQueue:
    """Accepts connections in the thread that calls `receive`; `next_client` is for the thread that serves.

    One thread handles all waiting connections and sleeps until something happens, so that it does not disturb
    timing.
    """

    def __init__(self, token: str, listener: socket.socket) -> None:
        """Accept connections of `listener` whose hello has the token."""
        self._token = token
        self._listener = listener
        self._clients: queue.SimpleQueue[Client | None] = queue.SimpleQueue()
        self._visitors: dict[_Visitor, None] = {}
        self._greeted: dict[_Visitor, None] = {}
        self._next_deadline_s = math.inf
        self._is_taken = False
        self._waking, self._woken = socket.socketpair()
        self._selector = selectors.DefaultSelector()

    def next_client(self) -> Client | None:
        """Wait for the next client; None when the queue has stopped. Call `free_place` afterwards."""
        return self._clients.get()

    def free_place(self) -> None:
        """Note that the current client is gone."""
        self._wake(b"f")

    def stop(self) -> None:
        """End `receive`, from any thread; waiting connections are closed."""
        self._wake(b"s")

    def receive(self) -> None:
        """Accept connections until stopped."""
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        while not self._turn():
            pass
        for visitor in list(self._visitors):
            self._drop(visitor)
        for closing in (self._selector, self._waking, self._woken):
            closing.close()
        self._clients.put(None)

    def _turn(self) -> bool:
        """Wait until something happens, and handle it; return whether that was to stop."""
        left_s = self._next_deadline_s - time.monotonic()
        timeout_s = max(0.0, left_s) if self._visitors else None
        # New connections come last, so that none drives out a client whose hello has already arrived.
        ready = [key for key, _ in self._selector.select(timeout_s)]
        for key in sorted(ready, key=lambda key: key.fileobj is self._listener):
            if key.fileobj is self._woken:
                signals = self._woken.recv(64)
                if b"s" in signals:
                    return True
                self._is_taken = False
            elif key.fileobj is self._listener:
                for _ in range(_ACCEPTED_AT_ONCE):
                    if not self._accept():
                        break
            elif key.data in self._visitors:
                self._hear(key.data)
        self._refuse_late()
        self._seat()
        return False

    def _accept(self) -> bool:
        """Accept a connection; return False if there is none."""
        try:
            sock, _ = self._listener.accept()
        except OSError as error:
            if error.errno in _NO_DESCRIPTOR and not self._drop_oldest():
                time.sleep(_RETRY_S)
            return False
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self._visitors) >= MAX_WAITING:
            self._drop_oldest()
        visitor = _Visitor(sock)
        self._visitors[visitor] = None
        self._let_wait(visitor, HELLO_TIMEOUT_S)
        self._selector.register(sock, selectors.EVENT_READ, visitor)
        return True

    def _let_wait(self, visitor: _Visitor, seconds: float) -> None:
        visitor.deadline_s = time.monotonic() + seconds
        self._next_deadline_s = min(self._next_deadline_s, visitor.deadline_s)

    def _drop_oldest(self) -> bool:
        """Close the connection that has waited longest, those with the token last; return False if none waits."""
        strangers = (visitor for visitor in self._visitors if not visitor.holds_token)
        oldest = next(strangers, None) or next(iter(self._visitors), None)
        if oldest is not None:
            self._drop(oldest)
        return oldest is not None

    def _drop(self, visitor: _Visitor) -> None:
        self._forget(visitor)
        visitor.sock.close()

    def _forget(self, visitor: _Visitor) -> None:
        del self._visitors[visitor]
        self._greeted.pop(visitor, None)
        self._ignore(visitor)

    def _ignore(self, visitor: _Visitor) -> None:
        with contextlib.suppress(KeyError):
            self._selector.unregister(visitor.sock)

    def _hear(self, visitor: _Visitor) -> None:
        try:
            if visitor.is_leaving:
                dropped = len(visitor.sock.recv(1 << 16))
                visitor.left_bytes -= dropped
                if not dropped or visitor.left_bytes <= 0:
                    self._drop(visitor)
            else:
                while visitor.header is None and visitor in self._visitors:
                    self._read_hello(visitor)
        except BlockingIOError:
            return
        except (FrameError, AgentError) as error:
            self._refuse(visitor, error.code, str(error))
        except OSError:
            self._drop(visitor)

    def _read_hello(self, visitor: _Visitor) -> None:
        """Read what has arrived of the hello, and nothing after it."""
        received = visitor.received
        missing_bytes = _hello_bytes(received) - len(received)
        piece = visitor.sock.recv(missing_bytes)
        received += piece
        if not piece and not received:
            self._drop(visitor)
        elif not piece:
            raise FrameError("truncated", "the stream ended inside the first frame")
        elif len(received) == _hello_bytes(received):
            visitor.header = decode_header(bytes(received[PREFIX_BYTES:]))
            visitor.refusal = refusal_of(read_hello(visitor.header), self._token)
            self._greeted[visitor] = None
            self._let_wait(visitor, HANDOVER_S)
            self._ignore(visitor)

    def _refuse_late(self) -> None:
        now_s = time.monotonic()
        if now_s < self._next_deadline_s:
            return
        for visitor in [visitor for visitor in self._visitors if visitor.deadline_s <= now_s]:
            if visitor.is_leaving:
                self._drop(visitor)
            elif visitor.header is None:
                self._refuse(visitor, "timeout", f"no hello within {HELLO_TIMEOUT_S:.0f} s")
            elif self._is_taken:
                self._refuse(visitor, "busy", "another client is connected; wait for it to end, or stop it")
        self._next_deadline_s = min((visitor.deadline_s for visitor in self._visitors), default=math.inf)

    def _seat(self) -> None:
        """Give the place, if free, to the first connection that has greeted with the token; refuse the others."""
        for visitor in list(self._greeted):
            if self._is_taken:
                return
            if visitor.refusal is not None:
                self._refuse(visitor, visitor.refusal.code, str(visitor.refusal))
            elif visitor.header is not None:
                self._is_taken = True
                self._forget(visitor)
                visitor.sock.setblocking(True)
                self._clients.put((visitor.sock, visitor.header))

    def _refuse(self, visitor: _Visitor, code: str, message: str) -> None:
        """Answer with a closing error, and wait a little for the peer to read it."""
        request_id = None if visitor.header is None else request_id_of(visitor.header)
        visitor.is_leaving = True
        self._greeted.pop(visitor, None)
        self._let_wait(visitor, LINGER_S)
        try:
            visitor.sock.send(reply_frame(error_reply(request_id, code, message)))
            visitor.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._drop(visitor)
            return
        self._ignore(visitor)
        self._selector.register(visitor.sock, selectors.EVENT_READ, visitor)

    def _wake(self, signal: bytes) -> None:
        with contextlib.suppress(OSError):
            self._waking.send(signal)


def _hello_bytes(received: bytearray) -> int:
    """Return the size of the part being received: the length, then everything; raises FrameError."""
    if len(received) < PREFIX_BYTES:
        return PREFIX_BYTES
    header_bytes = read_header_length(received[:PREFIX_BYTES])
    if header_bytes > MAX_HELLO_BYTES:
        raise FrameError(
            "header_too_large", f"a first header of {header_bytes} bytes is over {MAX_HELLO_BYTES}"
        )
    return PREFIX_BYTES + header_bytes
