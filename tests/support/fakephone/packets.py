"""Messages of the adb protocol (AOSP packages/modules/adb/protocol.txt): a 24-byte header and its data."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from enum import IntEnum

HEADER = struct.Struct("<6I")
VERSION_MIN = 0x01000000
VERSION_SKIP_CHECKSUM = 0x01000001
# What a phone of today announces; AOSP's MAX_PAYLOAD.
MAX_PAYLOAD_BYTES = 1024 * 1024


class Command(IntEnum):
    """The commands that a phone handles; SYNC (the old one) and STLS are refused."""

    CNXN = 0x4E584E43
    AUTH = 0x48545541
    OPEN = 0x4E45504F
    OKAY = 0x59414B4F
    CLSE = 0x45534C43
    WRTE = 0x45545257


class ProtocolViolation(Exception):
    """The peer broke the protocol; a phone drops the connection."""


@dataclass(frozen=True)
class Packet:
    """One message; `arg0` and `arg1` mean what its command says."""

    command: Command
    arg0: int
    arg1: int
    data: bytes = b""

    def encode(self, checksum: bool) -> bytes:
        """Header and data; the sum of the data's bytes is 0 once both sides have agreed to skip it."""
        total = sum(self.data) & 0xFFFFFFFF if checksum else 0
        magic = self.command ^ 0xFFFFFFFF
        return HEADER.pack(self.command, self.arg0, self.arg1, len(self.data), total, magic) + self.data


def receive_exactly(sock: socket.socket, size: int) -> bytes:
    """`size` bytes; raises EOFError where the stream ends before."""
    parts = bytearray()
    while len(parts) < size:
        part = sock.recv(min(size - len(parts), 1 << 16))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


@dataclass
class Terms:
    """What is agreed on; the reader looks it up after a header, for it changes while it waits for one."""

    max_payload: int
    peer_version: int = VERSION_MIN


def receive_packet(sock: socket.socket, terms: Terms) -> Packet:
    """The next message. Raises ProtocolViolation for a broken one and EOFError at the end.

    A peer of the version that may skip checksums sends 0 instead; a client that connects again does so from its
    first message.
    """
    number, arg0, arg1, size, total, magic = HEADER.unpack(receive_exactly(sock, HEADER.size))
    if number ^ magic != 0xFFFFFFFF:
        raise ProtocolViolation(f"magic {magic:#x} does not belong to command {number:#x}")
    if size > terms.max_payload:
        raise ProtocolViolation(f"payload of {size} bytes is over the agreed {terms.max_payload}")
    try:
        command = Command(number)
    except ValueError:
        raise ProtocolViolation(f"unknown command {number:#x}") from None
    data = receive_exactly(sock, size)
    version = arg0 if command is Command.CNXN else terms.peer_version
    skipped = total == 0 and version >= VERSION_SKIP_CHECKSUM
    if not skipped and sum(data) & 0xFFFFFFFF != total:
        raise ProtocolViolation(f"checksum of {command.name} is {total:#x}, not that of its data")
    return Packet(command, arg0, arg1, data)
