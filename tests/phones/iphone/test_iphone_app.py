"""The app on an attached iPhone: installed, started and connected to."""

from __future__ import annotations

import dataclasses
import plistlib
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from developer_disk_image.repo import DeveloperDiskImageRepository, PersonalizedImage
from pymobiledevice3.exceptions import AlreadyMountedError
from pymobiledevice3.remote import userspace_tunnel
from pymobiledevice3.remote.remote_service_discovery import RemoteServiceDiscoveryService
from pymobiledevice3.services import mobile_image_mounter

from orchestrator.devices.iphone import mobiledevice
from orchestrator.devices.iphone.phones import find_iphone, list_phones
from tests.support.errors import raises
from tests.support.fake_iphone import BUNDLE, IPHONE_13, FakeIphone, PhoneUser, package, trust_now
from tests.support.fake_tunnel import FakeTunnel


def test_app_is_started_with_a_token_and_ended(phone: FakeIphone, user: PhoneUser) -> None:
    access = dataclasses.replace(user.access, allow=("debuggable_build", "low_battery"))
    with find_iphone(IPHONE_13, access) as device:
        with device.connect() as client:
            assert client.hello().device.model == "iPhone14,5"
        assert device.agent_starts == 1
        assert phone.pid
    (environment,) = phone.launches
    assert environment["BLOCKTIME_ALLOW"] == "debuggable_build,low_battery"
    assert len(environment["BLOCKTIME_TOKEN"]) == 32
    assert not phone.pid
    assert user.questions == []


