"""Which way leads to a phone, what is listed, and what is said where something is missing."""

import sys
from collections.abc import Callable

import pytest

from orchestrator.devices.android import direct, finding, server
from orchestrator.devices.android.errors import LinkLost, PhoneNotReady
from orchestrator.devices.android.phones import AndroidPhone
from orchestrator.wire.errors import DeviceError
from tests.support.libusb import usb

ADDRESS = "127.0.0.1:15557"


class World:
    """What is attached where: `served` by serial and state, `wired` and `networked` by serial and outcome.

    An outcome is a model to answer, or an error to raise.
    """

    def __init__(self, make_link: Callable):
        self.make_link = make_link
        self.served: list[tuple[str, str]] | None = None
        self.wired, self.networked = {}, {}
        self.opened, self.asked = [], []
        self.hardware = ""

    def link(self, serial, outcome, ask_user):
        if isinstance(outcome, PhoneNotReady) and ask_user is not None:
            ask_user()
            self.asked.append(serial)
            outcome = "Pixel 8"
        if isinstance(outcome, Exception):
            raise outcome
        made = self.make_link()
        made.serial = serial
        made.say("getprop ro.product.model", outcome, 0 if outcome else 127)
        made.say("getprop ro.hardware", self.hardware)
        self.opened.append(made)
        return made


@pytest.fixture
def world(link, monkeypatch):
    made = World(type(link))

    def listed():
        return None if made.served is None else [server.ServerPhone(*phone) for phone in made.served]

    monkeypatch.setattr(server, "list_phones", listed)
    monkeypatch.setattr(server, "ServerLink", lambda serial: made.link(serial, "SM-S911B", None))
    monkeypatch.setattr(
        usb, "find_all", lambda: ((s, None if o is None else o) for s, o in made.wired.items())
    )
    monkeypatch.setattr(usb, "find", lambda serial: made.wired[serial])
    monkeypatch.setattr(direct, "connect", lambda serial, outcome, ask=None: made.link(serial, outcome, ask))
    monkeypatch.setattr(
        direct, "connect_tcp",
        lambda serial, ask=None: made.link(serial, made.networked.get(serial, LinkLost("nobody")), ask),
    )  # fmt: skip
    monkeypatch.delenv(finding.ADDRESSES_VARIABLE, raising=False)
    return made


UNAUTHORIZED = PhoneNotReady("no", "unauthorized")


def test_listing_of_all_ways(world, monkeypatch):
    world.served = [("S1", "device"), ("S2", "unauthorized"), (ADDRESS, "offline")]
    world.wired = {"S1": "Pixel 8", "U1": "Pixel 8", "U2": UNAUTHORIZED, "U3": None, "U4": LinkLost("busy")}
    world.networked = {"host:1": "Pixel 9", ADDRESS: "Pixel 7"}
    monkeypatch.setenv(finding.ADDRESSES_VARIABLE, f"host:1, {ADDRESS},gone:1")
    assert finding.list_phones() == [
        AndroidPhone("S1", "device", "SM-S911B", "server"),
        AndroidPhone("S2", "unauthorized", "", "server"),
        AndroidPhone(ADDRESS, "offline", "", "server"),
        AndroidPhone("U1", "device", "Pixel 8", "usb"),
        AndroidPhone("U2", "unauthorized", "", "usb"),
        AndroidPhone("U3", "no permissions", "", "usb"),
        AndroidPhone("U4", "unreachable", "", "usb"),
        AndroidPhone("host:1", "device", "Pixel 9", "tcp"),
    ]
    assert world.asked == []
    assert all(link.closed for link in world.opened if link.serial in ("U1", "host:1"))


def test_phone_that_does_not_tell_its_model(world):
    world.wired = {"U1": ""}
    assert finding.list_phones() == [AndroidPhone("U1", "device", "", "usb")]


@pytest.mark.parametrize(
    ("told", "emulated"),
    [("1\n\nranchu\n", True), ("\n1\ngoldfish\n", True), ("\n\nranchu\n", True), ("0\n\nshiba\n", False)],
)
def test_an_emulator_tells_by_its_hardware(world, told, emulated):
    world.wired, world.hardware = {"U1": "Pixel 8"}, told
    assert finding.list_phones() == [AndroidPhone("U1", "device", "Pixel 8", "usb", emulated)]


