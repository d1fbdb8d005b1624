"""A TCP proxy between a host and a phone that does something to the connection when a given byte passes."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Direction = Literal["up", "down"]
"""`up` is from the host (the client) to the phone, `down` is back."""

_CHUNK_BYTES = 1 << 16
_REPLAYED_BYTES = 1 << 20
_LINGER_NONE = struct.pack("ii", 1, 0)


@dataclass(eq=False)
class Link:
    """One proxied connection.

    Attributes:
        near, far: Sockets to the client and to the server.
        sent: What the client has sent so far, for a copy of the connection.
        single_bytes: So many of the next bytes are sent one at a time, in either direction.
        thawed: Cleared while nothing is carried.
    """

    near: socket.socket
    far: socket.socket
    sent: bytearray = field(default_factory=bytearray)
    single_bytes: int = 0
    thawed: threading.Event = field(default_factory=threading.Event)

    def cut(self, reset: bool = False) -> None:
        """End the connection on both sides, by a reset or in order."""
        for sock in (self.near, self.far):
            with contextlib.suppress(OSError):
                if reset:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
                sock.shutdown(socket.SHUT_RDWR)
            if reset:
                sock.close()
        self.thawed.set()


class Proxy:
    """Listens on `port` of the loopback until closed, and connects each client to what `dial` returns.

    Attributes:
        carried: Bytes so far, by direction, of all connections together.
        is_down: New connections are closed at once.
        is_frozen: New connections are accepted, and carry nothing.
    """

    def __init__(self, dial: Callable[[], socket.socket], port: int = 0) -> None:
        """Listen on `port`, by default a free one."""
        self._dial = dial
        self.carried: dict[Direction, int] = {"up": 0, "down": 0}
        self.is_down = self.is_frozen = False
        self._armed: tuple[Direction, int, Callable[[Link], None]] | None = None
        self._links: list[Link] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def arm(self, direction: Direction, at_byte: int, action: Callable[[Link], None]) -> None:
        """Call `action` once, between byte `at_byte` of a direction and the one before it."""
        self._armed = direction, at_byte, action

    @property
    def is_armed(self) -> bool:
        """Whether the action has not been called yet."""
        return self._armed is not None

    def cut_all(self) -> None:
        """End all connections."""
        with self._lock:
            links, self._links = self._links, []
        for link in links:
            link.cut()

    def freeze(self) -> None:
        """Carry nothing more, on open connections and on new ones, until closed."""
        self.is_frozen = True
        with self._lock:
            for link in self._links:
                link.thawed.clear()

    def close(self) -> None:
        """Stop listening and end all connections."""
        self.is_down = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut_all()

    def copy(self, link: Link, for_s: float) -> None:
        """Open a second connection, send what the first one has sent, and leave it open for `for_s` seconds."""
        with contextlib.suppress(OSError):
            far = self._dial()
            far.settimeout(for_s)
            far.sendall(bytes(link.sent))
            threading.Thread(target=_drain, args=(far,), name="copy", daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(near,), name="proxied", daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        try:
            if self.is_down:
                raise ConnectionRefusedError
            far = self._dial()
        except OSError:
            near.close()
            return
        link = Link(near, far)
        if not self.is_frozen:
            link.thawed.set()
        with self._lock:
            self._links.append(link)
        for sock in (near, far):
            with contextlib.suppress(OSError):  # a UNIX socket has no delay
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        back = threading.Thread(target=self._pump, args=(link, "down"), name="proxied-back", daemon=True)
        back.start()
        self._pump(link, "up")
        back.join()
        with self._lock:
            if link in self._links:
                self._links.remove(link)
        near.close()
        far.close()

    def _pump(self, link: Link, direction: Direction) -> None:
        source, sink = (link.near, link.far) if direction == "up" else (link.far, link.near)
        try:
            while chunk := source.recv(_CHUNK_BYTES):
                self._carry(link, direction, chunk, sink)
            link.thawed.wait()
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            link.cut()

    def _carry(self, link: Link, direction: Direction, chunk: bytes, sink: socket.socket) -> None:
        with self._lock:
            start = self.carried[direction]
            self.carried[direction] += len(chunk)
            armed, action = self._armed, None
            if armed is not None and armed[0] == direction and start <= armed[1] < start + len(chunk):
                self._armed, action = None, armed[2]
        if action is not None and armed is not None:
            _send(link, direction, chunk[: armed[1] - start], sink)
            action(link)
            chunk = chunk[armed[1] - start :]
        _send(link, direction, chunk, sink)


def _send(link: Link, direction: Direction, data: bytes, sink: socket.socket) -> None:
    link.thawed.wait()
    if direction == "up" and len(link.sent) < _REPLAYED_BYTES:
        link.sent += data
    singly = min(len(data), link.single_bytes)
    link.single_bytes -= singly
    for number in range(singly):
        sink.sendall(data[number : number + 1])
    sink.sendall(data[singly:])


def _drain(sock: socket.socket) -> None:
    """Read what arrives until nothing has for the socket's timeout, then close."""
    with sock, contextlib.suppress(OSError):
        while sock.recv(_CHUNK_BYTES):
            pass
