"""One stream of an adb connection, as the phone sees it: bytes both ways, each message awaiting its OKAY."""

from __future__ import annotations

import threading
from typing import Protocol

from tests.support.fakephone.packets import Command, Packet, ProtocolViolation


class Peer(Protocol):
    """The connection that a stream belongs to."""

    max_payload: int

    def send(self, packet: Packet) -> None:
        """Sends one message; raises OSError when the connection is gone."""


class StreamClosed(Exception):
    """The client closed the stream, or the connection is gone."""


class Stream:
    """Full duplex; one reader and any number of writers."""

    def __init__(self, peer: Peer, local_id: int, remote_id: int) -> None:
        self._peer = peer
        self.local_id = local_id
        self._remote_id = remote_id
        self._changed = threading.Condition()
        self._writing = threading.Lock()
        self._pending: bytes | None = None
        self._unacknowledged = False
        self._closed_by_client = False
        self._closed_here = False

    def accept(self) -> None:
        """Answers the OPEN."""
        self._acknowledge()

    def read(self) -> bytes:
        """The data of the next message, b"" when the client has closed; taking it lets the next one come."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending is not None or self._over)
            data, self._pending = self._pending, None
        if data is None:
            return b""
        self._acknowledge()
        return data

    def write(self, data: bytes) -> None:
        """Sends all of `data`; raises StreamClosed."""
        with self._writing:
            for start in range(0, len(data), self._peer.max_payload):
                self._write_one(data[start : start + self._peer.max_payload])

    def close(self) -> None:
        """Ends the stream, once what was written has been taken."""
        with self._changed:
            if self._closed_here:
                return
            self._closed_here = True
            self._changed.notify_all()
        try:
            self._peer.send(Packet(Command.CLSE, self.local_id, self._remote_id))
        except OSError:
            return

    def refuse(self) -> None:
        """Answers the OPEN with a CLSE."""
        self.local_id = 0
        self.close()

    def deliver(self, data: bytes) -> None:
        """A WRTE came. Raises ProtocolViolation where the one before had not been answered yet."""
        with self._changed:
            if self._pending is not None:
                raise ProtocolViolation("WRTE before the OKAY of the last one")
            self._pending = data
            self._changed.notify_all()

    def acknowledged(self) -> None:
        """An OKAY came. Raises ProtocolViolation where none was awaited."""
        with self._changed:
            if not self._unacknowledged:
                raise ProtocolViolation("OKAY without a WRTE that awaits it")
            self._unacknowledged = False
            self._changed.notify_all()

    def closed_by_client(self) -> None:
        """A CLSE came, or the connection ended."""
        with self._changed:
            self._closed_by_client = True
            self._changed.notify_all()

    @property
    def _over(self) -> bool:
        return self._closed_by_client or self._closed_here

    def _acknowledge(self) -> None:
        try:
            self._peer.send(Packet(Command.OKAY, self.local_id, self._remote_id))
        except OSError:
            self.closed_by_client()

    def _write_one(self, data: bytes) -> None:
        with self._changed:
            if self._over:
                raise StreamClosed
            self._unacknowledged = True
        try:
            self._peer.send(Packet(Command.WRTE, self.local_id, self._remote_id, data))
        except OSError:
            raise StreamClosed from None
        with self._changed:
            self._changed.wait_for(lambda: not self._unacknowledged or self._over)
            if self._unacknowledged:
                raise StreamClosed
