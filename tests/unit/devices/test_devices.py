"""Names of devices, what is listed, and what a name that means no usable device answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from luts.format.errors import UsageError
from orchestrator.agent.device import AGENTS_VARIABLE
from orchestrator.agent.programs import agent_program
from orchestrator.cli.main import exit_code
from orchestrator.devices.android import phones as android_phones
from orchestrator.devices.android.device import AndroidDevice
from orchestrator.devices.android.phones import AndroidPhone, choose
from orchestrator.devices.common.device import Access, KindUnavailableError, refuse_question
from orchestrator.devices.common.registry import known_phone, known_phones, phone_of
from orchestrator.devices.discover import list_attached, resolve
from orchestrator.devices.host import HostDevice
from orchestrator.devices.iphone import phones as iphone_phones
from orchestrator.devices.iphone.state import IphoneState
from orchestrator.wire.errors import DeviceError
from tests.support.errors import raises

PIXEL = AndroidPhone("38181FDJH00ABC", "device", "Pixel 8", "server")
STRANGER = AndroidPhone("R5CW10ABCDE", "device", "SM-X999Z", "usb")
SHY = AndroidPhone("0A1B2C3D", "unauthorized", "", "server")
APPS = {"dev.blocktime.bench.ABCDE12345": "1"}
IPHONE = IphoneState("00008110-00112233", "usb", "iPhone14,5", "17.5", "Ann's", "trusted", True, APPS)
SILENT = IphoneState("00008110-44556677", "usb")

Attach = Callable[..., None]


@pytest.fixture
def attach(monkeypatch: pytest.MonkeyPatch) -> Attach:
    """Sets what is attached; an exception stands for a kind that can't be seen."""

    def set_attached(
        androids: list[AndroidPhone] | DeviceError = [],  # noqa: B006
        iphones: list[IphoneState] | DeviceError = [],  # noqa: B006
    ) -> None:
        def listed(phones: list[AndroidPhone] | list[IphoneState] | DeviceError) -> object:
            if isinstance(phones, DeviceError):
                raise phones
            return phones

        monkeypatch.setattr(android_phones, "list_phones", lambda: listed(androids))
        monkeypatch.setattr(iphone_phones, "list_phones", lambda driver=None: listed(iphones))
        monkeypatch.setattr(iphone_phones, "open_driver", lambda: None)
        monkeypatch.setattr(android_phones, "find", lambda name, say: choose(name, listed(androids)))  # type: ignore[arg-type]

    set_attached()
    return set_attached


def test_registry_knows_phones_by_name_and_product_type() -> None:
    phone = known_phone("iphone13")
    assert phone is not None
    assert phone.describe() == "iPhone 13 (iPhone14,5)"
    assert known_phones()["pixel8"].describe() == "Pixel 8"
    assert known_phone("iPhone 13") == phone == phone_of("iPhone14,5")
    pixel = known_phone("Pixel-8")
    assert pixel is not None
    assert pixel.product_types == ("Pixel 8",)
    assert phone_of("iPhone99,1") is None
    assert phone_of("") is None


def test_registry_has_no_product_type_twice() -> None:
    types = [product_type for phone in known_phones().values() for product_type in phone.product_types]
    assert len(types) == len(set(types))
    assert all(name == phone.name for name, phone in known_phones().items())
    assert sum(phone.kind == "iphone" for phone in known_phones().values()) >= 30


def test_unknown_name_suggests_the_closest(attach: Attach) -> None:
    with raises("unknown_device") as unknown:
        resolve("iphnoe13")
    assert "did you mean iphone13" in str(unknown.value)
    assert exit_code(unknown.value) == 3
    with raises("unknown_device"):
        resolve("§§§§")


def test_host_is_always_there() -> None:
    device = resolve("host")
    assert isinstance(device, HostDevice)
    assert device.name == "host"


