"""What is checked of an iPhone before models are exported for it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from orchestrator.devices.iphone import device as device_module
from orchestrator.devices.iphone.device import IphoneDevice
from orchestrator.devices.iphone.phones import find_iphone
from tests.support.errors import raises
from tests.support.fake_iphone import IPHONE_13, FakeIphone, PhoneUser, package, trust_now

OTHERS = ("00008110-000000000000001E", "00008030-000000000000002F")


@pytest.fixture
def iphone(phone: FakeIphone, user: PhoneUser) -> IphoneDevice:
    return find_iphone(IPHONE_13, user.access)


def given(user: PhoneUser, app: Path) -> IphoneDevice:
    return find_iphone(IPHONE_13, dataclasses.replace(user.access, app=app))


def test_a_ready_phone_is_paired_and_otherwise_left_alone(
    phone: FakeIphone, user: PhoneUser, iphone: IphoneDevice
) -> None:
    iphone.check_ready()
    assert len(phone.hosts) == 1
    assert (phone.launches, phone.pid, phone.in_front, phone.media) == ([], 0, False, {})
    assert user.questions == []


def test_locked_phone(phone: FakeIphone, iphone: IphoneDevice) -> None:
    phone.owner = "locked"
    with raises("phone_locked"):
        iphone.check_ready()
    phone.owner = "trusts"
    trust_now(phone)
    phone.locked = True
    with raises("phone_not_ready") as locked:
        iphone.check_ready()
    assert "unlock it" in str(locked.value)


def test_nobody_trusts_the_computer(
    phone: FakeIphone, iphone: IphoneDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "_TRUST_TIMEOUT_S", 0.0)
    phone.owner = "away"
    with raises("phone_not_trusting"):
        iphone.check_ready()


def test_developer_mode_is_off(phone: FakeIphone, iphone: IphoneDevice) -> None:
    phone.developer_mode = False
    with raises("developer_mode_off"):
        iphone.check_ready()


def test_missing_app(phone: FakeIphone, iphone: IphoneDevice) -> None:
    phone.apps.clear()
    with raises("app_not_installed"):
        iphone.check_ready()


def test_app_of_an_older_protocol(
    phone: FakeIphone, user: PhoneUser, iphone: IphoneDevice, tmp_path: Path
) -> None:
    phone.install_app(build="0")
    with raises("app_of_another_version"):
        iphone.check_ready()
    given(user, package(tmp_path / "new.ipa")).check_ready()
    with raises("app_of_another_version"):
        given(user, package(tmp_path / "old.ipa", build="0")).check_ready()


def test_package_of_other_devices(phone: FakeIphone, user: PhoneUser, tmp_path: Path) -> None:
    phone.apps.clear()
    with raises("signed_for_other_devices") as refused:
        given(user, package(tmp_path / "a.ipa", devices=OTHERS)).check_ready()
    assert phone.udid in str(refused.value)
    assert phone.hosts == {}, "nobody has to tap Trust for a package that cannot be installed"
    given(user, package(tmp_path / "b.ipa", devices=[*OTHERS, phone.udid])).check_ready()
    assert phone.apps == {}, "it is installed later"


def test_package_that_cannot_be_read_or_is_not_signed(
    phone: FakeIphone, user: PhoneUser, tmp_path: Path
) -> None:
    with raises("unreadable_file"):
        given(user, tmp_path / "missing.ipa").check_ready()
    with raises("app_not_signed"):
        given(user, package(tmp_path / "a.ipa", signed=False)).check_ready()


def test_full_storage(phone: FakeIphone, iphone: IphoneDevice) -> None:
    phone.media_bytes = 120_000_000
    with raises("phone_full") as full:
        iphone.check_ready()
    assert "has 120 MB free, models take 500" in str(full.value)


def test_missing_service_is_not_a_matter_of_the_cable(phone: FakeIphone, iphone: IphoneDevice) -> None:
    phone.missing_services = ("com.apple.afc",)
    with raises("service_missing") as missing:
        iphone.check_ready()
    assert "plug" not in str(missing.value)


def test_phone_whose_user_starts_the_app(
    phone: FakeIphone, user: PhoneUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through iOS 17.3 a computer cannot; a code given beforehand is checked, another is asked for later."""
    phone.ios = "17.2"
    find_iphone(IPHONE_13, user.access).check_ready()
    assert "you will be asked for the code" in user.messages[-1]
    assert user.questions == []
    monkeypatch.setenv("BLOCKTIME_TOKEN", phone.tap_icon())
    find_iphone(IPHONE_13, user.access).check_ready()
    phone.quit_app()
    with raises("wrong_pairing_code"):
        find_iphone(IPHONE_13, user.access).check_ready()
