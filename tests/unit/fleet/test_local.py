"""Units of this machine: each taken once, and one line where there is none."""

from typing import Any

import pytest

from orchestrator.devices import discover
from orchestrator.devices.android import phones as android_phones
from orchestrator.devices.android.device import RECONNECT_TIMEOUT_S
from orchestrator.devices.android.phones import AndroidPhone
from orchestrator.devices.common.device import Access
from orchestrator.devices.discover import AttachedDevice, Listing
from orchestrator.fleet import units as local
from orchestrator.fleet.units import DeviceClass, open_local
from orchestrator.wire.errors import DeviceError
from tests.support.errors import raises
from tests.support.fake_device import device


@pytest.fixture
def attached(monkeypatch):
    """Two Pixel 8 and another phone; names that were resolved."""
    phones = [("pixel8", "A1"), ("other", "B2"), ("pixel8", "C3")]
    listing = Listing(
        tuple(AttachedDevice("android", name, "", "", serial, "") for name, serial in phones), ()
    )
    monkeypatch.setattr(local, "list_attached", lambda: listing)
    resolved = []

    def resolve(name, access):
        resolved.append((name, access.agent))
        return device()

    monkeypatch.setattr(local, "resolve", resolve)
    return resolved


def test_phones_are_opened_once(attached):
    taken = []
    for _ in range(2):
        taken.append(open_local(DeviceClass("Pixel 8", 2), Access(), taken).serial)
    assert taken == ["A1", "C3"]
    assert [name for name, _ in attached] == ["A1", "C3"]
    with pytest.raises(DeviceError, match="A1, C3 of pixel8 are units of this fleet already"):
        open_local(DeviceClass("pixel8", 3), Access(), taken)


def test_host_is_one_unit(attached):
    host = open_local(DeviceClass("host:kotlin", 1), Access())
    assert attached == [("host", "kotlin")]
    with pytest.raises(DeviceError, match="are units of this fleet already"):
        open_local(DeviceClass("host:kotlin", 1), Access(), [host.serial])
    simulated = DeviceClass("simulated", 3)
    first = open_local(simulated, Access()).serial
    assert open_local(simulated, Access(), [first]).serial != first


def test_unattached_phone_is_one_line(monkeypatch):
    listing = Listing((AttachedDevice("host", "host", "this machine", "", "", ""),), ())
    monkeypatch.setattr(local, "list_attached", lambda: listing)
    monkeypatch.setattr(discover, "list_attached", lambda: listing)
    monkeypatch.setattr(android_phones, "find", lambda *_: None)
    with raises("device_not_attached") as caught:
        open_local(DeviceClass("pixel8", 1), Access())
    assert "\n" not in str(caught.value)


def test_reconnect_timeout_of_access(monkeypatch):
    phone = AndroidPhone("10.0.0.1:5555", "device", "Pixel 8", "tcp")
    monkeypatch.setattr(android_phones, "find", lambda *_: phone)
    for access, wait_s in [(Access(), RECONNECT_TIMEOUT_S), (Access(reconnect_timeout_s=1.0), 1.0)]:
        device: Any = discover.resolve("10.0.0.1:5555", access)
        assert device._reconnect_timeout_s == wait_s
