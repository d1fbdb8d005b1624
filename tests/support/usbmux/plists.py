"""Exact reads and the two ways in which plists are framed: by usbmuxd and by the services of a phone."""

from __future__ import annotations

import plistlib
import socket
import struct
from typing import Any

MAX_PLIST_BYTES = 1 << 20


def receive(sock: socket.socket, size_bytes: int) -> bytes:
    """Exactly `size_bytes`; ConnectionError where the peer closes before."""
    data = bytearray()
    while len(data) < size_bytes:
        piece = sock.recv(size_bytes - len(data))
        if not piece:
            raise ConnectionError("the peer closed")
        data += piece
    return bytes(data)


def read_mux(sock: socket.socket) -> tuple[int, dict[str, Any]]:
    """A request to usbmuxd: its tag and plist. ConnectionError for anything but protocol version 1."""
    length, version, kind, tag = struct.unpack("<IIII", receive(sock, 16))
    if (version, kind) != (1, 8) or not 16 < length <= MAX_PLIST_BYTES:
        raise ConnectionError("not the plist protocol")
    return tag, plistlib.loads(receive(sock, length - 16))


def send_mux(sock: socket.socket, tag: int, message: dict[str, Any]) -> None:
    """An answer or event of usbmuxd."""
    body = plistlib.dumps(message)
    sock.sendall(struct.pack("<IIII", 16 + len(body), 1, 8, tag) + body)


def read_service(sock: socket.socket) -> dict[str, Any]:
    """A request to lockdownd or installation_proxy."""
    (length,) = struct.unpack(">I", receive(sock, 4))
    if length > MAX_PLIST_BYTES:
        raise ConnectionError(f"a message of {length} bytes")
    return plistlib.loads(receive(sock, length))


def send_service(sock: socket.socket, message: dict[str, Any]) -> None:
    """An answer of lockdownd or installation_proxy."""
    body = plistlib.dumps(message)
    sock.sendall(struct.pack(">I", len(body)) + body)
