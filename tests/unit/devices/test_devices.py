"""Names of devices, what adb and usbmuxd list, and what a name that can't be measured answers."""

from __future__ import annotations

import plistlib
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from luts.errors import DeviceError
from orchestrator.devices import discover
from orchestrator.devices.adb import AdbDevice, parse_devices
from orchestrator.devices.discover import list_attached, resolve
from orchestrator.devices.host import HostDevice
from orchestrator.devices.registry import find_phone, known_phones, phone_of
from orchestrator.devices.usbmux import UsbmuxDevice, list_usbmux

ADB_OUTPUT = """* daemon not running; starting now at tcp:5037
* daemon started successfully
List of devices attached
38181FDJH00ABC         device usb:1-1 product:shiba model:Pixel_8 device:shiba transport_id:1
R5CW10ABCDE            unauthorized usb:1-2 transport_id:2
emulator-5554          offline transport_id:3
0123456789             no permissions (user in plugdev group; are your udev rules wrong?); see [http://x] usb:1-3

"""


@pytest.fixture
def no_adb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discover, "find_adb", lambda: None)


def fake_adb(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    adb = folder / "adb"
    adb.write_text(f"#!/bin/sh\n{script}\n")
    adb.chmod(0o755)
    monkeypatch.setattr(discover, "find_adb", lambda: str(adb))


def receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise ConnectionError
        data += piece
    return data


class FakeUsbmuxd:
    """Lists one iPhone by cable and one by network; the first tells `product_type`, or refuses where empty."""

    def __init__(self, path: Path, product_type: str) -> None:
        self.path = path
        self._product_type = product_type
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(timeout=5)

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with sock:
                self._converse(sock)

    def _converse(self, sock: socket.socket) -> None:
        length, version, kind, tag = struct.unpack("<IIII", receive(sock, 16))
        assert (version, kind) == (1, 8)
        message = plistlib.loads(receive(sock, length - 16))
        if message["MessageType"] == "ListDevices":
            cable = {"ConnectionType": "USB", "SerialNumber": "0000-CABLE"}
            wifi = {"ConnectionType": "Network", "SerialNumber": "0000-WIFI"}
            devices = [{"DeviceID": 3, "Properties": cable}, {"DeviceID": 4, "Properties": wifi}]
            self._answer(sock, tag, {"DeviceList": devices})
            return
        assert (message["DeviceID"], socket.ntohs(message["PortNumber"])) == (3, 62078)
        self._answer(sock, tag, {"MessageType": "Result", "Number": 0 if self._product_type else 3})
        if self._product_type:
            (length,) = struct.unpack(">I", receive(sock, 4))
            request = plistlib.loads(receive(sock, length))
            assert (request["Request"], request["Key"]) == ("GetValue", "ProductType")
            body = plistlib.dumps({"Value": self._product_type})
            sock.sendall(struct.pack(">I", len(body)) + body)

    @staticmethod
    def _answer(sock: socket.socket, tag: int, message: dict[str, Any]) -> None:
        body = plistlib.dumps(message)
        sock.sendall(struct.pack("<IIII", 16 + len(body), 1, 8, tag) + body)


@pytest.fixture
def usbmuxd(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    daemon = FakeUsbmuxd(tmp_path / "usbmuxd", request.param)
    yield daemon.path
    daemon.close()


def test_registry_knows_phones_by_name_and_product_type() -> None:
    phone = find_phone("iphone13")
    assert phone.describe() == "iPhone 13, product type iPhone14,5"
    assert find_phone("iPhone 13") == phone
    assert phone_of("iPhone14,5") == phone
    assert find_phone("Pixel-8").product_types == ("Pixel 8",)
    assert phone_of("iPhone99,1") is None
    assert phone_of("") is None


def test_registry_has_no_product_type_twice() -> None:
    types = [product_type for phone in known_phones().values() for product_type in phone.product_types]
    assert len(types) == len(set(types))
    assert all(name == phone.name for name, phone in known_phones().items())
    assert sum(phone.kind == "iphone" for phone in known_phones().values()) >= 30


def test_unknown_name_names_the_closest() -> None:
    with pytest.raises(DeviceError, match=r"unknown device 'iphnoe13': did you mean iphone13\b") as unknown:
        resolve("iphnoe13")
    assert unknown.value.exit_code == 3
    with pytest.raises(DeviceError, match="known are host"):
        resolve("§§§§")


def test_host_is_always_there() -> None:
    device = resolve("host")
    assert isinstance(device, HostDevice)
    assert device.name == "host"


@pytest.mark.usefixtures("no_adb")
def test_iphone_that_is_not_there_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DeviceError) as missing:
        resolve("iphone13", tmp_path / "usbmuxd")
    line = str(missing.value)
    assert missing.value.exit_code == 3
    for part in (
        "iPhone 13, product type iPhone14,5",
        "attached: this machine",
        "no usbmuxd socket",
        "bench devices",
    ):
        assert part in line
    assert "\n" not in line


@pytest.mark.usefixtures("no_adb")
def test_android_phone_that_is_not_there_says_that_adb_is_missing(tmp_path: Path) -> None:
    with pytest.raises(
        DeviceError, match=r"Pixel 8.*there is no adb on the PATH: install Android's platform-tools"
    ):
        resolve("pixel8", tmp_path / "usbmuxd")


@pytest.mark.usefixtures("no_adb")
@pytest.mark.parametrize("usbmuxd", ["iPhone14,5"], indirect=True)
def test_attached_iphone_is_listed_and_honestly_refused(usbmuxd: Path) -> None:
    assert list_usbmux(usbmuxd) == [UsbmuxDevice("0000-CABLE", "iPhone14,5")]
    listing = list_attached(usbmuxd)
    assert [(device.name, device.title) for device in listing.attached[1:]] == [("iphone13", "iPhone 13")]
    for name in ("iphone13", "0000-CABLE"):
        with pytest.raises(DeviceError, match="is attached, but this version lists phones but can't measure"):
            resolve(name, usbmuxd)
    with pytest.raises(
        DeviceError, match=r"looked for iPhone 14, .*attached: this machine, iPhone 13 \(iPhone14,5\)"
    ):
        resolve("iphone14", usbmuxd)


@pytest.mark.usefixtures("no_adb")
@pytest.mark.parametrize("usbmuxd", [""], indirect=True)
def test_locked_iphone_is_listed_with_the_next_step(usbmuxd: Path) -> None:
    (_, phone) = list_attached(usbmuxd).attached
    assert (phone.name, phone.product_type) == ("", "")
    assert phone.next_step == "unlock the phone and trust this computer"


@pytest.mark.usefixtures("no_adb")
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"garbage that is longer than a header",
        struct.pack("<IIII", 8, 1, 8, 1),
        struct.pack("<IIII", 1 << 31, 1, 8, 1),
        struct.pack("<IIII", 20, 1, 8, 1) + b"<a/>",
        struct.pack("<IIII", 19, 1, 8, 1) + b"<<<",
    ],
)
def test_usbmuxd_that_talks_nonsense_is_a_gap(tmp_path: Path, answer: bytes) -> None:
    path = tmp_path / "usbmuxd"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(4096)
                sock.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        listing = list_attached(path)
        thread.join(timeout=5)
    assert [device.kind for device in listing.attached] == ["host"]
    assert "usbmuxd does not answer" in listing.gaps[-1].reason


