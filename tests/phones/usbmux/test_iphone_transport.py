"""The way to an iPhone through the fake usbmuxd: found, trusted, installed, started, found again."""

from __future__ import annotations

import dataclasses
import plistlib
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_phone import BUNDLE, FakePhone
from fake_usbmuxd import FakeUsbmuxd
from phone_apps import ThreadApp
from pymobiledevice3.lockdown import UsbmuxLockdownClient, create_using_usbmux
from pymobiledevice3.remote import userspace_tunnel

from luts.errors import DeviceError, InvalidArtifactError
from orchestrator.devices.base import Access
from orchestrator.devices.iphone import device as device_module
from orchestrator.devices.iphone.driver import open_driver
from orchestrator.devices.iphone.errors import UnreachableError
from orchestrator.devices.iphone.phones import find_iphone, list_phones
from orchestrator.devices.registry import known_phones
from orchestrator.wire.errors import AgentLost

IPHONE_13 = known_phones()["iphone13"]


class Owner:
    """Listens to what `bench` says, and answers with what the phone shows or with the `answers` set."""

    def __init__(self, phone: FakePhone) -> None:
        self.told: list[str] = []
        self.asked: list[str] = []
        self.answers: list[Callable[[], str]] = []
        self._phone = phone

    def ask(self, prompt: str) -> str:
        self.asked.append(prompt)
        return self.answers.pop(0)() if self.answers else self._phone.tap_icon()

    @property
    def access(self) -> Access:
        return Access(say=self.told.append, ask=self.ask)


@pytest.fixture
def owner(phone: FakePhone) -> Owner:
    return Owner(phone)


def trust_now(phone: FakePhone) -> None:
    """The phone has trusted this computer before."""
    phone.trusts_after = 0
    open_driver().pair(phone.udid, 10)


def package(path: Path, bundle: str = BUNDLE, signed: bool = True) -> Path:
    """An .ipa."""
    with zipfile.ZipFile(path, "w") as archive:
        info = {"CFBundleIdentifier": bundle, "CFBundleShortVersionString": "0.2.0"}
        archive.writestr("Payload/Bench.app/Info.plist", plistlib.dumps(info, fmt=plistlib.FMT_BINARY))
        archive.writestr("Payload/Bench.app/Bench", b"\0" * 300_000)
        if signed:
            archive.writestr("Payload/Bench.app/_CodeSignature/CodeResources", b"")
    return path


def test_listing_asks_the_owner_for_nothing(phone: FakePhone) -> None:
    (state,) = list_phones()
    assert (state.udid, state.connection, state.product_type) == (phone.udid, "usb", "iPhone14,5")
    assert (state.ios, state.owner_name, state.trust) == ("16.7.10", "Test iPhone", "unpaired")
    assert "tap Trust" in state.next_step
    assert phone.trusts_after == 1
    assert phone.hosts == {}


def test_listing_of_a_trusted_phone_is_complete(phone: FakePhone) -> None:
    trust_now(phone)
    (state,) = list_phones()
    assert (state.trust, state.developer_mode, state.app_version, state.next_step) == (
        "trusted",
        True,
        "0.1.0",
        "",
    )


def test_pairing_is_kept_in_usbmuxd_and_not_asked_for_again(
    usbmuxd: FakeUsbmuxd, phone: FakePhone, owner: Owner
) -> None:
    with find_iphone(IPHONE_13, owner.access) as device:
        device.connect().close()
        assert device.describe() == f"iPhone 13 (iPhone14,5), iOS 16.7.10, UDID {phone.udid}"
    record = usbmuxd.record(phone)
    assert record is not None
    assert list(phone.hosts) == [record["HostID"]]
    assert "tap Trust" in owner.told[0]
    phone.owner = "denies"
    told = len(owner.told)
    with find_iphone(IPHONE_13, owner.access) as device:
        device.connect().close()
    assert len(owner.told) == told


@pytest.mark.parametrize(
    ("hands", "message"),
    [
        ("denies", "was told not to trust this computer"),
        ("away", "still asks whether to trust this computer; unlock it, tap Trust"),
        ("locked", "is locked; unlock it with its passcode"),
    ],
)
def test_an_owner_who_does_not_trust_is_told_what_to_do(
    phone: FakePhone, owner: Owner, monkeypatch: pytest.MonkeyPatch, hands: str, message: str
) -> None:
    monkeypatch.setattr(device_module, "_TRUST_S", 0.0)
    phone.owner = hands  # type: ignore[assignment]
    phone.trusts_after = 0
    with find_iphone(IPHONE_13, owner.access) as device, pytest.raises(DeviceError, match=message) as refused:
        device.connect()
    assert "\n" not in str(refused.value)
    assert phone.udid in str(refused.value)