def test_agents_in_other_languages_are_other_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(AGENTS_VARIABLE, str(tmp_path))
    with pytest.raises(DeviceError, match=r"the kotlin agent is not built .*run `make agents`"):
        resolve("host", Access(agent="kotlin"))
    program = tmp_path / "kotlin" / "blocktime-agent"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert resolve("host", Access(agent="kotlin")).name == "host-kotlin"
    assert agent_program("kotlin").command == (str(program),)
    with pytest.raises(UsageError, match="no agent 'rust'; there are python, kotlin, swift"):
        resolve("host", Access(agent="rust"))
    with raises("option_does_not_apply"):
        resolve("pixel8", Access(agent="kotlin"))
    for name in ("host", "iphone13", "simulated:quiet"):
        with raises("option_does_not_apply"):
            resolve(name, Access(fixed_performance=True))


def test_what_is_attached_is_listed_with_next_steps(attach: Attach) -> None:
    attach([PIXEL, STRANGER, SHY], [IPHONE, SILENT])
    listing = list_attached()
    assert [(d.kind, d.name) for d in listing.attached] == [
        ("host", "host"),
        ("android", "pixel8"),
        ("android", "smx999z"),
        ("android", ""),
        ("iphone", "iphone13"),
        ("iphone", ""),
    ]
    steps = {device.serial: device.next_step for device in listing.attached}
    assert steps[PIXEL.serial] == steps[STRANGER.serial] == steps[IPHONE.udid] == ""
    assert "USB debugging" in steps[SHY.serial]
    assert "unlock" in steps[SILENT.udid]
    assert listing.unavailable == ()


def test_kinds_that_cannot_be_seen_are_reported(attach: Attach) -> None:
    missing = DeviceError("Android phones need the package adbutils: pip install 'blocktime[android]'")
    attach(missing, KindUnavailableError("no usbmuxd answers", "start it", "no_usbmuxd"))
    listing = list_attached()
    assert [device.kind for device in listing.attached] == ["host"]
    assert [(gap.kind, gap.next_step) for gap in listing.unavailable] == [
        ("android", "pip install 'blocktime[android]'"),
        ("iphone", "start it"),
    ]


@pytest.mark.parametrize("name", ["pixel8", "Pixel 8", PIXEL.serial])
def test_an_android_phone_is_named_by_model_or_serial(attach: Attach, name: str) -> None:
    attach([PIXEL, STRANGER])
    device = resolve(name)
    assert isinstance(device, AndroidDevice)
    assert device.name == "pixel8"


def test_unregistered_phone_is_named_after_its_model(attach: Attach) -> None:
    attach([PIXEL, STRANGER])
    assert resolve("smx999z").name == resolve(STRANGER.serial).name == "smx999z"


def test_phone_that_is_not_attached(attach: Attach) -> None:
    attach([STRANGER], KindUnavailableError("no usbmuxd answers", "start it", "no_usbmuxd"))
    with raises("device_not_attached") as missing:
        resolve("iphone13")
    line = str(missing.value)
    assert exit_code(missing.value) == 3
    for part in (
        "no iPhone 13 (iPhone14,5) found; attached: SM-X999Z; ",
        "no usbmuxd answers: start it",
        "bench devices",
    ):
        assert part in line
    assert "\n" not in line
    with raises("device_not_attached") as missing:
        resolve("pixel8")
    assert "switch on USB debugging" in str(missing.value)


def test_phone_that_is_not_ready(attach: Attach) -> None:
    attach([SHY])
    for name in ("pixel8", SHY.serial):
        with raises("phone_not_ready"):
            resolve(name)


def test_several_phones_of_a_name_need_a_serial(attach: Attach) -> None:
    twin = AndroidPhone("OTHER", "device", "Pixel 8", "server")
    attach([PIXEL, twin])
    with raises("several_phones"):
        resolve("pixel8")
    assert resolve("OTHER").name == "pixel8"


def test_question_without_a_user() -> None:
    with raises("no_user") as question:
        refuse_question("type the code")
    assert "type the code" in str(question.value)
