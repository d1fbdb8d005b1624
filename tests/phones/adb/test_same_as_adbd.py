"""Message by message, the fake phone answers what a real adbd answers."""

import socket
import struct

import pytest
from adb_shell.auth.keygen import keygen
from adb_shell.auth.sign_pythonrsa import PythonRSASigner

from tests.support.fakephone.packets import (
    MAX_PAYLOAD_BYTES,
    VERSION_MIN,
    Command,
    Packet,
    Terms,
    receive_packet,
)


def request(name, text):
    return struct.pack("<4sI", name, len(text)) + text


def shell_packet(kind, data=b""):
    return struct.pack("<BI", kind, len(data)) + data


FILE = b"/data/local/tmp/same"
SEND = request(b"SEND", FILE + b",33188") + request(b"DATA", b"hello")
DONE = struct.pack("<4sI", b"DONE", 1)
QUIT = request(b"QUIT", b"")

# Service, and what the client sends once it is open.
CONVERSATIONS = {
    "plain shell": (b"shell:echo out; echo err >&2; exit 3", b""),
    "exec": (b"exec:printf 'a\\r\\n\\000b'", b""),
    "exec with stdin": (b"exec:read -r line && printf '<%s>' \"$line\"", b"typed\n"),
    "shell v2": (b"shell,v2,raw:echo out; exit 3", b""),
    "shell v2, stderr": (b"shell,v2,raw:echo err >&2", b""),
    "shell v2, killed": (b"shell,v2,raw:kill -9 $$", b""),
    "shell v2, stdin closed": (
        b"shell,v2,TERM=xterm,raw:cat",
        shell_packet(0, b"typed") + shell_packet(4),
    ),
    "a port where nothing listens": (b"tcp:1", b""),
    "a service that is none": (b"nonsense:", b""),
    "sync, quit": (b"sync:", QUIT),
    "stat of nothing": (b"sync:", request(b"STAT", b"/data/nothing") + QUIT),
    "stat v2 of nothing": (b"sync:", request(b"STA2", b"/data/nothing") + QUIT),
    "lstat v2 of nothing": (b"sync:", request(b"LST2", b"/data/nothing") + QUIT),
    "list of nothing": (b"sync:", request(b"LIST", b"/data/nothing") + QUIT),
    "list v2 of nothing": (b"sync:", request(b"LIS2", b"/data/nothing") + QUIT),
    "receive nothing": (b"sync:", request(b"RECV", b"/data/nothing") + QUIT),
    "send": (b"sync:", SEND + DONE + QUIT),
    "send and receive": (b"sync:", SEND + DONE + request(b"RECV", FILE) + QUIT),
    "send and stat": (b"sync:", SEND + DONE + request(b"STAT", FILE) + QUIT),
    "send without an end": (b"sync:", SEND + QUIT + QUIT),
    "send below a file": (
        b"sync:",
        SEND + DONE + request(b"SEND", FILE + b"/x,33188") + DONE + request(b"STAT", FILE) + QUIT,
    ),
    "send over a folder": (
        b"sync:",
        request(b"SEND", b"/data/local/tmp,33188") + DONE + request(b"STAT", FILE) + QUIT,
    ),
    "send without a mode": (b"sync:", request(b"SEND", FILE) + DONE + QUIT),
    "send with a mode that is none": (b"sync:", request(b"SEND", FILE + b",x") + DONE + QUIT),
    "receive a folder": (b"sync:", request(b"RECV", b"/data/local/tmp") + QUIT),
    "too long a path": (b"sync:", request(b"STAT", b"/data/" + b"x" * 2000) + QUIT),
    "unknown sync request": (b"sync:", request(b"WHAT", b"/data")),
}


@pytest.fixture(scope="module")
def public_key(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("key") / "key")
    keygen(path)
    return PythonRSASigner.FromRSAKeyPath(path).GetPublicKey().encode() + b"\0"


@pytest.fixture(scope="module")
def both(open_phone):
    """The fake phone and the one with a real adbd, for all conversations one after the other."""
    with open_phone("fake") as fake, open_phone("adbd") as real:
        yield fake, real


def converse(phone, public_key, service, sent):
    """The commands that came, one after the other, and all their data; opens, is answered, and sends once."""
    with socket.create_connection(("127.0.0.1", phone.cable.port), 10) as sock:
        terms = Terms(MAX_PAYLOAD_BYTES)

        def send(*fields):
            sock.sendall(Packet(*fields).encode(checksum=True))

        def receive():
            return receive_packet(sock, terms)

        send(Command.CNXN, VERSION_MIN, MAX_PAYLOAD_BYTES, b"host::\0")
        greeting = receive()
        if greeting.command is Command.AUTH:
            send(Command.AUTH, 3, 0, public_key)
            greeting = receive()
        assert greeting.command is Command.CNXN
        send(Command.OPEN, 7, 0, service + b"\0")
        first = receive()
        data = bytearray()
        if first.command is not Command.OKAY:
            return [first.command.name, first.arg0, first.arg1], bytes(data)
        stream = first.arg0
        if sent:
            send(Command.WRTE, 7, stream, sent)
        while (packet := receive()).command is not Command.CLSE:
            assert packet.arg1 == 7
            if packet.command is Command.WRTE:
                data += packet.data
                send(Command.OKAY, 7, stream)
        return ["OKAY", "CLSE"], bytes(data)


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_same_answer(both, public_key, name):
    service, sent = CONVERSATIONS[name]
    fake, real = (converse(phone, public_key, service, sent) for phone in both)
    assert fake == real
