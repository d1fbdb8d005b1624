"""One adb connection as the phone sees it: greeting, authorization, and the streams it carries."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from typing import Protocol

from tests.support.fakephone.keys import TOKEN_BYTES, PublicKey
from tests.support.fakephone.packets import (
    VERSION_MIN,
    VERSION_SKIP_CHECKSUM,
    Command,
    Packet,
    ProtocolViolation,
    Terms,
    receive_packet,
)
from tests.support.fakephone.stream import Stream, StreamClosed

_AUTH_TOKEN, _AUTH_SIGNATURE, _AUTH_PUBLIC_KEY = 1, 2, 3
# AOSP's MAX_PAYLOAD_V1: what may be sent before the greeting has agreed on more.
_FIRST_PAYLOAD_BYTES = 4096

# Serves a stream that has been accepted, in a thread of its own.
Service = Callable[[Stream], None]


class Daemon(Protocol):
    """The adbd that connections belong to."""

    max_payload: int

    @property
    def banner(self) -> bytes:
        """What CNXN says of the phone: its properties and features."""

    def key_known(self, token: bytes, signature: bytes) -> bool:
        """Whether a client that the phone's owner allowed has signed."""

    def ask_owner(self, key: PublicKey, gone: threading.Event) -> bool:
        """Shows the dialog "Allow USB debugging?" and waits for its answer, at most until `gone`."""

    def open_service(self, name: str) -> Service | None:
        """The service of that name, ready to talk; None where it can't be had."""

    def violated(self, what: str) -> None:
        """Notes that a client broke the protocol."""


class Connection:
    """Serves one client until it goes."""

    def __init__(self, sock: socket.socket, daemon: Daemon) -> None:
        self._sock = sock
        self._daemon = daemon
        self._terms = Terms(max(daemon.max_payload, _FIRST_PAYLOAD_BYTES))
        self.max_payload = daemon.max_payload
        self._sends_checksum = True
        self._sending = threading.Lock()
        self._gone = threading.Event()
        self._online = False
        self._token = b""
        self._streams: dict[int, Stream] = {}
        self._streams_lock = threading.Lock()
        self._last_id = 0

    def serve(self) -> None:
        """Handles messages until the connection ends or the client breaks the protocol."""
        try:
            while True:
                self._handle(receive_packet(self._sock, self._terms))
        except ProtocolViolation as error:
            self._daemon.violated(str(error))
        except (EOFError, OSError):
            pass
        finally:
            self._gone.set()
            with self._streams_lock:
                streams = list(self._streams.values())
            for stream in streams:
                stream.closed_by_client()
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
            self._sock.close()

    def send(self, packet: Packet) -> None:
        with self._sending:
            self._sock.sendall(packet.encode(self._sends_checksum))

    def _handle(self, packet: Packet) -> None:
        if packet.command is Command.CNXN:
            self._greet(packet)
        elif packet.command is Command.AUTH:
            self._authorize(packet)
        elif not self._online:
            raise ProtocolViolation(f"{packet.command.name} before the connection is authorized")
        elif packet.command is Command.OPEN:
            self._open(packet)
        else:
            self._forward(packet)

    def _greet(self, packet: Packet) -> None:
        if packet.arg0 < VERSION_MIN or not packet.data.startswith(b"host:"):
            raise ProtocolViolation(f"greeting of version {packet.arg0:#x}, {packet.data[:40]!r}")
        self.max_payload = min(self._daemon.max_payload, packet.arg1)
        self._terms.peer_version = packet.arg0
        self._challenge()

    def _challenge(self) -> None:
        self._token = os.urandom(TOKEN_BYTES)
        self.send(Packet(Command.AUTH, _AUTH_TOKEN, 0, self._token))

    def _authorize(self, packet: Packet) -> None:
        if self._online or not self._token:
            raise ProtocolViolation("AUTH without a question")
        if packet.arg0 == _AUTH_SIGNATURE:
            if self._daemon.key_known(self._token, packet.data):
                self._welcome()
            else:
                self._challenge()
        elif packet.arg0 == _AUTH_PUBLIC_KEY:
            threading.Thread(
                target=self._await_owner, args=[PublicKey.parse(packet.data)], daemon=True
            ).start()
        else:
            raise ProtocolViolation(f"AUTH of kind {packet.arg0}")

    def _await_owner(self, key: PublicKey) -> None:
        if self._daemon.ask_owner(key, self._gone):
            with contextlib.suppress(OSError):
                self._welcome()

    def _welcome(self) -> None:
        greeting = Packet(Command.CNXN, VERSION_SKIP_CHECKSUM, self._daemon.max_payload, self._daemon.banner)
        with self._sending:
            self._online = True
            self._sends_checksum = self._terms.peer_version < VERSION_SKIP_CHECKSUM
            self._sock.sendall(greeting.encode(checksum=True))

    def _open(self, packet: Packet) -> None:
        name = packet.data.rstrip(b"\0").decode("utf-8", "surrogateescape")
        if packet.arg0 == 0 or not name:
            raise ProtocolViolation("OPEN without an id or a service")
        with self._streams_lock:
            self._last_id += 1
            stream = self._streams[self._last_id] = Stream(self, self._last_id, packet.arg0)
        threading.Thread(target=self._serve_stream, args=[name, stream], daemon=True).start()

    def _serve_stream(self, name: str, stream: Stream) -> None:
        local_id = stream.local_id
        service = self._daemon.open_service(name)
        try:
            if service is None:
                stream.refuse()
                return
            stream.accept()
            with contextlib.suppress(StreamClosed):
                service(stream)
            stream.close()
        finally:
            with self._streams_lock:
                del self._streams[local_id]

    def _forward(self, packet: Packet) -> None:
        """To the stream that `arg1` names; messages to one that has just been closed are dropped."""
        if packet.arg1 > self._last_id:
            raise ProtocolViolation(f"{packet.command.name} to stream {packet.arg1}, which never was")
        with self._streams_lock:
            stream = self._streams.get(packet.arg1)
        if stream is None:
            return
        if packet.command is Command.WRTE:
            stream.deliver(packet.data)
        elif packet.command is Command.OKAY:
            stream.acknowledged()
        else:
            stream.closed_by_client()
