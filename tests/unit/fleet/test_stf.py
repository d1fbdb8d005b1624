"""Phones of an STF: leased by its API, given back whatever happens, and refused in one line."""

import pytest

from luts.format.errors import UsageError
from orchestrator.devices.common.device import Access
from orchestrator.fleet import stf
from orchestrator.fleet.stf import Farm, open_leased
from orchestrator.fleet.units import DeviceClass
from orchestrator.wire.errors import DeviceError
from tests.support.fake_device import device
from tests.support.fake_stf import TOKEN, FakeStf

PIXELS = DeviceClass("pixel8", 2)


@pytest.fixture
def farm():
    models = {"one": "Pixel 8", "two": "Pixel 8", "other": "SM-X999"}
    with FakeStf(models, {"one": "10.0.0.1:7401", "two": "10.0.0.1:7402", "other": "10.0.0.1:7403"}) as fake:
        yield fake


@pytest.fixture
def resolved(monkeypatch):
    """Addresses that were connected to."""
    addresses = []

    def resolve(address, access):
        addresses.append(address)
        return device()

    monkeypatch.setattr(stf, "resolve", resolve)
    return addresses


def test_a_free_phone_of_the_class_is_leased_for_the_time_asked_and_given_back(farm, resolved):
    here = Farm(farm.url, TOKEN, idle_s=60)
    unit = open_leased(here, PIXELS, Access())
    assert (unit.serial, resolved, farm.leased) == ("one", ["10.0.0.1:7401"], {"one"})
    assert ("POST", "/api/v1/user/devices", {"serial": "one", "timeout": 60000}) in farm.requests
    second = open_leased(here, PIXELS, Access(), {"one"})
    assert second.serial == "two"
    with pytest.raises(DeviceError, match="has no free pixel8: 2 there"):
        open_leased(here, PIXELS, Access(), {"one", "two"})
    unit.close()
    assert farm.leased == {"two"}
    assert farm.requests[-2:] == [
        ("DELETE", "/api/v1/user/devices/one/remoteConnect", None),
        ("DELETE", "/api/v1/user/devices/one", None),
    ]


def test_members_and_phones_that_no_registry_has_are_found_by_serial_and_by_model(farm, resolved):
    here = Farm(farm.url, TOKEN)
    assert open_leased(here, DeviceClass("rack", 1, ("two",)), Access()).serial == "two"
    assert open_leased(here, DeviceClass("smx999", 1), Access()).serial == "other"
    with pytest.raises(DeviceError, match="has no pixel9; it has pixel8, smx999"):
        open_leased(here, DeviceClass("pixel9", 1), Access())


def test_what_goes_wrong_keeps_no_phone(farm, resolved, monkeypatch):
    here = Farm(farm.url, TOKEN)
    farm.devices["one"]["ready"] = False
    farm.mute.add("two")
    with pytest.raises(
        DeviceError, match="504 to POST user/devices/two/remoteConnect: Device is not responding"
    ):
        open_leased(here, PIXELS, Access())
    assert not farm.leased
    farm.mute.clear()

    def unreachable(address, access):
        raise DeviceError("nobody answers there")

    monkeypatch.setattr(stf, "resolve", unreachable)
    with pytest.raises(DeviceError, match="nobody answers there"):
        open_leased(here, PIXELS, Access())
    assert not farm.leased
    farm.addresses["two"] = "not an address"
    with pytest.raises(DeviceError, match="gave no address for two"):
        open_leased(here, PIXELS, Access())
    assert not farm.leased


def test_a_wrong_token_no_token_and_no_farm_are_one_line_each(farm, monkeypatch):
    with pytest.raises(DeviceError, match="401 to GET devices: Requires Authentication"):
        Farm(farm.url, "wrong").devices()
    monkeypatch.delenv("STF_TOKEN", raising=False)
    with pytest.raises(UsageError, match="set STF_TOKEN"):
        Farm.of(farm.url, 60)
    with pytest.raises(UsageError, match="expected the address of an STF"):
        Farm.of("file:///etc/passwd", 60)
    monkeypatch.setenv("STF_TOKEN", TOKEN)
    assert Farm.of(farm.url + "/", 60) == Farm(farm.url, TOKEN, 60)
    assert TOKEN not in repr(Farm.of(farm.url, 60))
    gone = farm.url
    farm.__exit__()
    with pytest.raises(DeviceError, match="no STF answers at .*check --stf"):
        Farm(gone, TOKEN).devices()
