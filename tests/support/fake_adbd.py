"""The adb daemon of a fake phone on the network, for clients that speak with a phone without an adb server."""

from __future__ import annotations

import contextlib
import os
import socket
import threading

from adb_shell.adb_message import AdbMessage, unpack
from adb_shell.constants import AUTH, CLSE, CNXN, MESSAGE_SIZE, OKAY, OPEN, WIRE_TO_ID, WRTE

from tests.support.fake_android import FakeAndroid

_VERSION = 0x01000000
_MAX_PAYLOAD_BYTES = 1 << 16
_TOKEN, _PUBLIC_KEY = 1, 3


class FakeAdbd:
    """Listens on a free port until closed.

    Attributes:
        accepts: The user accepts the dialog; otherwise nobody looks at the phone.
        dialogs: How often the phone showed its dialog.
    """

    def __init__(self, phone: FakeAndroid, accepts: bool = True) -> None:
        self.phone = phone
        self.accepts = accepts
        self.dialogs = 0
        self._knows_key = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        phone.serial = self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, name="adbd", daemon=True).start()

    def close(self) -> None:
        """Stop listening, which refuses new connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as adbd does
                self.phone.sockets.append(sock)
                threading.Thread(target=_Connection(self, sock).serve, daemon=True).start()

    def accept_key(self, is_dialog: bool) -> bool:
        """Return whether the phone lets a client in, by its signature or else by asking the user."""
        if is_dialog:
            self.dialogs += 1
            self._knows_key = self._knows_key or self.accepts
        return self._knows_key


class _Connection:
    def __init__(self, adbd: FakeAdbd, sock: socket.socket) -> None:
        self._adbd, self._sock, self._lock = adbd, sock, threading.Lock()
        self._streams: dict[int, socket.socket] = {}
        self._may_send: dict[int, threading.Semaphore] = {}

    def serve(self) -> None:
        with self._sock, self._sock.makefile("rb") as stream, contextlib.suppress(OSError, ValueError):
            while header := stream.read(MESSAGE_SIZE):
                command, arg0, arg1, size, _ = unpack(header)
                self._handle(WIRE_TO_ID[command], arg0, arg1, stream.read(size))
        for near in self._streams.values():
            with contextlib.suppress(OSError):  # a closed socket in which a thread waits stays open
                near.shutdown(socket.SHUT_RDWR)
            near.close()

    def _send(self, command: bytes, arg0: int, arg1: int, data: bytes = b"") -> None:
        message = AdbMessage(command, arg0, arg1, data)
        with self._lock:
            self._sock.sendall(message.pack() + data)

    def _handle(self, command: bytes, arg0: int, arg1: int, data: bytes) -> None:
        if command == CNXN:
            self._send(AUTH, _TOKEN, 0, os.urandom(20))
        elif command == AUTH and self._adbd.accept_key(arg0 == _PUBLIC_KEY):
            self._send(CNXN, _VERSION, _MAX_PAYLOAD_BYTES, b"device::ro.product.model=Pixel 8;")
        elif command == AUTH and arg0 != _PUBLIC_KEY:
            self._send(AUTH, _TOKEN, 0, os.urandom(20))
        elif command == OPEN:
            self._open(arg0, data.rstrip(b"\0").decode())
        elif command == WRTE and arg0 in self._streams:
            self._streams[arg0].sendall(data)
            self._send(OKAY, arg0, arg0)
        elif command == OKAY:
            self._may_send[arg0].release()
        elif command == CLSE and arg0 in self._streams:
            self._streams[arg0].shutdown(socket.SHUT_RDWR)

    def _open(self, number: int, service: str) -> None:
        """Serve a stream, which has the client's number on both sides."""
        talk = self._adbd.phone.talk(service)
        if talk is None:
            self._send(CLSE, 0, number)
            return
        near, far = socket.socketpair()
        self._streams[number] = near
        self._may_send[number] = threading.Semaphore(1)
        self._send(OKAY, number, number)

        def serve() -> None:
            with far:
                talk(far)

        threading.Thread(target=serve, daemon=True).start()
        threading.Thread(target=self._carry, args=[number, near], daemon=True).start()

    def _carry(self, number: int, near: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := near.recv(_MAX_PAYLOAD_BYTES):
                self._may_send[number].acquire(timeout=60)
                self._send(WRTE, number, number, chunk)
            self._may_send[number].acquire(timeout=60)
            self._send(CLSE, number, number)
