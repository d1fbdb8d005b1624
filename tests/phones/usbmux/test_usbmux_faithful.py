"""The fake is as good as a phone for programs that were written for real ones: Debian's and pymobiledevice3's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from pymobiledevice3 import usbmux
from pymobiledevice3.exceptions import BadDevError, ConnectionFailedError

from orchestrator.wire.client import AgentClient
from tests.support.ports import own_port
from tests.support.usbmux.fake_phone import AGENT_PORT, LOCKDOWN_PORT, FakePhone
from tests.support.usbmux.fake_usbmuxd import FakeUsbmuxd
from tests.support.waiting import until

libimobiledevice = pytest.mark.skipif(
    shutil.which("ideviceinfo") is None or shutil.which("iproxy") is None,
    reason="needs Debian's libimobiledevice-utils and libusbmuxd-tools",
)


def run(
    *command: str, environment: Mapping[str, str] | None = None, code: int = 0
) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **(environment or {})}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def mobiledevice(usbmuxd: FakeUsbmuxd, *arguments: str) -> str:
    """What pymobiledevice3's command prints; it takes the socket's path without `UNIX:`."""
    environment = {"USBMUXD_SOCKET_ADDRESS": str(usbmuxd.path)}
    return run(sys.executable, "-m", "pymobiledevice3", *arguments, environment=environment).stdout


@libimobiledevice
def test_idevice_id_lists_the_phone(usbmuxd: FakeUsbmuxd, phone: FakePhone) -> None:
    assert run("idevice_id", "-l").stdout == f"{phone.udid}\n"
    assert run("idevice_id", phone.udid).stdout == f"{phone.name}\n"
    usbmuxd.unplug(phone)
    assert run("idevice_id", "-l").stdout == ""


@libimobiledevice
def test_ideviceinfo_pairs_and_reads_values(usbmuxd: FakeUsbmuxd, phone: FakePhone) -> None:
    assert "ProductVersion: 16.7.10\n" in run("ideviceinfo", "-s").stdout
    assert "Pairing dialog response pending" in run("ideviceinfo", "-k", "ProductType", code=255).stderr
    assert run("ideviceinfo", "-k", "ProductType").stdout == "iPhone14,5\n"
    values = run("ideviceinfo").stdout
    assert "SerialNumber: TEST00000001\n" in values, "told to trusted computers alone"
    domain = run("ideviceinfo", "-q", "com.apple.security.mac.amfi").stdout
    assert domain == "DeveloperModeStatus: true\n"
    assert usbmuxd.record(phone) is not None


@libimobiledevice
@pytest.mark.parametrize(
    ("owner", "message"), [("denies", "User denied pairing"), ("locked", "Password protected")]
)
def test_ideviceinfo_understands_refusals(
    usbmuxd: FakeUsbmuxd, phone: FakePhone, owner: str, message: str
) -> None:
    phone.owner, phone.trusts_after = owner, 0  # type: ignore[assignment]
    assert message in run("ideviceinfo", code=255).stderr


@pytest.fixture
def forwarded_port(phone: FakePhone) -> Iterator[int]:
    """A port of this machine that iproxy forwards to the agent's."""
    phone.tap_icon()
    port = own_port()
    process = subprocess.Popen(
        ["iproxy", "-u", phone.udid, f"{port}:{AGENT_PORT}"], stdout=subprocess.DEVNULL
    )
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


def dialled(port: int) -> socket.socket | None:
    with contextlib.suppress(ConnectionRefusedError):
        return socket.create_connection(("127.0.0.1", port))
    return None


@libimobiledevice
def test_iproxy_reaches_the_agent(
    usbmuxd: FakeUsbmuxd, phone: FakePhone, forwarded_port: int, tmp_path: Path
) -> None:
    model = tmp_path / "model.bin"
    model.write_bytes(os.urandom(3_000_001))
    with AgentClient(until(lambda: dialled(forwarded_port)), phone.tap_icon()) as client:
        assert client.hello().device.model == "iPhone14,5"
        assert client.ensure(model)
        assert not client.ensure(model)


def test_listeners_are_told_of_plugs(usbmuxd: FakeUsbmuxd, phone: FakePhone) -> None:
    async def watch() -> list[list[str]]:
        async with await usbmux.create_mux(str(usbmuxd.path)) as mux:
            await mux.listen()
            seen = []
            for step in (None, usbmuxd.unplug, usbmuxd.plug_in):
                if step is not None:
                    step(phone)
                await asyncio.wait_for(mux.receive_device_state_update(), 10)
                seen.append([f"{device.serial} {device.devid}" for device in mux.devices])
            return seen

    assert asyncio.run(watch()) == [[f"{phone.udid} 1"], [], [f"{phone.udid} 2"]]


def test_connections_are_refused_with_usbmuxds_numbers(usbmuxd: FakeUsbmuxd, phone: FakePhone) -> None:
    async def connect(device_id: int, port: int) -> None:
        (await usbmux.MuxDevice(device_id, phone.udid, "USB").connect(port, str(usbmuxd.path))).close()

    asyncio.run(connect(1, LOCKDOWN_PORT))
    with pytest.raises(ConnectionFailedError, match="'Number': 3"):
        asyncio.run(connect(1, AGENT_PORT))
    with pytest.raises(BadDevError, match="'Number': 2"):
        asyncio.run(connect(7, LOCKDOWN_PORT))


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HTTP/1.1\r\n\r\n", struct.pack("<IIII", 1 << 31, 1, 8, 1), bytes(64)]
)
def test_garbage_ends_its_connection_alone(usbmuxd: FakeUsbmuxd, phone: FakePhone, sent: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(usbmuxd.path))
        sock.sendall(sent)
        sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(100) == b""
    assert [device.serial for device in asyncio.run(usbmux.list_devices(str(usbmuxd.path)))] == [phone.udid]


def test_pymobiledevice3_lists_reads_and_looks_up(usbmuxd: FakeUsbmuxd, phone: FakePhone) -> None:
    (listed,) = json.loads(mobiledevice(usbmuxd, "usbmux", "list"))
    assert (listed["UniqueDeviceID"], listed["ProductType"]) == (phone.udid, phone.product_type)
    mobiledevice(usbmuxd, "lockdown", "pair")
    assert json.loads(mobiledevice(usbmuxd, "lockdown", "info"))["SerialNumber"] == "TEST00000001"
    apps = json.loads(mobiledevice(usbmuxd, "apps", "list"))
    assert apps["dev.blocktime.bench.ABCDE12345"]["CFBundleShortVersionString"] == "0.1.0"
    assert mobiledevice(usbmuxd, "amfi", "developer-mode-status").strip().endswith("true")


@libimobiledevice
def test_pairing_by_one_serves_the_other(usbmuxd: FakeUsbmuxd, phone: FakePhone) -> None:
    mobiledevice(usbmuxd, "lockdown", "pair")
    assert run("ideviceinfo", "-k", "SerialNumber").stdout == "TEST00000001\n"
    usbmuxd.pair_records.clear()
    phone.hosts.clear()
    run("ideviceinfo")
    assert json.loads(mobiledevice(usbmuxd, "lockdown", "info"))["SerialNumber"] == "TEST00000001"
