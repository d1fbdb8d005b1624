"""Sockets as byte sources, and closing them so that the last answer arrives."""

from __future__ import annotations

import contextlib
import socket
import time

# How long and how much is read after the last answer, so that the answer arrives.
LINGER_S = 1.0
LINGER_BYTES = 4 << 20


class SocketSource:
    """Reads exactly what is asked from a socket, without reading ahead, so that readiness can be polled."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def read(self, size_bytes: int, /) -> bytes:
        """Blocks until `size_bytes` have arrived or the peer has closed; returns what there is."""
        buffer = bytearray(size_bytes)
        view, got = memoryview(buffer), 0
        while got < size_bytes:
            count = self._sock.recv_into(view[got:])
            if not count:
                break
            got += count
        return bytes(view[:got])


def close_after_answer(sock: socket.socket) -> None:
    """Closes after a final answer. Unread input is taken off first, for a bounded time and size.

    A close with input unread makes the kernel reset the connection, and the peer may lose the answer.
    """
    deadline_s = time.monotonic() + LINGER_S
    left_bytes = LINGER_BYTES
    with contextlib.suppress(OSError), sock:
        sock.shutdown(socket.SHUT_WR)
        while left_bytes > 0 and (left_s := deadline_s - time.monotonic()) > 0:
            sock.settimeout(left_s)
            count = len(sock.recv(1 << 16))
            if not count:
                return
            left_bytes -= count
