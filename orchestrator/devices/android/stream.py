"""One stream of a direct adb connection, offered as a plain socket."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from collections.abc import Callable

from orchestrator.devices.android import packets
from orchestrator.devices.android.errors import LinkLost

# Sends (command, local id, remote id, payload) to the phone; LinkLost where the connection is gone.
Send = Callable[[int, int, int, bytes], None]


# adbd waits for OKAY before its next packet, except for what a service left when it ended: that it sends at once.
MAX_UNACKNOWLEDGED_BYTES = 4 << 20


class Stream:
    """Carries bytes between `far`, the socket that the caller gets, and a stream of the phone.

    adb's flow control allows one unacknowledged packet in each direction. Two threads turn that into blocking
    reads and writes: one takes from `near` and waits for the phone's OKAY, the other puts into `near` and
    answers OKAY when all is in the socket. So each direction buffers one packet plus the socket's buffers (from
    the phone, at its service's end, MAX_UNACKNOWLEDGED_BYTES), and a caller that stops reading stops the phone
    without holding up other streams. adb knows no half-closed streams: closing either end, or shutting `far` down
    for writing, ends both directions.
    """

    def __init__(
        self, local_id: int, max_payload_bytes: int, send: Send, forget: Callable[[int], None]
    ) -> None:
        self.local_id = local_id
        self._max_payload_bytes = max_payload_bytes
        self._send = send
        self._forget = forget
        self._near, self.far = socket.socketpair()
        self._incoming: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._unacknowledged_bytes = 0
        self._changed = threading.Condition()
        self._remote_id = 0
        self._may_send = False
        self._ended = False

    def wait_open(self, timeout_s: float) -> bool:
        """Whether the phone opened the stream; False where it refused. TimeoutError where it is silent."""
        with self._changed:
            self._changed.wait_for(lambda: self._remote_id or self._ended, timeout_s)
            opened, refused = bool(self._remote_id), self._ended
        if not opened:
            self._near.close()
            self.far.close()
            if not refused:
                raise TimeoutError(f"no answer within {timeout_s:.0f} s")
            return False
        threading.Thread(target=self._carry, name=f"adb-stream-{self.local_id}", daemon=True).start()
        return True

    def on_okay(self, remote_id: int) -> None:
        """The phone opened the stream, or took our last packet."""
        with self._changed:
            if not self._ended:
                self._remote_id = self._remote_id or remote_id
                self._may_send = True
            self._changed.notify_all()

    def on_write(self, payload: bytes) -> None:
        """The phone sent a packet; PacketError where it goes on and on without waiting for OKAY."""
        with self._changed:
            self._unacknowledged_bytes += len(payload)
            if self._unacknowledged_bytes > MAX_UNACKNOWLEDGED_BYTES:
                raise packets.PacketError("the phone sends without waiting for what it sent to be taken")
        self._incoming.put(payload)

    def on_end(self) -> None:
        """The phone closed the stream, or the connection is gone; what has arrived is still delivered."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._incoming.put(None)

    def _carry(self) -> None:
        into_socket = threading.Thread(target=self._carry_in, name=f"adb-into-{self.local_id}", daemon=True)
        into_socket.start()
        self._carry_out()
        into_socket.join()
        with contextlib.suppress(OSError):
            # What nobody will send is taken off first: a close with input unread would be a reset for `far`.
            while self._near.recv(self._max_payload_bytes):
                pass
        self._near.close()

    def _carry_out(self) -> None:
        try:
            while data := self._near.recv(self._max_payload_bytes):
                if self._wait_may_send():
                    self._send(packets.WRTE, self.local_id, self._remote_id, data)
            self._send(packets.CLSE, self.local_id, self._remote_id, b"")
        except (OSError, LinkLost):
            pass
        finally:
            self._forget(self.local_id)
            self.on_end()

    def _wait_may_send(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._may_send or self._ended)
            may_send = not self._ended
            self._may_send = False
        return may_send

    def _carry_in(self) -> None:
        try:
            while (payload := self._incoming.get()) is not None:
                self._near.sendall(payload)
                with self._changed:
                    self._unacknowledged_bytes -= len(payload)
                with contextlib.suppress(LinkLost):  # what has arrived is delivered all the same
                    self._send(packets.OKAY, self.local_id, self._remote_id, b"")
        except OSError:
            pass
        finally:
            with contextlib.suppress(OSError):
                self._near.shutdown(socket.SHUT_RDWR)
