"""Units of a fleet: what --devices names, those of this machine, and those by way of an actor."""

import inspect
import json
from typing import Any

import pytest

from orchestrator.devices import discover
from orchestrator.devices.android import phones as android_phones
from orchestrator.devices.android.phones import AndroidPhone
from orchestrator.devices.common.device import RECONNECT_TIMEOUT_S, Access
from orchestrator.devices.discover import AttachedDevice, Listing
from orchestrator.fleet import units
from orchestrator.fleet.remote import RemoteClient
from orchestrator.fleet.units import DeviceClass, open_local, parse_classes
from orchestrator.wire.client import AgentClient
from orchestrator.wire.errors import DeviceError
from tests.support.bench import bench
from tests.support.errors import raises
from tests.support.fake_device import device


def test_classes_and_their_units():
    assert parse_classes("pixel8=3, iphone13") == (DeviceClass("pixel8", 3), DeviceClass("iphone13", 1))
    kotlin, noisy = parse_classes("host:kotlin,simulated:noisy=2")
    assert (kotlin.device, kotlin.agent, noisy.device, noisy.agent) == (
        "host",
        "kotlin",
        "simulated:noisy",
        "python",
    )


def test_file_of_classes(tmp_path):
    path = tmp_path / "fleet.json"
    path.write_text(json.dumps({"pixel8": 2, "rack": ["10.0.0.4:5555", "R5CT"]}))
    pixels, rack = parse_classes(str(path))
    assert pixels == DeviceClass("pixel8", 2)
    assert rack == DeviceClass("rack", 2, ("10.0.0.4:5555", "R5CT"))
    assert rack.device == "10.0.0.4:5555"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "bad_devices"),
        ("pixel8=0", "bad_devices"),
        ("pixel8=x", "bad_devices"),
        ("pixel8,pixel8=2", "bad_devices"),
        ("host=2", "bad_devices"),
        ("simulated:none=2", "unknown_scenario"),
        ("Pixel-?=2", "unknown_device"),
        ("gone.json", "unreadable_file"),
    ],
)
def test_refused_classes(text, code):
    with raises(code) as caught:
        parse_classes(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("[]", "invalid_file"),
        ('{"pixel8": 0}', "invalid_file"),
        ('{"pixel8": []}', "bad_devices"),
        ('{"pixel8": ["a", "a"]}', "bad_devices"),
        ("{", "invalid_file"),
    ],
)
def test_refused_files(tmp_path, content, code):
    path = tmp_path / "fleet.json"
    path.write_text(content)
    with raises(code):
        parse_classes(str(path))


def test_fleet_command_checks_classes_first():
    done = bench("fleet", "--devices", "pixle8=2")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "unknown device 'pixle8'" in done.stderr
    done = bench("fleet", "--devices", "host:cobol")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr


@pytest.fixture
def attached(monkeypatch):
    """Two Pixel 8 and another phone; names that were resolved."""
    phones = [("pixel8", "A1"), ("other", "B2"), ("pixel8", "C3")]
    listing = Listing(
        tuple(AttachedDevice("android", name, "", "", serial, "") for name, serial in phones), ()
    )
    monkeypatch.setattr(units, "list_attached", lambda: listing)
    resolved = []

    def resolve(name, access):
        resolved.append((name, access.agent))
        return device()

    monkeypatch.setattr(units, "resolve", resolve)
    return resolved


def test_phones_are_opened_once(attached):
    taken = []
    for _ in range(2):
        taken.append(open_local(DeviceClass("Pixel 8", 2), Access(), taken)[0])
    assert taken == ["A1", "C3"]
    assert [name for name, _ in attached] == ["A1", "C3"]
    with raises("no_device", DeviceError):
        open_local(DeviceClass("pixel8", 3), Access(), taken)


def test_host_is_one_unit(attached):
    host, _ = open_local(DeviceClass("host:kotlin", 1), Access())
    assert attached == [("host", "kotlin")]
    with raises("no_device", DeviceError):
        open_local(DeviceClass("host:kotlin", 1), Access(), [host])
    simulated = DeviceClass("simulated", 3)
    first, _ = open_local(simulated, Access())
    assert open_local(simulated, Access(), [first])[0] != first


def test_unattached_phone_is_one_line(monkeypatch):
    listing = Listing((AttachedDevice("host", "host", "this machine", "", "", ""),), ())
    monkeypatch.setattr(units, "list_attached", lambda: listing)
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


@pytest.mark.parametrize("method", ["hello", "state", "load", "placement", "unload", "run", "close"])
def test_a_client_by_way_of_an_actor_takes_what_a_client_takes(method):
    asked = []
    client = RemoteClient(lambda *question: asked.append(question))
    own = list(inspect.signature(getattr(AgentClient, method)).parameters.values())[1:]
    getattr(client, method)(*range(len(own)))
    assert len(asked) == 1