def test_token_of_the_environment(
    phone: FakeIphone, user: PhoneUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLOCKTIME_TOKEN", phone.tap_icon())
    with find_iphone(IPHONE_13, user.access) as device:
        device.connect().close()
        assert device.agent_starts == 0
    assert (phone.launches, user.questions) == ([], [])
    assert phone.pid


@pytest.mark.parametrize(
    ("ios", "developer_image", "reason"),
    [
        ("16.7.10", False, "cannot be mounted (no internet)"),
        ("17.2", True, "iOS 17.0 to 17.3"),
        ("17.6", True, "No-root userspace tunnel unavailable"),
    ],
)
def test_user_taps_the_icon(
    phone: FakeIphone, user: PhoneUser, ios: str, developer_image: bool, reason: str
) -> None:
    phone.ios, phone.developer_image = ios, developer_image
    with find_iphone(IPHONE_13, user.access) as device:
        device.connect().close()
        assert device.agent_starts == 1
    assert reason in user.messages[-1]
    assert len(user.questions) == 1
    assert "pairing code" in user.questions[0]
    assert phone.pid, "an app that its user opened stays open"


def test_missing_developer_disk_image_is_mounted(phone: FakeIphone, user: PhoneUser, home: Path) -> None:
    """As after a restart of the phone."""
    phone.developer_image = False
    kept = (
        home / ".pymobiledevice3/Xcode.app/Contents/Developer/Platforms/iPhoneOS.platform/DeviceSupport/16.7"
    )
    kept.mkdir(parents=True)
    for name in ("DeveloperDiskImage.dmg", "DeveloperDiskImage.dmg.signature"):
        (kept / name).write_bytes(name.encode())
    with find_iphone(IPHONE_13, user.access) as device:
        device.connect().close()
    assert phone.developer_image
    assert (len(phone.launches), user.questions) == (1, [])


@pytest.mark.parametrize("team", ["dev.blocktime.bench.OTHERTEAM1", "dev.blocktime.bench"])
def test_app_of_any_team_is_found_and_started(phone: FakeIphone, user: PhoneUser, team: str) -> None:
    phone.apps.clear()
    phone.install_app("com.example.bench")
    phone.install_app(team)
    with find_iphone(IPHONE_13, user.access) as device:
        device.connect().close()
    assert phone.launched == [team]


def test_the_installed_app_is_started(phone: FakeIphone, user: PhoneUser, tmp_path: Path) -> None:
    ours = "dev.blocktime.bench.OTHERTEAM1"
    app = package(tmp_path / "Bench.ipa", ours)
    with find_iphone(IPHONE_13, dataclasses.replace(user.access, app=app)) as device:
        device.connect().close()
    assert set(phone.apps) == {BUNDLE, ours}
    assert phone.launched == [ours]
    with find_iphone(IPHONE_13, user.access) as device, raises("app_not_installed"):
        device.connect()


@pytest.fixture
def tunnels(phone: FakeIphone, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens to the tunnels to a phone with iOS 17.6 and to its developer disk image, in order."""
    phone.ios = "17.6"
    events: list[str] = []
    monkeypatch.setattr(FakeTunnel, "phone", phone, raising=False)
    monkeypatch.setattr(FakeTunnel, "events", events, raising=False)
    monkeypatch.setattr(userspace_tunnel, "UserspaceRsdTunnel", FakeTunnel)

    async def mount(lockdown: RemoteServiceDiscoveryService, image: object) -> None:
        """Apple's ticket server signs the image for one phone; here it is signed in name."""
        assert lockdown.product_version == "17.6"
        events.append("mount")
        phone.developer_image = True

    monkeypatch.setattr(mobile_image_mounter, "auto_mount_personalized", mount)
    return events


def published_images(fetch: Callable[[], object]) -> Callable[[], SimpleNamespace]:
    """The place of the developer disk images; `fetch` is called by the thread that downloads one."""
    manifest = plistlib.dumps({"ProductBuildVersion": mobile_image_mounter.LATEST_DDI_BUILD_ID})

    def download() -> PersonalizedImage:
        fetch()
        return PersonalizedImage(b"image", manifest, b"trust cache")

    return lambda: SimpleNamespace(get_personalized_disk_image=download)


def test_app_is_started_through_a_tunnel_from_ios_17_4(
    phone: FakeIphone, user: PhoneUser, tunnels: list[str]
) -> None:
    with find_iphone(IPHONE_13, user.access) as device:
        device.connect().close()
        assert device.agent_starts == 1
    assert tunnels == ["open", "close"] * 2, "to start the app and to end it"
    assert len(phone.launches) == 1
    assert not phone.pid


def test_mounted_image_is_used_through_a_new_tunnel(
    phone: FakeIphone, user: PhoneUser, tunnels: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after each restart of a phone; a tunnel lists the services of the time when it was opened."""
    phone.developer_image = False
    threads: list[str] = []

    def fetch() -> None:
        tunnels.append("fetch")
        threads.append(threading.current_thread().name)

    monkeypatch.setattr(DeveloperDiskImageRepository, "create", published_images(fetch))
    with find_iphone(IPHONE_13, user.access) as device:
        device.connect().close()
        assert tunnels == ["open", "close", "fetch", "open", "mount", "close", "open", "close"]
    assert threads == ["developer-image"]
    assert (len(phone.launches), user.questions) == (1, [])


def test_image_that_changes_nothing_is_mounted_once(
    phone: FakeIphone, user: PhoneUser, tunnels: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def mount(lockdown: object, image: object) -> None:
        tunnels.append("mount")
        raise AlreadyMountedError

    phone.developer_image = False
    monkeypatch.setattr(mobile_image_mounter, "auto_mount_personalized", mount)
    monkeypatch.setattr(DeveloperDiskImageRepository, "create", published_images(lambda: None))
    with find_iphone(IPHONE_13, user.access) as device:
        device.connect().close()
    assert tunnels.count("mount") == 1
    assert len(user.questions) == 1
    assert "dtservicehub" in user.messages[-1]


def test_download_of_the_image_is_reported_and_limited(
    phone: FakeIphone, user: PhoneUser, tunnels: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    phone.developer_image = False
    ended = threading.Event()
    monkeypatch.setattr(DeveloperDiskImageRepository, "create", published_images(ended.wait))
    monkeypatch.setattr(mobiledevice, "_FETCH_REPORT_S", 0.05)
    monkeypatch.setattr(mobiledevice, "_FETCH_REPORTS", 3)
    try:
        with find_iphone(IPHONE_13, user.access) as device:
            device.connect().close()
    finally:
        ended.set()
    assert sum("downloading Apple's developer disk image" in line for line in user.messages) == 2
    assert "cannot be mounted (no answer in time)" in user.messages[-1]
    assert len(user.questions) == 1, "the user can still open the app"
    assert tunnels == ["open", "close"]


def test_wrong_pairing_codes_are_asked_for_again(phone: FakeIphone, user: PhoneUser) -> None:
    phone.developer_image = False
    shown = phone.tap_icon()
    user.answers = [
        lambda: "short",
        lambda: "AAAAAAAA",
        lambda: f" {shown[:4].lower()}-{shown[4:]} ",
    ]
    with find_iphone(IPHONE_13, user.access) as device:
        device.connect().close()
    assert "8 letters and digits" in user.questions[1]
    assert "another code" in user.questions[2]
    user.answers = [lambda: "AAAAAAAA"] * 5
    with find_iphone(IPHONE_13, user.access) as device, raises("wrong_pairing_code"):
        device.connect()


def test_pairing_code_without_a_user(phone: FakeIphone) -> None:
    phone.developer_image = False
    with find_iphone(IPHONE_13) as device, raises("no_user") as question:
        device.connect()
    assert "open blocktime on iPhone 13" in str(question.value)


def test_developer_mode_that_is_off(phone: FakeIphone, user: PhoneUser) -> None:
    trust_now(phone)
    phone.developer_mode = False
    assert "Developer Mode is off" in list_phones()[0].next_step
    with find_iphone(IPHONE_13, user.access) as device:
        with raises("developer_mode_off"):
            device.connect()
        phone.tap_icon()
        device.connect().close()


def test_iphones_before_ios_16_have_no_developer_mode(phone: FakeIphone, user: PhoneUser) -> None:
    phone.ios, phone.developer_mode = "15.8", False
    trust_now(phone)
    assert list_phones()[0].developer_mode is None
    with find_iphone(IPHONE_13, user.access) as device:
        device.connect().close()
    assert len(phone.launches) == 1


def test_missing_app_is_installed(
    phone: FakeIphone, user: PhoneUser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust_now(phone)
    phone.apps.clear()
    assert "not installed" in list_phones()[0].next_step
    with find_iphone(IPHONE_13, user.access) as device, raises("app_not_installed"):
        device.connect()
    monkeypatch.setenv("BLOCKTIME_IOS_APP", str(package(tmp_path / "Bench.ipa")))
    with find_iphone(IPHONE_13, user.access) as device:
        device.connect().close()
        device.connect().close()
    assert list_phones()[0].apps == {BUNDLE: "1"}
    assert phone.media == {}, "the package is taken away again"
    assert [line for line in user.messages if "installing" in line] == [
        "installing Bench.ipa (0.2.0) on iPhone 13"
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"refuses_apps": "ApplicationVerificationFailed"}, "ApplicationVerificationFailed"),
        ({"media_bytes": 1000}, "free some space"),
    ],
)
def test_refused_installation_says_why(
    phone: FakeIphone, user: PhoneUser, tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    for name, value in change.items():
        setattr(phone, name, value)
    access = dataclasses.replace(user.access, app=package(tmp_path / "Bench.ipa"))
    with find_iphone(IPHONE_13, access) as device, raises("install_refused") as refused:
        device.connect()
    assert reason in str(refused.value)


def test_token_of_the_environment_starts_the_app(
    phone: FakeIphone, user: PhoneUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLOCKTIME_TOKEN", "of-the-environment")
    with find_iphone(IPHONE_13, user.access) as device:
        device.connect().close()
    assert phone.launches == [{"BLOCKTIME_TOKEN": "of-the-environment"}]
