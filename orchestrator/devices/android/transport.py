"""The byte pipe under a direct adb connection, as TcpTransport and UsbTransport offer it."""

from __future__ import annotations

from typing import Protocol


class Transport(Protocol):
    """One reader and one writer at a time, in different threads. OSError where the pipe breaks."""

    def connect(self, transport_timeout_s: float | None) -> None:
        """Opens the pipe."""

    def bulk_read(self, numbytes: int, transport_timeout_s: float | None) -> bytes:
        """Up to `numbytes` bytes; none where the timeout passed first."""

    def bulk_write(self, data: bytes, transport_timeout_s: float | None) -> int:
        """Writes all of `data`."""

    def interrupt(self) -> None:
        """Asks a read or write in another thread to end soon."""

    def close(self) -> None:
        """Closes the pipe, which no other thread may be using."""