def test_a_phone_locked_since_its_start_says_so(phone: FakePhone, owner: Owner) -> None:
    trust_now(phone)
    phone.locked = True
    (state,) = list_phones()
    assert (state.trust, state.product_type) == ("locked", "iPhone14,5")
    with (
        find_iphone(IPHONE_13, owner.access) as device,
        pytest.raises(DeviceError, match="it is locked: unlock"),
    ):
        device.connect()


def test_pairing_that_the_phone_forgot_is_asked_for_again(phone: FakePhone, owner: Owner) -> None:
    trust_now(phone)
    phone.hosts.clear()
    assert list_phones()[0].trust == "unpaired"
    with find_iphone(IPHONE_13, owner.access) as device:
        device.connect().close()
    assert len(phone.hosts) == 1


def test_app_is_started_with_a_secret_and_ended(phone: FakePhone, owner: Owner) -> None:
    access = dataclasses.replace(owner.access, allow=("debuggable_build", "low_battery"))
    with find_iphone(IPHONE_13, access) as device:
        with device.connect() as client:
            assert client.hello().device.model == "iPhone14,5"
        assert device.agent_starts == 1
        assert phone.pid
    (environment,) = phone.launches
    assert environment["BLOCKTIME_ALLOW"] == "debuggable_build,low_battery"
    assert len(environment["BLOCKTIME_TOKEN"]) == 32
    assert not phone.pid
    assert owner.asked == []


