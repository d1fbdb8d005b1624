"""The service `tcp:PORT`: bytes to and from a port of the phone."""

from __future__ import annotations

import contextlib
import socket
import threading

from tests.support.fakephone.stream import Stream, StreamClosed

_CHUNK_BYTES = 64 * 1024


def bridge(stream: Stream, sock: socket.socket) -> None:
    """Carries bytes both ways until either side ends."""

    def from_client() -> None:
        with contextlib.suppress(OSError):
            for part in iter(stream.read, b""):
                sock.sendall(part)
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    with sock:
        threading.Thread(target=from_client, daemon=True).start()
        with contextlib.suppress(OSError, StreamClosed):
            while part := sock.recv(_CHUNK_BYTES):
                stream.write(part)
