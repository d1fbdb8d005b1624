"""A direct adb connection: one pipe to the phone's adbd that carries any number of streams at once.

adb_shell's own io manager holds one lock over both directions, so that a stream that waits for data keeps all
others from sending; and over USB there is only one pipe. Hence this one: a thread reads all packets and hands
them to their streams, it never writes, so that two full pipes can't wait for each other.
"""

from __future__ import annotations

import socket
import threading

from orchestrator.devices.android import packets
from orchestrator.devices.android.errors import LinkLost, ServiceRefused
from orchestrator.devices.android.handshake import Welcome
from orchestrator.devices.android.packets import PacketError
from orchestrator.devices.android.pipe import Pipe
from orchestrator.devices.android.stream import Stream

# Opening a service is a matter of milliseconds; a phone that takes longer is asleep, hung or gone.
OPEN_TIMEOUT_S = 20.0


class AdbConnection:
    """The streams over a pipe whose handshake is done. `phone` is how errors call the device."""

    def __init__(self, pipe: Pipe, welcome: Welcome, phone: str) -> None:
        self.welcome = welcome
        self._pipe = pipe
        self._phone = phone
        self._streams: dict[int, Stream] = {}
        self._lock = threading.Lock()
        self._next_id = 0
        self._lost = ""
        self._reader = threading.Thread(target=self._read, name="adb-reader", daemon=True)
        self._reader.start()

    def open(self, service: str, timeout_s: float = OPEN_TIMEOUT_S) -> socket.socket:
        """A socket to a service of the phone such as `tcp:47613`.

        ServiceRefused where the phone does not offer it, LinkLost where the connection is or gets lost.
        """
        destination = service.encode() + b"\0"
        if len(destination) > self.welcome.max_payload_bytes:
            raise ServiceRefused(
                f"{self._phone} takes no command of {len(destination)} bytes: {service[:40]}…"
            )
        stream = self._new_stream()
        try:
            self._send(packets.OPEN, stream.local_id, 0, destination)
            opened = stream.wait_open(timeout_s)
        except TimeoutError as error:
            self._end(str(error))
            raise self._link_lost() from None
        if not opened:
            self._forget(stream.local_id)
            if self._lost:
                raise self._link_lost()
            raise ServiceRefused(f"{self._phone} refused {service}: nothing there answers")
        return stream.far

    def close(self) -> None:
        """Ends all streams and frees the pipe."""
        self._end("it was closed")
        self._reader.join()

    def _new_stream(self) -> Stream:
        with self._lock:
            if self._lost:
                raise self._link_lost()
            self._next_id += 1
            stream = Stream(self._next_id, self.welcome.max_payload_bytes, self._send, self._forget)
            self._streams[stream.local_id] = stream
        return stream

    def _send(self, command: int, local_id: int, remote_id: int, payload: bytes) -> None:
        try:
            self._pipe.send(command, local_id, remote_id, payload)
        except OSError as error:
            self._end(str(error))
            raise self._link_lost() from None

    def _read(self) -> None:
        try:
            while not self._lost:
                if (packet := self._pipe.poll_packet()) is not None:
                    self._dispatch(*packet)
        except (OSError, PacketError) as error:
            self._end(str(error))
        finally:
            with self._lock:
                streams = list(self._streams.values())
            for stream in streams:
                stream.on_end()
            self._pipe.close()

    def _dispatch(self, header: packets.Header, payload: bytes) -> None:
        with self._lock:
            stream = self._streams.get(header.arg1)
        if stream is None:  # a stream that this side has closed; the phone learns of it by our CLSE
            return
        if header.command == packets.OKAY:
            stream.on_okay(header.arg0)
        elif header.command == packets.WRTE:
            stream.on_write(payload)
        elif header.command == packets.CLSE:
            stream.on_end()

    def _forget(self, local_id: int) -> None:
        with self._lock:
            self._streams.pop(local_id, None)

    def _end(self, reason: str) -> None:
        """Notes the first reason for the end and wakes the reader, which then ends the streams."""
        with self._lock:
            self._lost = self._lost or reason
        self._pipe.interrupt()

    def _link_lost(self) -> LinkLost:
        return LinkLost(
            f"the adb connection to {self._phone} is gone: {self._lost}; check its cable or network"
        )
