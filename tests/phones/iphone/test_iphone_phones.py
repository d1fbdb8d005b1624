"""iPhones found through usbmuxd: listing, pairing, which phone a name means, and lost connections."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.devices.iphone import device as device_module
from orchestrator.devices.iphone.phones import find_iphone, list_phones
from orchestrator.wire.errors import AgentLostError
from tests.support.errors import raises
from tests.support.fake_iphone import BUNDLE, IPHONE_13, FakeIphone, PhoneUser, trust_now
from tests.support.fake_usbmuxd import FakeUsbmuxd
from tests.support.phone_apps import ThreadApp
from tests.support.waiting import until


def test_listing_shows_no_dialog(phone: FakeIphone) -> None:
    (state,) = list_phones()
    assert (state.udid, state.connection, state.product_type) == (phone.udid, "usb", "iPhone14,5")
    assert (state.ios, state.owner_name, state.trust) == ("16.7.10", "Test iPhone", "unpaired")
    assert "tap Trust" in state.next_step
    assert phone.trusts_after == 1
    assert phone.hosts == {}


def test_listing_of_a_trusted_phone_is_complete(phone: FakeIphone) -> None:
    trust_now(phone)
    (state,) = list_phones()
    assert (state.trust, state.developer_mode, state.apps, state.next_step) == (
        "trusted",
        True,
        {BUNDLE: "1"},
        "",
    )


def test_pairing_is_stored_in_usbmuxd(usbmuxd: FakeUsbmuxd, phone: FakeIphone, user: PhoneUser) -> None:
    with find_iphone(IPHONE_13, user.access) as device:
        device.connect().close()
        assert device.describe() == f"iPhone 13 (iPhone14,5), iOS 16.7.10, UDID {phone.udid}"
    record = usbmuxd.record(phone)
    assert record is not None
    assert list(phone.hosts) == [record["HostID"]]
    assert "tap Trust" in user.messages[0]
    phone.owner = "denies"
    before = len(user.messages)
    with find_iphone(IPHONE_13, user.access) as device:
        device.connect().close()
    assert len(user.messages) == before


@pytest.mark.parametrize(
    ("hands", "code"),
    [("denies", "phone_not_trusting"), ("away", "phone_not_trusting"), ("locked", "phone_locked")],
)
def test_user_who_does_not_trust_the_computer(
    phone: FakeIphone, user: PhoneUser, monkeypatch: pytest.MonkeyPatch, hands: str, code: str
) -> None:
    monkeypatch.setattr(device_module, "_TRUST_TIMEOUT_S", 0.0)
    phone.owner = hands  # type: ignore[assignment]
    phone.trusts_after = 0
    with find_iphone(IPHONE_13, user.access) as device, raises(code) as refused:
        device.connect()
    assert "\n" not in str(refused.value)
    assert phone.udid in str(refused.value)


def test_phone_locked_since_its_start(phone: FakeIphone, user: PhoneUser) -> None:
    trust_now(phone)
    phone.locked = True
    (state,) = list_phones()
    assert (state.trust, state.product_type) == ("locked", "iPhone14,5")
    with find_iphone(IPHONE_13, user.access) as device, raises("phone_not_ready"):
        device.connect()


def test_pairing_that_the_phone_forgot_is_repeated(phone: FakeIphone, user: PhoneUser) -> None:
    trust_now(phone)
    phone.hosts.clear()
    assert list_phones()[0].trust == "unpaired"
    with find_iphone(IPHONE_13, user.access) as device:
        device.connect().close()
    assert len(phone.hosts) == 1


def test_phones_of_one_model_are_distinguished_by_udid(
    usbmuxd: FakeUsbmuxd, phone: FakeIphone, user: PhoneUser, tmp_path: Path
) -> None:
    other = FakeIphone(ThreadApp(tmp_path / "other"), udid="00008110-000000000000001E", name="Second")
    other.install_app()
    usbmuxd.plug_in(other)
    assert [state.udid for state in list_phones()] == [other.udid, phone.udid]
    with raises("several_phones") as several:
        find_iphone(IPHONE_13)
    assert f"{other.udid} (Second), {phone.udid}" in str(several.value)
    with find_iphone(other.udid.replace("-", "").lower(), user.access) as device:
        assert (device.name, other.udid in device.describe()) == ("iphone13", True)
        device.connect().close()
    assert (len(other.launches), len(phone.launches)) == (1, 0)


def test_phone_seen_over_the_network_needs_its_cable(
    usbmuxd: FakeUsbmuxd, phone: FakeIphone, user: PhoneUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust_now(phone)
    usbmuxd.plug_in(phone, "Network")
    assert [(state.connection, state.next_step) for state in list_phones()] == [("usb", "")]
    usbmuxd.unplug(phone)
    (state,) = list_phones()
    assert (state.connection, state.product_type) == ("network", "iPhone14,5")
    assert "connect it by cable" in state.next_step
    monkeypatch.setenv("BLOCKTIME_TOKEN", phone.tap_icon())
    with find_iphone(IPHONE_13, user.access) as device:
        monkeypatch.setattr(device, "_reconnect_timeout_s", 0.0)
        with raises("phone_did_not_return"):
            device.connect()


def test_phone_that_is_not_attached(usbmuxd: FakeUsbmuxd, phone: FakeIphone) -> None:
    assert find_iphone("iphone15") is None
    usbmuxd.unplug(phone)
    assert find_iphone(IPHONE_13) is None


def test_no_usbmuxd(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USBMUXD_SOCKET_ADDRESS", f"UNIX:{tmp_path}/nothing")
    with raises("no_usbmuxd"):
        list_phones()


def test_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with raises("package_missing"):
        list_phones()


@contextmanager
def once_missed(user: PhoneUser, work: Callable[[], None]) -> Iterator[None]:
    """Do `work` once `bench` has said that it waits for the phone."""

    def wait_and_work() -> None:
        until(lambda: any("waiting up to 10 min" in line for line in user.messages))
        work()

    thread = threading.Thread(target=wait_and_work, daemon=True)
    thread.start()
    yield
    thread.join()


def test_pulled_cable_keeps_the_running_agent(
    usbmuxd: FakeUsbmuxd, phone: FakeIphone, user: PhoneUser
) -> None:
    with find_iphone(IPHONE_13, user.access) as device:
        client = device.connect()
        usbmuxd.unplug(phone)
        with pytest.raises(AgentLostError):
            client.state()
        with once_missed(user, lambda: usbmuxd.plug_in(phone)):
            device.connect().close()
        assert device.agent_starts == 1
    assert len(phone.launches) == 1
    assert len([line for line in user.messages if "waiting up to 10 min" in line]) == 1


def test_ended_usbmuxd_is_waited_for(usbmuxd: FakeUsbmuxd, phone: FakeIphone, user: PhoneUser) -> None:
    with find_iphone(IPHONE_13, user.access) as device:
        device.connect().close()
        usbmuxd.close()
        usbmuxd.path.unlink()
        again: list[FakeUsbmuxd] = []

        def plug_in() -> None:
            again.append(FakeUsbmuxd(usbmuxd.path))
            again[0].plug_in(phone)

        with once_missed(user, plug_in):
            device.connect().close()
        assert device.agent_starts == 1
        again[0].close()


@pytest.mark.parametrize("refused_calls", [0, 2], ids=["answers at once", "answers a moment later"])
def test_ended_app_is_started_again(
    usbmuxd: FakeUsbmuxd, phone: FakeIphone, user: PhoneUser, refused_calls: int
) -> None:
    with find_iphone(IPHONE_13, user.access) as device:
        device.connect().close()
        usbmuxd.unplug(phone)
        phone.quit_app()
        phone.refused_calls = refused_calls
        usbmuxd.plug_in(phone)
        device.connect().close()
        assert device.agent_starts == 2
    assert not phone.refused_calls
    first, second = phone.launches
    assert first == second


def test_phone_that_never_answers(
    phone: FakeIphone, user: PhoneUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "_SETTLE_TIMEOUT_S", 0.1)
    with find_iphone(IPHONE_13, user.access) as device:
        phone.refused_calls = 1000
        with raises("phone_not_ready") as silent:
            device.connect()
    assert "does not answer (" in str(silent.value)


def test_new_pairing_code_after_the_end(phone: FakeIphone, user: PhoneUser) -> None:
    phone.developer_image = False
    with find_iphone(IPHONE_13, user.access) as device:
        device.connect().close()
        phone.quit_app()
        device.connect().close()
        assert device.agent_starts == 2
    assert len(user.questions) == 2
