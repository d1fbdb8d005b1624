"""Whole packets over a byte pipe."""

from __future__ import annotations

import threading
import time

from orchestrator.devices.android import packets
from orchestrator.devices.android.packets import HEADER, Header
from orchestrator.devices.android.transport import Transport

# How long a packet may stand still in the middle of being written or read.
PACKET_TIMEOUT_S = 30.0

# A transport that can't be interrupted (USB) is asked this often whether it shall end.
_POLL_S = 1.0


class Pipe:
    """Sends packets from any thread, receives them in one. OSError where the pipe breaks."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._with_checksum = True
        self._writing = threading.Lock()
        self._closed = False

    def agree(self, version: int) -> None:
        """The phone speaks `version`: after 0x01000000, checksums are left out."""
        self._with_checksum = version <= packets.VERSION_WITH_CHECKSUM

    def send(self, command: int, arg0: int, arg1: int, payload: bytes = b"") -> None:
        """Writes one packet."""
        header = packets.pack_header(command, arg0, arg1, payload, with_checksum=self._with_checksum)
        with self._writing:
            if self._closed:
                raise ConnectionResetError("the connection is closed")
            self._transport.bulk_write(header, PACKET_TIMEOUT_S)
            if payload:
                self._transport.bulk_write(payload, PACKET_TIMEOUT_S)

    def poll_packet(self, timeout_s: float = _POLL_S) -> tuple[Header, bytes] | None:
        """The next packet; None where none has begun within the timeout. PacketError for a broken one."""
        first = self._transport.bulk_read(HEADER.size, timeout_s)
        if not first:
            return None
        header = packets.parse_header(first + self._read(HEADER.size - len(first)))
        return header, self._read(header.payload_bytes)

    def interrupt(self) -> None:
        """Asks whoever reads or writes to end soon."""
        self._transport.interrupt()

    def close(self) -> None:
        """Closes the transport once nobody writes; only the thread that reads may call it."""
        self._transport.interrupt()
        with self._writing:
            self._closed = True
            self._transport.close()

    def _read(self, size_bytes: int) -> bytes:
        buffer = bytearray()
        deadline_s = time.monotonic() + PACKET_TIMEOUT_S
        while len(buffer) < size_bytes:
            piece = self._transport.bulk_read(size_bytes - len(buffer), _POLL_S)
            if piece:
                deadline_s = time.monotonic() + PACKET_TIMEOUT_S
            elif time.monotonic() >= deadline_s:
                raise TimeoutError(f"a packet stood still for {PACKET_TIMEOUT_S:.0f} s")
            buffer += piece
        return bytes(buffer)
