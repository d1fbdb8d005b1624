"""Names of devices, what is listed, names of no usable device, and locks."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from luts.format.errors import StorageError
from orchestrator.agent.device import AGENTS_VARIABLE
from orchestrator.agent.programs import agent_program
from orchestrator.cli.main import exit_code
from orchestrator.devices.android import phones as android_phones
from orchestrator.devices.android.device import AndroidDevice
from orchestrator.devices.android.phones import AndroidPhone, choose
from orchestrator.devices.common.device import Access, KindUnavailableError, check_phone
from orchestrator.devices.common.registry import known_phone, known_phones, phone_of
from orchestrator.devices.discover import list_attached, resolve
from orchestrator.devices.iphone import phones as iphone_phones
from orchestrator.devices.iphone.state import IphoneState
from orchestrator.devices.lock import lock_device, lock_path
from orchestrator.tasks.target import Target
from orchestrator.wire.errors import DeviceError
from tests.support.errors import raises
from tests.support.fake_device import FakeDevice

ROOT = Path(__file__).resolve().parents[3]
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


def test_unknown_name_suggests_the_closest(attach: Attach) -> None:
    with raises("unknown_device") as unknown:
        resolve("iphnoe13")
    assert "did you mean iphone13" in str(unknown.value)
    assert exit_code(unknown.value) == 3
    with raises("unknown_device"):
        resolve("§§§§")


def test_agents_in_other_languages_are_other_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(AGENTS_VARIABLE, str(tmp_path))
    with raises("agent_not_built"):
        resolve("host", Access(agent="kotlin"))
    program = tmp_path / "kotlin" / "blocktime-agent"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert resolve("host", Access(agent="kotlin")).name == "host-kotlin"
    assert agent_program("kotlin").command == (str(program),)
    with raises("unknown_agent"):
        resolve("host", Access(agent="rust"))
    with raises("option_does_not_apply"):
        resolve("pixel8", Access(agent="kotlin"))
    for name in ("host", "iphone13", "simulated:quiet"):
        with raises("option_does_not_apply"):
            resolve(name, Access(fixed_performance=True))


def test_listing_with_next_steps(attach: Attach) -> None:
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
    missing = DeviceError("Android phones need the package adbutils: pip install -e '.[android]'")
    attach(missing, KindUnavailableError("no usbmuxd answers", "start it", "no_usbmuxd"))
    listing = list_attached()
    assert [device.kind for device in listing.attached] == ["host"]
    assert [(gap.kind, gap.next_step) for gap in listing.unavailable] == [
        ("android", "pip install -e '.[android]'"),
        ("iphone", "start it"),
    ]


@pytest.mark.parametrize("name", ["pixel8", "Pixel 8", PIXEL.serial])
def test_android_phone_by_model_or_serial(attach: Attach, name: str) -> None:
    attach([PIXEL, STRANGER])
    device = resolve(name)
    assert isinstance(device, AndroidDevice)
    assert device.name == "pixel8"


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


HOLDER = """
import sys, time
from orchestrator.devices.lock import lock_device
from tests.support.fake_device import FakeDevice
device = FakeDevice({})
device.identity = sys.argv[1]
with lock_device(device):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOCKTIME_LOCKS", str(tmp_path / "locks"))


def device(identity: str) -> FakeDevice:
    fake = FakeDevice({})
    fake.identity = identity
    return fake


@pytest.fixture
def holder() -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, "R58/:1"], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_lock_names_its_holder(
    holder: subprocess.Popen[str],
) -> None:
    with raises("device_busy") as refused, lock_device(device("R58/:1")):
        pass
    assert f"fake is being measured by process {holder.pid} (-c R58/:1, since " in str(refused.value)
    assert "\n" not in str(refused.value)
    with lock_device(device("R58/:2")):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with lock_device(device("R58/:1")):
        assert str(os.getpid()) in lock_path("R58/:1").read_text()


def test_lock_of_a_dead_process_is_no_obstacle_whoever_has_its_number_now() -> None:
    lock_path("host").parent.mkdir()
    lock_path("host").write_text(f"process {os.getppid()} (bench profile, since 10:00)\n")
    with lock_device(device("host")):
        assert str(os.getpid()) in lock_path("host").read_text()


def test_lock_is_released_at_the_end() -> None:
    for _ in range(2):
        with lock_device(device("host")), raises("device_busy"), lock_device(device("host")):
            pass


def test_target_locks_its_device() -> None:
    refused = raises("device_busy")
    with lock_device(device("host")), refused, Target("host").found():
        pass


def test_simulated_devices_are_not_locked() -> None:
    with lock_device(device("")), lock_device(device("")):
        assert not lock_path("").parent.exists()


def test_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    lock_path("host").parent.mkdir()
    lock_path("host").symlink_to(victim)
    with pytest.raises(StorageError), lock_device(device("host")):
        pass
    assert victim.read_text() == "precious"


def test_registry_has_no_product_type_twice() -> None:
    types = [product_type for phone in known_phones().values() for product_type in phone.product_types]
    assert len(types) == len(set(types))
    assert all(name == phone.name for name, phone in known_phones().items())
    assert sum(phone.kind == "iphone" for phone in known_phones().values()) >= 30


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("ios_bench/App/App.xcconfig", "CURRENT_PROJECT_VERSION"),
        ("android_bench/gradle/libs.versions.toml", "appCode"),
    ],
)
def test_apps_of_this_checkout_are_new_enough(file: str, name: str) -> None:
    build = re.search(rf'^{name} = "?(\d+)', (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    assert build is not None
    check_phone("a phone", build[1], None)
