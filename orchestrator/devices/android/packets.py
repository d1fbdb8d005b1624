"""Packets of the adb protocol between a host and a phone (AOSP, packages/modules/adb/protocol.txt)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

HEADER = struct.Struct("<6I")

# The first version whose peers leave the checksum out; a phone that answers an older one gets checksums. Those
# that arrive are not looked at, as in adb itself: TCP and USB have better ones.
VERSION = 0x01000001
VERSION_WITH_CHECKSUM = 0x01000000

# What this side takes in one packet.
MAX_PAYLOAD_BYTES = 256 << 10

AUTH_TOKEN, AUTH_SIGNATURE, AUTH_PUBLIC_KEY = 1, 2, 3


def _command(name: bytes) -> int:
    return int.from_bytes(name, "little")


AUTH = _command(b"AUTH")
CNXN = _command(b"CNXN")
CLSE = _command(b"CLSE")
OKAY = _command(b"OKAY")
OPEN = _command(b"OPEN")
STLS = _command(b"STLS")
WRTE = _command(b"WRTE")


class PacketError(ValueError):
    """The bytes are not a packet of the adb protocol."""


@dataclass(frozen=True)
class Header:
    """`arg0` and `arg1` are the sender's and the receiver's stream ids except in CNXN and AUTH."""

    command: int
    arg0: int
    arg1: int
    payload_bytes: int


def checksum(payload: bytes) -> int:
    """Sum of all bytes, modulo 2^32."""
    return int(np.frombuffer(payload, np.uint8).sum(dtype=np.uint64)) & 0xFFFFFFFF


def pack_header(command: int, arg0: int, arg1: int, payload: bytes, *, with_checksum: bool) -> bytes:
    """The 24 bytes before `payload`."""
    total = checksum(payload) if with_checksum else 0
    return HEADER.pack(command, arg0, arg1, len(payload), total, command ^ 0xFFFFFFFF)


def parse_header(raw: bytes) -> Header:
    """The header in 24 bytes; PacketError where they are none or announce more than MAX_PAYLOAD_BYTES."""
    command, arg0, arg1, payload_bytes, _, magic = HEADER.unpack(raw)
    if magic != command ^ 0xFFFFFFFF:
        raise PacketError(f"the phone sent {raw[:8].hex()} where an adb packet begins")
    if payload_bytes > MAX_PAYLOAD_BYTES:
        raise PacketError(f"the phone announced {payload_bytes} bytes; {MAX_PAYLOAD_BYTES} were agreed")
    return Header(command, arg0, arg1, payload_bytes)
