"""Phones of an adb server: its listing, services, refusals; and that no server is ever started."""

import contextlib
import socket
import subprocess
import threading

import pytest

from orchestrator.devices.android import server
from orchestrator.devices.android.errors import LinkLost, PhoneNotReady, ServiceRefused
from orchestrator.devices.android.server import ServerAddress, ServerLink, ServerPhone

LISTING = (
    "37281FDJH0042          device usb:1-2 product:shiba model:Pixel_8 device:shiba transport_id:1\n"
    "R58M123                unauthorized usb:1-3 transport_id:2\n"
    "XYZ                    no permissions (missing udev rules? user is in the plugdev group); see [http://x]\n"
)


class Server:
    """Answers as `adb`'s server of version 41 does; `refusals` are what it says to a transport or a service."""

    def __init__(self):
        self.listing, self.refusals = LISTING, {}
        self.services = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = ServerAddress("127.0.0.1", self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client):
        with client, client.makefile("rb") as stream:
            while size := stream.read(4):
                request = stream.read(int(size, 16)).decode()
                if request in self.refusals:
                    reason = self.refusals[request].encode()
                    client.sendall(b"FAIL" + b"%04x" % len(reason) + reason)
                    return
                if request == "host:version":
                    client.sendall(b"OKAY00040029")
                elif request == "host:devices-l":
                    client.sendall(b"OKAY" + b"%04x" % len(self.listing) + self.listing.encode())
                elif request.startswith("host:tport:serial:"):
                    client.sendall(b"OKAY" + bytes(8))
                else:
                    self.services.append(request)
                    client.sendall(b"OKAY")
                    client.sendall(stream.readline().upper())
                    return


@pytest.fixture
def played():
    made = Server()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def no_programs(monkeypatch):
    """A server is started by running adb; nothing may run here."""

    def refuse(*arguments, **options):
        raise AssertionError(f"ran {arguments}")

    monkeypatch.setattr(subprocess, "run", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)


def test_listing(played):
    assert server.list_phones(played.address) == [
        ServerPhone("37281FDJH0042", "device"),
        ServerPhone("R58M123", "unauthorized"),
        ServerPhone("XYZ", "no permissions"),
    ]
    played.listing = ""
    assert server.list_phones(played.address) == []


def test_no_server_is_started(played):
    played.close()
    assert server.list_phones(played.address) is None
    with pytest.raises(LinkLost, match="does not reach 37281FDJH0042"):
        ServerLink("37281FDJH0042", played.address).open_socket(47613)


def test_a_service_is_a_plain_socket(played):
    with ServerLink("37281FDJH0042", played.address).open_socket(47613) as sock:
        assert sock.gettimeout() is None
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        sock.sendall(b"hello\n")
        assert sock.makefile("rb").read() == b"HELLO\n"
    assert played.services == ["tcp:47613"]


def test_refused_port(played):
    played.refusals["tcp:47613"] = "closed"
    with pytest.raises(ServiceRefused, match="37281FDJH0042 refused tcp:47613: closed"):
        ServerLink("37281FDJH0042", played.address).open_socket(47613)


def test_phone_lost_while_a_service_is_opened(played):
    played.refusals["tcp:47613"] = "device offline"
    played.listing = LISTING.replace("device usb", "offline usb")
    with pytest.raises(LinkLost, match="does not reach 37281FDJH0042: device offline"):
        ServerLink("37281FDJH0042", played.address).open_socket(47613)


@pytest.mark.parametrize(
    ("reason", "error", "said"),
    [
        ("device 'S' not found", LinkLost, "device 'S' not found; check its cable"),
        (
            "device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set",
            PhoneNotReady,
            "S is unauthorized",
        ),
        ("insufficient permissions for device: no permissions", PhoneNotReady, "S is no permissions"),
        ("", LinkLost, "it gave no reason"),
    ],
)
def test_phones_that_the_server_does_not_reach(played, reason, error, said):
    played.refusals["host:tport:serial:S"] = reason
    with pytest.raises(error, match=said) as caught:
        ServerLink("S", played.address).shell("true")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        ({}, ("127.0.0.1", 5037)),
        ({"ANDROID_ADB_SERVER_PORT": "5100"}, ("127.0.0.1", 5100)),
        ({"ANDROID_ADB_SERVER_PORT": "x"}, ("127.0.0.1", 5037)),
        ({"ANDROID_ADB_SERVER_ADDRESS": "lab", "ANDROID_ADB_SERVER_PORT": "1"}, ("lab", 1)),
        ({"ADB_SERVER_SOCKET": "tcp:5200", "ANDROID_ADB_SERVER_PORT": "1"}, ("127.0.0.1", 5200)),
        ({"ADB_SERVER_SOCKET": "tcp:lab:5200"}, ("lab", 5200)),
    ],
)
def test_where_a_server_is_looked_for(monkeypatch, variables, address):
    for name in ("ADB_SERVER_SOCKET", "ANDROID_ADB_SERVER_ADDRESS", "ANDROID_ADB_SERVER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert ServerAddress.from_environment() == ServerAddress(*address)
