"""An iPhone whose cable, usbmuxd or app was lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from orchestrator.devices.iphone import device as device_module
from orchestrator.devices.iphone.phones import find_iphone
from orchestrator.wire.errors import AgentLostError
from tests.support.errors import raises
from tests.support.fake_iphone import IPHONE_13, FakeIphone, PhoneUser
from tests.support.fake_usbmuxd import FakeUsbmuxd
from tests.support.waiting import until


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


def test_usbmuxd_that_ends_with_its_last_phone_is_waited_for(
    usbmuxd: FakeUsbmuxd, phone: FakeIphone, user: PhoneUser
) -> None:
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
def test_app_that_ended_without_the_cable_is_started_again(
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


def test_new_pairing_code_is_asked_for_after_the_app_ended(phone: FakeIphone, user: PhoneUser) -> None:
    phone.developer_image = False
    with find_iphone(IPHONE_13, user.access) as device:
        device.connect().close()
        phone.quit_app()
        device.connect().close()
        assert device.agent_starts == 2
    assert len(user.questions) == 2


def test_phone_that_stays_away(
    usbmuxd: FakeUsbmuxd, phone: FakeIphone, user: PhoneUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    with find_iphone(IPHONE_13, user.access) as device:
        device.connect().close()
        monkeypatch.setattr(device, "_reconnect_timeout_s", 0.0)
        usbmuxd.unplug(phone)
        with raises("phone_did_not_return"):
            device.connect()