def test_token_of_the_environment_starts_the_app(
    phone: FakePhone, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLOCKTIME_TOKEN", "of-the-environment")
    with find_iphone(IPHONE_13, owner.access) as device:
        device.connect().close()
    assert phone.launches == [{"BLOCKTIME_TOKEN": "of-the-environment"}]


def test_token_of_the_environment_opens_an_app_that_runs(
    phone: FakePhone, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLOCKTIME_TOKEN", phone.tap_icon())
    with find_iphone(IPHONE_13, owner.access) as device:
        device.connect().close()
        assert device.agent_starts == 0
    assert (phone.launches, owner.asked) == ([], [])
    assert phone.pid


@pytest.mark.parametrize(
    ("ios", "developer_image", "reason"),
    [
        ("16.7.10", False, "mounter auto-mount"),
        ("17.2", True, "iOS 17.0 to 17.3"),
        ("17.6", True, "No-root userspace tunnel unavailable"),
    ],
)
def test_owner_taps_the_icon_where_the_app_cannot_be_started(
    phone: FakePhone, owner: Owner, ios: str, developer_image: bool, reason: str
) -> None:
    phone.ios, phone.developer_image = ios, developer_image
    with find_iphone(IPHONE_13, owner.access) as device:
        device.connect().close()
        assert device.agent_starts == 1
    assert reason in owner.told[-1]
    assert len(owner.asked) == 1
    assert "pairing code" in owner.asked[0]
    assert phone.pid, "an app that its owner opened is left open"


def test_app_is_started_through_a_tunnel_from_ios_17_4(
    phone: FakePhone, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tunnel itself is pymobiledevice3's and needs a phone; here it is one in name."""
    opened: list[tuple[object, ...]] = []

    class Tunnel:
        def __init__(self, serial: str, autopair: bool, remotepairing_fallback: bool) -> None:
            opened.append((serial, autopair, remotepairing_fallback))

        async def __aenter__(self) -> UsbmuxLockdownClient:
            phone.tunnelled = True
            self._client = await create_using_usbmux(phone.udid, autopair=False)
            return self._client

        async def __aexit__(self, *_: object) -> None:
            await self._client.close()
            phone.tunnelled = False

    monkeypatch.setattr(userspace_tunnel, "UserspaceRsdTunnel", Tunnel)
    phone.ios = "17.6"
    with find_iphone(IPHONE_13, owner.access) as device:
        device.connect().close()
        assert device.agent_starts == 1
    assert opened == [(phone.udid, False, False)] * 2, "to start the app and to end it"
    assert len(phone.launches) == 1
    assert not phone.pid


def test_wrong_pairing_codes_are_asked_for_again(phone: FakePhone, owner: Owner) -> None:
    phone.developer_image = False
    shown = phone.tap_icon()
    owner.answers = [
        lambda: "short",
        lambda: "AAAAAAAA",
        lambda: f" {shown[:4].lower()}-{shown[4:]} ",
    ]
    with find_iphone(IPHONE_13, owner.access) as device:
        device.connect().close()
    assert "8 letters and digits" in owner.asked[1]
    assert "another code" in owner.asked[2]
    owner.answers = [lambda: "AAAAAAAA"] * 5
    with (
        find_iphone(IPHONE_13, owner.access) as device,
        pytest.raises(DeviceError, match="no pairing code of 5"),
    ):
        device.connect()


def test_nobody_to_ask_is_an_error_with_the_question(phone: FakePhone) -> None:
    phone.developer_image = False
    with (
        find_iphone(IPHONE_13) as device,
        pytest.raises(DeviceError, match="open blocktime on iPhone 13.*BLOCKTIME_TOKEN"),
    ):
        device.connect()


def test_developer_mode_off_is_said_unless_the_app_is_open(phone: FakePhone, owner: Owner) -> None:
    trust_now(phone)
    phone.developer_mode = False
    assert "Developer Mode is off" in list_phones()[0].next_step
    with find_iphone(IPHONE_13, owner.access) as device:
        with pytest.raises(DeviceError, match="switch it on in Settings > Privacy & Security"):
            device.connect()
        phone.tap_icon()
        device.connect().close()


def test_iphones_before_ios_16_have_no_developer_mode(phone: FakePhone, owner: Owner) -> None:
    phone.ios, phone.developer_mode = "15.8", False
    trust_now(phone)
    assert list_phones()[0].developer_mode is None
    with find_iphone(IPHONE_13, owner.access) as device:
        device.connect().close()
    assert len(phone.launches) == 1


def test_missing_app_is_said_and_installed(
    phone: FakePhone, owner: Owner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust_now(phone)
    phone.apps.clear()
    assert "not installed" in list_phones()[0].next_step
    with find_iphone(IPHONE_13, owner.access) as device, pytest.raises(DeviceError, match="--app"):
        device.connect()
    monkeypatch.setenv("BLOCKTIME_IOS_APP", str(package(tmp_path / "Bench.ipa")))
    with find_iphone(IPHONE_13, owner.access) as device:
        device.connect().close()
        device.connect().close()
    assert list_phones()[0].app_version == "0.2.0"
    assert phone.media == {}, "the package is taken away again"
    assert [line for line in owner.told if "installing" in line] == [
        "installing Bench.ipa (0.2.0) on iPhone 13"
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"refuses_apps": "ApplicationVerificationFailed"},
            "ApplicationVerificationFailed.*profile that holds",
        ),
        ({"media_bytes": 1000}, "did not take the app's package.*free some space"),
    ],
)
def test_refused_installation_says_why(
    phone: FakePhone, owner: Owner, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    for name, value in change.items():
        setattr(phone, name, value)
    ipa = package(tmp_path / "Bench.ipa")
    with find_iphone(IPHONE_13, owner.access, ipa) as device, pytest.raises(DeviceError, match=message):
        device.connect()


def test_package_of_another_app_is_not_sent(phone: FakePhone, owner: Owner, tmp_path: Path) -> None:
    ipa = package(tmp_path / "Other.ipa", bundle="com.example.other")
    with (
        find_iphone(IPHONE_13, owner.access, ipa) as device,
        pytest.raises(InvalidArtifactError, match="com.example"),
    ):
        device.connect()
    assert phone.media == {}


def test_cable_pulled_and_put_back_goes_on_with_the_same_agent(
    usbmuxd: FakeUsbmuxd, phone: FakePhone, owner: Owner
) -> None:
    with find_iphone(IPHONE_13, owner.access) as device:
        client = device.connect()
        usbmuxd.unplug(phone)
        with pytest.raises(AgentLost):
            client.state()
        threading.Timer(1.0, usbmuxd.plug_in, [phone]).start()
        device.connect().close()
        assert device.agent_starts == 1
    assert len(phone.launches) == 1
    assert len([line for line in owner.told if "waiting up to 10 min" in line]) == 1


def test_usbmuxd_that_ends_with_its_last_phone_is_waited_for_too(
    usbmuxd: FakeUsbmuxd, phone: FakePhone, owner: Owner
) -> None:
    with find_iphone(IPHONE_13, owner.access) as device:
        device.connect().close()
        usbmuxd.close()
        usbmuxd.path.unlink()
        again: list[FakeUsbmuxd] = []

        def plug_in() -> None:
            again.append(FakeUsbmuxd(usbmuxd.path))
            again[0].plug_in(phone)

        timer = threading.Timer(0.5, plug_in)
        timer.start()
        try:
            device.connect().close()
        finally:
            timer.join()
            again[0].close()
        assert device.agent_starts == 1


def test_app_that_ended_while_the_cable_was_out_is_started_again(
    usbmuxd: FakeUsbmuxd, phone: FakePhone, owner: Owner
) -> None:
    with find_iphone(IPHONE_13, owner.access) as device:
        device.connect().close()
        usbmuxd.unplug(phone)
        phone.quit_app()
        usbmuxd.plug_in(phone)
        device.connect().close()
        assert device.agent_starts == 2
    first, second = phone.launches
    assert first == second


def test_app_that_its_owner_opened_anew_is_asked_for(phone: FakePhone, owner: Owner) -> None:
    phone.developer_image = False
    with find_iphone(IPHONE_13, owner.access) as device:
        device.connect().close()
        phone.quit_app()
        device.connect().close()
        assert device.agent_starts == 2
    assert len(owner.asked) == 2


def test_phone_that_stays_away_is_given_up(
    usbmuxd: FakeUsbmuxd, phone: FakePhone, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    with find_iphone(IPHONE_13, owner.access) as device:
        device.connect().close()
        monkeypatch.setattr(device, "_wait_s", 0.0)
        usbmuxd.unplug(phone)
        with pytest.raises(DeviceError, match=r"did not come back within .* what was measured is kept"):
            device.connect()


def test_phones_of_one_name_are_told_apart_by_udid(
    usbmuxd: FakeUsbmuxd, phone: FakePhone, owner: Owner, tmp_path: Path
) -> None:
    other = FakePhone(ThreadApp(tmp_path / "other"), udid="00008110-000000000000001E", name="Second")
    other.install_app()
    usbmuxd.plug_in(other)
    assert [state.udid for state in list_phones()] == [other.udid, phone.udid]
    with pytest.raises(DeviceError, match=rf"2 phones are iPhone 13.*{other.udid} \(Second\), {phone.udid}"):
        find_iphone(IPHONE_13)
    with find_iphone(other.udid.replace("-", "").lower(), owner.access) as device:
        assert (device.name, other.udid in device.describe()) == ("iphone13", True)
        device.connect().close()
    assert (len(other.launches), len(phone.launches)) == (1, 0)


def test_phone_seen_over_the_network_needs_its_cable(
    usbmuxd: FakeUsbmuxd, phone: FakePhone, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust_now(phone)
    usbmuxd.plug_in(phone, "Network")
    assert [(state.connection, state.next_step) for state in list_phones()] == [("usb", "")]
    usbmuxd.unplug(phone)
    (state,) = list_phones()
    assert (state.connection, state.product_type) == ("network", "iPhone14,5")
    assert "connect it by cable" in state.next_step
    monkeypatch.setenv("BLOCKTIME_TOKEN", phone.tap_icon())
    with find_iphone(IPHONE_13, owner.access) as device:
        monkeypatch.setattr(device, "_wait_s", 0.0)
        with pytest.raises(DeviceError, match="connect it by cable"):
            device.connect()


def test_phone_of_an_unknown_kind_has_a_name(phone: FakePhone, owner: Owner) -> None:
    phone.product_type = "iPhone99,1"
    with find_iphone("iphone99-1", owner.access) as device:
        assert device.name == "iphone99-1"
        device.connect().close()


def test_phone_that_is_not_there_says_what_is(usbmuxd: FakeUsbmuxd, phone: FakePhone) -> None:
    with pytest.raises(
        DeviceError, match=r"no iPhone 15.*attached: iPhone 13 \(00008110-.*connect it by cable"
    ):
        find_iphone(known_phones()["iphone15"])
    usbmuxd.unplug(phone)
    with pytest.raises(DeviceError, match=r"attached: no iPhone"):
        find_iphone(IPHONE_13)


def test_no_usbmuxd_says_how_to_start_it(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USBMUXD_SOCKET_ADDRESS", f"UNIX:{tmp_path}/nothing")
    with pytest.raises(UnreachableError, match=r"no usbmuxd answers at .*/nothing: start it") as missing:
        list_phones()
    assert missing.value.next_step.startswith("start it")


def test_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UnreachableError, match=r"pip install 'blocktime\[ios\]'"):
        list_phones()