def test_address_that_is_none(world, monkeypatch):
    monkeypatch.setenv(finding.ADDRESSES_VARIABLE, "pixel8")
    with pytest.raises(DeviceError, match="'pixel8' is not the address of a phone: write host:port"):
        finding.list_phones()


def test_the_server_comes_first(world):
    world.served, world.wired = [("U1", "device")], {"U1": "Pixel 8"}
    assert finding.open_link("U1").shell("getprop ro.product.model").text == "SM-S911B"
    world.served = []
    assert finding.open_link("U1").shell("getprop ro.product.model").text == "Pixel 8"
    world.served = None
    assert finding.open_link("U1").shell("getprop ro.product.model").text == "Pixel 8"


@pytest.mark.parametrize(("state", "error"), [("offline", LinkLost), ("unauthorized", PhoneNotReady)])
def test_phone_that_the_server_holds_is_not_taken_from_it(world, state, error):
    world.served, world.networked = [(ADDRESS, state)], {ADDRESS: "Pixel 8"}
    with pytest.raises(error, match=f"{ADDRESS} is {state}"):
        finding.open_link(ADDRESS)


def test_phone_in_the_network(world):
    world.networked = {ADDRESS: "Pixel 8"}
    assert finding.open_link(ADDRESS).serial == ADDRESS
    assert finding.find(ADDRESS, print) == AndroidPhone(ADDRESS, "device", "Pixel 8", "tcp")


def test_address_where_nobody_answers(world):
    with pytest.raises(LinkLost, match="nobody"):
        finding.find(ADDRESS, print)


@pytest.mark.parametrize("name", ["pixel8", "U2", ADDRESS])
def test_a_phone_is_asked_when_it_is_named(world, name, monkeypatch):
    monkeypatch.setenv(finding.ADDRESSES_VARIABLE, ADDRESS)
    world.wired, world.networked = {"U2": UNAUTHORIZED}, {ADDRESS: UNAUTHORIZED}
    if name == "pixel8":
        del world.networked[ADDRESS]
    said = []
    found = finding.find(name, said.append)
    serial = "U2" if name == "pixel8" else name
    assert (found.serial, found.state, found.name) == (serial, "device", "pixel8")
    assert world.asked == [serial]
    assert said == [f"the phone {serial} asks: unlock it and allow USB debugging there"]


def test_no_phone_is_asked_where_another_is_meant(world):
    world.wired = {"U1": "Pixel 8", "U2": UNAUTHORIZED}
    assert finding.find("pixel8", print).serial == "U1"
    assert world.asked == []


def test_no_such_phone(world):
    assert finding.find("pixel8", print) is None


def test_packages_that_are_not_installed(world, monkeypatch):
    for name in ("server", "direct"):
        monkeypatch.delitem(sys.modules, f"orchestrator.devices.android.{name}")
        monkeypatch.delattr(f"orchestrator.devices.android.{name}")
    monkeypatch.setitem(sys.modules, "adbutils", None)
    monkeypatch.setitem(sys.modules, "adb_shell.transport.base_transport", None)
    for call in (finding.list_phones, lambda: finding.open_link("U1")):
        with pytest.raises(
            DeviceError, match=r"need the package adb\S+, .*: pip install 'blocktime\[android\]'"
        ):
            call()
    reason, step = finding.why_blind()
    assert reason.startswith("Android phones need the package")
    assert step == "pip install 'blocktime[android]'"


def test_phones_on_usb_without_libusb(world, monkeypatch):
    monkeypatch.delitem(sys.modules, "orchestrator.devices.android.usb")
    monkeypatch.delattr("orchestrator.devices.android.usb")
    monkeypatch.setitem(sys.modules, "usb1", None)
    assert finding.list_phones() == []
    reason, step = finding.why_blind()
    assert reason.startswith("no adb server runs, and USB can't be read")
    assert step == "run `adb start-server`"
    with pytest.raises(LinkLost, match="no phone U1: plug it in and run `adb start-server`"):
        finding.open_link("U1")
    world.served = []
    assert finding.why_blind() is None


def test_phones_can_be_seen(world):
    assert finding.why_blind() is None
