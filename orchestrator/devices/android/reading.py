"""Reading exactly so many bytes from a socket before a deadline."""

from __future__ import annotations

import socket
import time


def receive(sock: socket.socket, size_bytes: int, deadline_s: float) -> bytes:
    """`size_bytes` bytes. TimeoutError at the monotonic `deadline_s`, ConnectionResetError at EOF."""
    buffer = bytearray()
    while len(buffer) < size_bytes:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        sock.settimeout(left_s)
        piece = sock.recv(size_bytes - len(buffer))
        if not piece:
            raise ConnectionResetError("the connection ended")
        buffer += piece
    return bytes(buffer)
