"""Names, serials, addresses, and which phone a name means."""

import pytest

from orchestrator.devices.android.errors import PhoneNotReady
from orchestrator.devices.android.phones import AndroidPhone, choose, is_address, slug
from orchestrator.wire.errors import DeviceError

PIXEL = AndroidPhone("37281FDJH0042", "device", "Pixel 8", "usb")
TWIN = AndroidPhone("192.168.1.5:5555", "device", "Pixel 8", "tcp")
GALAXY = AndroidPhone("R58M123", "device", "SM-S911B", "server")
UNKNOWN = AndroidPhone("XYZ", "device", "Nokia 3.4", "server")
SHY = AndroidPhone("R58M999", "unauthorized", "", "server")

EMULATOR = AndroidPhone("emulator-5554", "device", "Pixel 8", "server", emulated=True)


@pytest.mark.parametrize(
    ("phone", "name", "title"),
    [
        (EMULATOR, "emulator", "Android emulator, not a phone (Pixel 8)"),
        (PIXEL, "pixel8", "Pixel 8"),
        (GALAXY, "galaxys23", "Galaxy S23"),
        (UNKNOWN, "nokia34", "Nokia 3.4"),
        (SHY, "", "Android phone"),
    ],
)
def test_names_come_from_the_registry_else_from_the_model(phone, name, title):
    assert (phone.name, phone.title) == (name, title)


def test_slug_is_a_folder_name():
    assert slug("SM-S911B") == "sms911b"
    assert slug("../Ärger 5G") == "rger5g"


@pytest.mark.parametrize("name", ["pixel8", "Pixel 8", "PIXEL-8", "37281FDJH0042"])
def test_phone_by_name_or_serial(name):
    assert choose(name, [GALAXY, PIXEL, SHY]) == PIXEL


def test_an_emulator_is_never_taken_for_the_phone_that_it_plays():
    assert choose("pixel8", [EMULATOR]) is None
    assert choose("pixel8", [EMULATOR, PIXEL]) == PIXEL
    assert choose("emulator", [EMULATOR, PIXEL]) == choose("emulator-5554", [EMULATOR]) == EMULATOR


def test_no_such_phone():
    assert choose("pixel9", [PIXEL, GALAXY]) is None
    assert choose("pixel8", []) is None


def test_several_of_a_name_are_told_apart_by_serial():
    with pytest.raises(DeviceError, match="several phones are pixel8.*37281FDJH0042, 192.168.1.5:5555"):
        choose("pixel8", [PIXEL, TWIN])
    assert choose("192.168.1.5:5555", [PIXEL, TWIN]) == TWIN


@pytest.mark.parametrize(
    ("state", "step"),
    [
        ("unauthorized", "accept its USB debugging dialog"),
        ("offline", "plug it in again"),
        ("no permissions", "udev rules"),
        ("unreachable", "end the program that holds the phone"),
        ("recovery", "adb says recovery"),
    ],
)
def test_what_is_in_the_way(state, step):
    phone = AndroidPhone("R58M123", state, "Pixel 8", "server")
    with pytest.raises(PhoneNotReady, match=f"R58M123.*is {state}: .*{step}") as caught:
        choose("pixel8", [phone])
    assert caught.value.state == state
    assert step in phone.next_step
    assert PIXEL.next_step == ""


def test_a_phone_that_hides_its_name_may_be_the_one():
    with pytest.raises(PhoneNotReady, match="no pixel9 found, unless it is R58M999, which is unauthorized"):
        choose("pixel9", [PIXEL, SHY])
    assert choose("iphone13", [PIXEL, SHY]) is None


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("192.168.1.5:5555", True),
        ("phone.local:5555", True),
        ("[fe80::1%eth0]:5555", True),
        ("pixel8", False),
        ("host:", False),
        (":5555", False),
        ("host:0", False),
        ("host:65536", False),
        ("host:5555;rm", False),
    ],
)
def test_addresses(name, is_one):
    assert is_address(name) == is_one
