"""Getting in: versions, the key that the phone knows, its dialog, and phones that don't answer as they should."""

import random
import socket

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from orchestrator.devices.android import handshake, packets
from orchestrator.devices.android.errors import LinkLost, PhoneNotReady
from orchestrator.devices.android.handshake import greet
from orchestrator.devices.android.keys import AdbKey
from orchestrator.devices.android.pipe import Pipe
from orchestrator.devices.android.tcp import TcpTransport

AUTH, CNXN = packets.AUTH, packets.CNXN
BANNER = b"device::ro.product.name=shiba;ro.product.model=Pixel 8;features=shell_v2,cmd"
TOKEN = bytes(range(20))


@pytest.fixture(scope="module")
def key():
    return AdbKey(rsa.generate_private_key(public_exponent=65537, key_size=2048))


@pytest.fixture
def pipe(ends):
    return Pipe(ends[0])


@pytest.fixture
def peer(ends):
    return ends[1]


def never():
    raise AssertionError("the user was asked")


def test_phone_that_asks_nothing(pipe, peer, key):
    peer.send(CNXN, packets.VERSION, 1 << 20, BANNER)
    welcome = greet(pipe, key, "the phone", never)
    assert welcome.model == "Pixel 8"
    assert welcome.features == {"shell_v2", "cmd"}
    assert welcome.max_payload_bytes == packets.MAX_PAYLOAD_BYTES
    command, version, size, banner, total = peer.receive()
    assert (command, version, size) == (CNXN, packets.VERSION, packets.MAX_PAYLOAD_BYTES)
    assert banner.startswith(b"host::features=")
    assert total == packets.checksum(banner)


@pytest.mark.parametrize(
    ("version", "checked"), [(packets.VERSION_WITH_CHECKSUM, True), (packets.VERSION, False)]
)
def test_checksums_are_sent_to_phones_that_want_them(pipe, peer, key, version, checked):
    peer.send(CNXN, version, 4096, BANNER)
    assert greet(pipe, key, "the phone", never).max_payload_bytes == 4096
    peer.receive()
    pipe.send(packets.WRTE, 1, 2, b"abc")
    assert peer.receive()[4] == (294 if checked else 0)


def test_phone_that_knows_the_key(pipe, peer, key, in_thread):
    def phone():
        peer.expect(CNXN)
        peer.send(AUTH, packets.AUTH_TOKEN, 0, TOKEN)
        kind, signature = peer.expect(AUTH)
        assert kind == packets.AUTH_SIGNATURE
        assert signature == key.sign(TOKEN)
        peer.send(CNXN, packets.VERSION, 1 << 20, BANNER)

    in_thread(phone)
    assert greet(pipe, key, "the phone", never).model == "Pixel 8"


def test_user_is_asked_once_and_accepts(pipe, peer, key, in_thread):
    asked = []

    def phone():
        peer.expect(CNXN)
        peer.send(AUTH, packets.AUTH_TOKEN, 0, TOKEN)
        peer.expect(AUTH)
        peer.send(AUTH, packets.AUTH_TOKEN, 0, TOKEN)
        kind, text = peer.expect(AUTH)
        assert (kind, text) == (packets.AUTH_PUBLIC_KEY, key.public_text() + b"\0")
        assert asked == ["asked"]
        peer.send(AUTH, packets.AUTH_TOKEN, 0, TOKEN)  # some phones ask again while their dialog is open
        peer.send(CNXN, packets.VERSION, 1 << 20, BANNER)

    in_thread(phone)
    assert greet(pipe, key, "the phone", lambda: asked.append("asked")).model == "Pixel 8"
    assert asked == ["asked"]


@pytest.mark.parametrize("ask", [None, lambda: None], ids=["without a dialog", "dialog without an answer"])
def test_unauthorized(pipe, peer, key, monkeypatch, ask):
    monkeypatch.setattr(handshake, "ACCEPT_TIMEOUT_S", 0.1)
    peer.send(AUTH, packets.AUTH_TOKEN, 0, TOKEN)
    peer.send(AUTH, packets.AUTH_TOKEN, 0, TOKEN)
    with pytest.raises(PhoneNotReady, match="accept its USB debugging dialog") as caught:
        greet(pipe, key, "the phone", ask)
    assert caught.value.state == "unauthorized"


def test_wireless_debugging_with_tls_needs_a_server(pipe, peer, key):
    peer.send(packets.STLS, 0x01000000)
    with pytest.raises(PhoneNotReady, match="`adb pair`"):
        greet(pipe, key, "the phone", never)


def test_leftovers_of_an_earlier_connection_are_skipped(pipe, peer, key):
    peer.send(packets.WRTE, 9, 9, b"old")
    peer.send(packets.CLSE, 9, 9)
    peer.send(CNXN, packets.VERSION, 1 << 20, BANNER)
    assert greet(pipe, key, "the phone", never).model == "Pixel 8"


@pytest.mark.parametrize(
    ("send", "reason"),
    [
        (lambda peer: peer.sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "where an adb packet begins"),
        (lambda peer: peer.sock.close(), "closed the connection|reset|Broken pipe"),
        (lambda peer: peer.send(CNXN, packets.VERSION, 16, BANNER), "packets of 16 bytes only"),
        (lambda peer: None, "no answer within"),
    ],
    ids=["another protocol", "hangs up", "no room", "silent"],
)
def test_no_phone_at_all(pipe, peer, key, monkeypatch, send, reason):
    monkeypatch.setattr(handshake, "ANSWER_TIMEOUT_S", 0.2)
    send(peer)
    with pytest.raises(LinkLost, match=reason):
        greet(pipe, key, "the phone", never)


def test_banner_without_properties(pipe, peer, key):
    peer.send(CNXN, packets.VERSION, 1 << 20, b"device::\0")
    welcome = greet(pipe, key, "the phone", never)
    assert welcome.model == ""
    assert "shell_v2" not in welcome.features


def test_any_bytes_end_in_a_greeting_or_in_one_error(key):
    """Seeded: a greeting with a few bytes changed, cut or doubled, then the end of the stream."""
    random_ = random.Random(20261121)
    header = packets.pack_header(CNXN, packets.VERSION, 4096, BANNER, with_checksum=True)
    outcomes = set()
    for _ in range(150):
        data = bytearray(header + BANNER)
        for _ in range(random_.randrange(3)):
            data[random_.randrange(len(data))] = random_.randrange(256)
        start, end = sorted(random_.randrange(len(data)) for _ in range(2))
        data = random_.choice([data, data[:end], data[start:], data[:start] + data[end:], data + data])
        outcome = outcome_of(bytes(data), key)
        assert "\n" not in str(outcome)
        outcomes.add(type(outcome).__name__)
    assert outcomes == {"Welcome", "LinkLost"}


def outcome_of(data, key):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        transport = TcpTransport("127.0.0.1", listener.getsockname()[1])
        transport.connect(10.0)
        sock, _ = listener.accept()
    with sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        try:
            return greet(Pipe(transport), key, "the phone", never)
        except LinkLost as error:
            return error
        finally:
            transport.close()
