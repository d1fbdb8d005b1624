"""Parts of the iPhone transport that need no phone: addresses, packages, next steps, the thread of the driver."""

from __future__ import annotations

import asyncio
import os
import plistlib
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest

from luts.format.errors import InvalidArtifactError
from orchestrator.devices.iphone.device import IpaInfo, read_ipa
from orchestrator.devices.iphone.mobiledevice import _LoopThread
from orchestrator.devices.iphone.state import ADDRESS_VARIABLE, IphoneState, exported_address, mux_address
from tests.support.damaged_zips import DAMAGES, damage
from tests.support.errors import raises


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", ""),
        ("UNIX:/var/run/usbmuxd", "/var/run/usbmuxd"),
        ("/tmp/a:b", "/tmp/a:b"),
        ("mac.local:27015", "mac.local:27015"),
    ],
)
def test_address_of_usbmuxd(monkeypatch: pytest.MonkeyPatch, text: str, value: str) -> None:
    monkeypatch.setenv(ADDRESS_VARIABLE, text)
    assert mux_address() == value
    with exported_address(value):
        assert os.environ[ADDRESS_VARIABLE] == value
    assert os.environ[ADDRESS_VARIABLE] == text


@pytest.mark.parametrize(
    "text", ["nonsense", "UNIX:relative", ":27015", "host:", "host:0", "host:70000", "::1:27015"]
)
def test_bad_address(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(ADDRESS_VARIABLE, text)
    with raises("bad_address"):
        mux_address()


def test_unset_variable_stays_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ADDRESS_VARIABLE, raising=False)
    assert mux_address() == ""
    with exported_address("/tmp/mux"):
        assert os.environ[ADDRESS_VARIABLE] == "/tmp/mux"
    assert ADDRESS_VARIABLE not in os.environ


READY = IphoneState(
    udid="00008110-001A2B3C4D5E801E",
    connection="usb",
    product_type="iPhone14,5",
    ios="16.7.10",
    trust="trusted",
    developer_mode=True,
    apps={"dev.blocktime.bench.ABCDE12345": "0.1.0"},
)


@pytest.mark.parametrize(
    ("change", "step"),
    [
        ({}, ""),
        ({"developer_mode": None}, ""),
        ({"apps": None}, ""),
        ({"connection": "network", "trust": "silent"}, "by cable"),
        ({"trust": "unpaired", "developer_mode": None}, "tap Trust"),
        ({"trust": "locked"}, "passcode"),
        ({"trust": "silent"}, "does not answer"),
        ({"developer_mode": False, "apps": {}}, "Developer Mode is off"),
        ({"apps": {}}, "--app"),
        (
            {"apps": dict.fromkeys(("dev.blocktime.bench.A", "dev.blocktime.bench"), "1")},
            "delete all but one",
        ),
    ],
)
def test_next_step_names_what_comes_first(change: dict[str, Any], step: str) -> None:
    step_text = IphoneState(**{**vars(READY), **change}).next_step
    assert step in step_text
    assert bool(step) == bool(step_text)


@pytest.mark.parametrize(
    ("product_type", "name"),
    [("iPhone14,5", "iphone13"), ("iPhone99,1", "iphone99-1"), ("", "iphone"), ("../x", "x")],
)
def test_name_is_a_folder_name(product_type: str, name: str) -> None:
    assert IphoneState("u", "usb", product_type).name == name


def write_ipa(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


INFO = plistlib.dumps(
    {"CFBundleIdentifier": "dev.blocktime.bench.ABCDE12345", "CFBundleShortVersionString": "1.2"}
)
OTHER = plistlib.dumps({"CFBundleIdentifier": "dev.blocktime.benchmark"})
SIGNED = "Payload/A.app/_CodeSignature/CodeResources"


def test_ipa_has_identifier_and_version(tmp_path: Path) -> None:
    ipa = write_ipa(tmp_path / "a.ipa", {"Payload/A.app/Info.plist": INFO, SIGNED: b""})
    assert read_ipa(ipa) == IpaInfo("dev.blocktime.bench.ABCDE12345", "1.2")


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({"Payload/A.app/Info.plist": INFO}, "app_not_signed"),
        ({"Info.plist": INFO, SIGNED: b""}, "bad_ipa"),
        ({"Payload/A.app/Info.plist": INFO, "Payload/B.app/Info.plist": INFO}, "bad_ipa"),
        ({"Payload/A.app/Info.plist": b"\0" * (2 << 20), SIGNED: b""}, "bad_ipa"),
        ({"Payload/A.app/Info.plist": b"garbage", SIGNED: b""}, "bad_ipa"),
        ({"Payload/A.app/Info.plist": b"<?xml version='1.0'?><plist><di", SIGNED: b""}, "bad_ipa"),
        ({"Payload/A.app/Info.plist": INFO.replace(b"UTF-8", b"UUF-8"), SIGNED: b""}, "bad_ipa"),
        ({"Payload/A.app/Info.plist": plistlib.dumps(["list"]), SIGNED: b""}, "not_our_app"),
        ({"Payload/A.app/Info.plist": OTHER, SIGNED: b""}, "not_our_app"),
    ],
)
def test_bad_ipa(tmp_path: Path, files: dict[str, bytes], code: str) -> None:
    ipa = write_ipa(tmp_path / "a.ipa", files)
    with raises(code) as refused:
        read_ipa(ipa)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_ipa_is_one_line(tmp_path: Path, name: str) -> None:
    ipa = write_ipa(tmp_path / "a.ipa", {"Payload/A.app/Info.plist": INFO, SIGNED: b""})
    damage(ipa, name)
    with pytest.raises(InvalidArtifactError, match=r"is not an \.ipa \([^)]+\): give the one"):
        read_ipa(ipa)


def test_ipa_that_is_not_a_zip_or_missing(tmp_path: Path) -> None:
    (tmp_path / "a.ipa").write_bytes(b"PK\x03\x04 and no more")
    for path, code in [("a.ipa", "bad_ipa"), ("b.ipa", "unreadable_file"), ("", "unreadable_file")]:
        with raises(code):
            read_ipa(tmp_path / path)


async def answer(value: int) -> int:
    await asyncio.sleep(0)
    return value


async def fail() -> None:
    raise LookupError("as it should")


def test_loop_thread_returns_results_and_raises_exceptions() -> None:
    loop = _LoopThread("test-loop")
    assert [loop.call(answer(value), 5) for value in (1, 2)] == [1, 2]
    with pytest.raises(LookupError):
        loop.call(fail(), 5)
    names = [thread.name for thread in threading.enumerate()]
    assert names.count("test-loop") == 1


def test_loop_thread_cancels_what_takes_too_long() -> None:
    cancelled = threading.Event()

    async def hang() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    with pytest.raises(TimeoutError):
        _LoopThread("test-hang").call(hang(), 0.05)
    assert cancelled.wait(300)
