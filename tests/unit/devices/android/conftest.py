"""The phone's end of an adb connection, played packet by packet; and a link that answers from a script."""

import re
import socket
import struct
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator.devices.android import packets
from orchestrator.devices.android.connection import AdbConnection
from orchestrator.devices.android.errors import LinkLost, ServiceRefused
from orchestrator.devices.android.handshake import Welcome
from orchestrator.devices.android.link import AdbLink
from orchestrator.devices.android.pipe import Pipe
from orchestrator.devices.android.shell import ShellResult
from orchestrator.devices.android.tcp import TcpTransport

WAIT_S = 60.0
HEADER = struct.Struct("<6I")


class Peer:
    """A phone's adbd whose packets the test writes and reads by hand."""

    def __init__(self, sock):
        self.sock = sock
        sock.settimeout(WAIT_S)

    def send(self, command, arg0=0, arg1=0, payload=b"", *, magic=None, size=None):
        magic = command ^ 0xFFFFFFFF if magic is None else magic
        length = len(payload) if size is None else size
        self.sock.sendall(HEADER.pack(command, arg0, arg1, length, 0, magic) + payload)

    def receive(self):
        command, arg0, arg1, size, total, magic = HEADER.unpack(self._read(HEADER.size))
        assert magic == command ^ 0xFFFFFFFF
        payload = self._read(size)
        assert total in (0, packets.checksum(payload))
        return command, arg0, arg1, payload, total

    def expect(self, command):
        """The next packet, which must be of this kind: its first stream id and payload."""
        got, arg0, _, payload, _ = self.receive()
        assert got == command
        return arg0, payload

    def _read(self, size):
        data = b""
        while len(data) < size:
            piece = self.sock.recv(size - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data


@pytest.fixture
def ends():
    """A connected TcpTransport and the peer at its other end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        transport = TcpTransport("127.0.0.1", listener.getsockname()[1])
        transport.connect(WAIT_S)
        sock, _ = listener.accept()
    with sock:
        yield transport, Peer(sock)
        transport.close()


@pytest.fixture
def connection(ends):
    """An AdbConnection after its handshake, with packets of at most 1,000 bytes, and the peer."""
    transport, peer = ends
    pipe = Pipe(transport)
    pipe.agree(packets.VERSION)
    adb = AdbConnection(pipe, Welcome("Pixel 8", frozenset({"shell_v2"}), 1000), "the phone")
    yield adb, peer
    adb.close()


@pytest.fixture
def in_thread():
    """Starts a function in a thread, which is waited for at the end; what it raises fails the test."""
    started, errors = [], []

    def start(work, *arguments):
        def run():
            try:
                work(*arguments)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        started.append(thread)

    yield start
    for thread in started:
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert not errors


@dataclass
class ScriptedLink(AdbLink):
    """Answers commands by the first pattern that they match (output, exit code), notes all, and refuses ports."""

    answers: list[tuple[str, str, int]] = field(default_factory=list)
    asked: list[tuple[str, bytes]] = field(default_factory=list)
    pushed: list[tuple[Path, str]] = field(default_factory=list)
    ports: list[object] = field(default_factory=list)
    lost: bool = False
    closed: bool = False
    serial: str = "SERIAL1"
    label: str = "SERIAL1"

    def say(self, pattern, output, exit_code=0):
        """What commands that match answer from now on."""
        self.answers.insert(0, (pattern, output, exit_code))

    def commands(self):
        return [command for command, _ in self.asked]

    def open_service(self, service):
        """The next of `ports`: a socket to hand out, or an error to raise; refused where there is none."""
        if self.lost:
            raise LinkLost("gone")
        if not self.ports:
            raise ServiceRefused(f"refused {service}")
        found = self.ports.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    def shell(self, command, stdin=b"", timeout_s=30.0):
        if self.lost:
            raise LinkLost("gone")
        self.asked.append((command, stdin))
        for pattern, output, exit_code in self.answers:
            if re.search(pattern, command):
                return ShellResult(output.encode(), exit_code)
        return ShellResult(b"", 0)

    def push(self, path, remote):
        self.pushed.append((path, remote))

    def close(self):
        self.closed = True


@pytest.fixture
def link():
    return ScriptedLink()