def test_adb_output_is_read() -> None:
    assert parse_devices(ADB_OUTPUT) == [
        AdbDevice("38181FDJH00ABC", "device", "Pixel 8"),
        AdbDevice("R5CW10ABCDE", "unauthorized", ""),
        AdbDevice("emulator-5554", "offline", ""),
        AdbDevice("0123456789", "no permissions", ""),
    ]


def test_android_phones_are_listed_with_next_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_adb(tmp_path, monkeypatch, f"cat <<'END'\n{ADB_OUTPUT}\nEND")
    phones = list_attached(tmp_path / "usbmuxd").attached[1:]
    assert [phone.name for phone in phones] == ["pixel8", "", "", ""]
    assert "allow USB debugging" in phones[1].next_step
    assert "udev" in phones[3].next_step
    with pytest.raises(DeviceError, match=r"Pixel 8 \(38181FDJH00ABC\) is attached, but"):
        resolve("pixel8", tmp_path / "usbmuxd")


@pytest.mark.parametrize("script", ["exit 1", "kill -9 $$"])
def test_adb_that_fails_is_a_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    fake_adb(tmp_path, monkeypatch, script)
    gaps = list_attached(tmp_path / "usbmuxd").gaps
    assert [gap.kind for gap in gaps] == ["android", "iphone"]
    assert "adb failed" in gaps[0].reason
