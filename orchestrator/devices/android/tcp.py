"""adb over TCP: phones in the network, and test phones on the loopback."""

from __future__ import annotations

import contextlib
import select
import socket
import time

from adb_shell.transport.base_transport import BaseTransport

# A phone that leaves the network says nothing; the kernel gives it up after about 25 s of silence.
_KEEPALIVE_IDLE_S = 10
_KEEPALIVE_INTERVAL_S = 5
_KEEPALIVE_PROBES = 3


class TcpTransport(BaseTransport):  # type: ignore[misc]
    """A byte pipe to `host:port`, which one thread may read while another writes.

    Unlike adb_shell's own it writes all or raises, sends small packets at once, and ends with an error at the
    peer's EOF instead of returning nothing forever. OSError where the pipe breaks.
    """

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._sock: socket.socket | None = None

    def connect(self, transport_timeout_s: float | None) -> None:
        """Connects; a refused port is ConnectionRefusedError at once, silence TimeoutError."""
        self._sock = socket.create_connection(self._address, timeout=transport_timeout_s)
        self._sock.setblocking(False)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (
            ("TCP_KEEPIDLE", _KEEPALIVE_IDLE_S),
            ("TCP_KEEPINTVL", _KEEPALIVE_INTERVAL_S),
            ("TCP_KEEPCNT", _KEEPALIVE_PROBES),
        ):
            if hasattr(socket, name):  # macOS lacks some of them
                self._sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def bulk_read(self, numbytes: int, transport_timeout_s: float | None) -> bytes:
        """1 to `numbytes` bytes, or none after the timeout. ConnectionResetError at the peer's EOF."""
        sock = self._connected()
        if not _wait(sock, select.POLLIN, transport_timeout_s):
            return b""
        try:
            data = sock.recv(numbytes)
        except BlockingIOError:
            return b""
        if not data:
            raise ConnectionResetError("the phone closed the connection")
        return data

    def bulk_write(self, data: bytes, transport_timeout_s: float | None) -> int:
        """Writes all of `data`; TimeoutError where the peer does not take it in time."""
        sock, rest = self._connected(), memoryview(data)
        deadline_s = None if transport_timeout_s is None else time.monotonic() + transport_timeout_s
        while rest:
            try:
                rest = rest[sock.send(rest) :]
            except BlockingIOError:
                left_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
                if not _wait(sock, select.POLLOUT, left_s):
                    raise TimeoutError(f"the phone took nothing for {transport_timeout_s:.0f} s") from None
        return len(data)

    def interrupt(self) -> None:
        """Makes a read or write in another thread end now with an error."""
        if self._sock is not None:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Frees the socket; no other thread may be in a read or write."""
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()

    def _connected(self) -> socket.socket:
        if self._sock is None:
            raise ConnectionResetError("the connection is closed")
        return self._sock


def _wait(sock: socket.socket, event: int, timeout_s: float | None) -> bool:
    poll = select.poll()
    poll.register(sock, event)
    return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))
