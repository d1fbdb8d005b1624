"""Looking for Android phones, and choosing the way to one: an adb server that holds it, else directly."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Literal

from orchestrator.devices.android.errors import LinkLost, PhoneNotReady
from orchestrator.devices.android.link import AdbLink
from orchestrator.devices.android.phones import AndroidPhone, choose, is_address
from orchestrator.wire.errors import DeviceError

# `host:port,…` of phones with network debugging, for which to look although no adb server knows them.
ADDRESSES_VARIABLE = "BLOCKTIME_ADB_ADDRESSES"

_MODEL_TIMEOUT_S = 5.0

# AOSP asks the first of them since Android 12, before that the second one (hardware/interfaces: "Use `ro.boot.qemu`
# to check if the device is an emulator"); the hardware of its emulator is called ranchu, once goldfish.
_ASK_HARDWARE = "getprop ro.boot.qemu; getprop ro.kernel.qemu; getprop ro.hardware"
_EMULATED = {"1", "ranchu", "goldfish"}

Transport = Literal["server", "usb", "tcp"]


def list_phones() -> list[AndroidPhone]:
    """Phones of the adb server if one runs, then those on USB, then those at BLOCKTIME_ADB_ADDRESSES.

    Starts no server and makes no phone show its dialog. DeviceError where Android's packages are not installed.
    """
    phones = _list_server()
    seen = {phone.serial for phone in phones}
    phones += [phone for phone in _list_usb() if phone.serial not in seen]
    variable = os.environ.get(ADDRESSES_VARIABLE, "")
    for address in dict.fromkeys(filter(None, map(str.strip, variable.split(",")))):
        if not is_address(address):
            raise DeviceError(
                f"{address[:64]!r} is not the address of a phone: write host:port, as 192.168.1.5:5555"
            )
        if address not in seen:
            phones += _list_tcp(address)
    return phones


def find(name: str, say: Callable[[str], None]) -> AndroidPhone | None:
    """The phone that `name` (serial, host:port, or the model's name) means; None where no attached phone is it.

    A phone that this program reaches itself and that does not know this computer shows its dialog, which `say`
    announces. LinkLost where nobody answers at host:port; DeviceError where several bear the name; PhoneNotReady
    where the phone can't be used yet.
    """
    phones = list_phones()
    if is_address(name) and not any(phone.serial == name for phone in phones):
        return _introduce(AndroidPhone(name, "unauthorized", "", "tcp"), say)
    if not any(phone.is_called(name) and phone.state == "device" for phone in phones):
        asking = [p for p in phones if p.state == "unauthorized" and p.transport != "server"]
        for phone in [p for p in asking if p.serial == name] or asking:
            phones[phones.index(phone)] = _introduce(phone, say)
    return choose(name, phones)


def _introduce(phone: AndroidPhone, say: Callable[[str], None]) -> AndroidPhone:
    """Has the phone ask its user, and then tell its model."""

    def announce() -> None:
        say(f"the phone {phone.serial} asks: unlock it and allow USB debugging there")

    with closing(open_link(phone.serial, announce)) as link:
        return _described(phone.serial, "device", link, phone.transport)


def why_blind() -> tuple[str, str] | None:
    """Reason and next step where phones on USB can't be seen; None where they can, if there are any."""
    try:
        with _needs_packages():
            from orchestrator.devices.android import server
    except DeviceError as error:
        reason, _, step = str(error).partition(": ")
        return reason, step
    if server.list_phones() is not None:
        return None
    try:
        from orchestrator.devices.android import usb  # noqa: F401
    except (ImportError, OSError) as error:
        return f"no adb server runs, and USB can't be read without one ({error})", "run `adb start-server`"
    return None


def open_link(serial: str, ask_user: Callable[[], None] | None = None) -> AdbLink:
    """A link to the phone: over the adb server that lists it, else directly.

    `ask_user` is called when the phone shows its dialog. LinkLost where the phone is not there, PhoneNotReady
    where it does not let this computer in.
    """
    with _needs_packages():
        from orchestrator.devices.android import direct, server
    state = next((phone.state for phone in server.list_phones() or [] if phone.serial == serial), None)
    if state == "device":
        return server.ServerLink(serial)
    if state is not None:
        message = f"{serial} is {state}: {AndroidPhone(serial, state, '', 'server').next_step}"
        raise LinkLost(message) if state == "offline" else PhoneNotReady(message, state)
    if is_address(serial):
        return direct.connect_tcp(serial, ask_user)
    try:
        from orchestrator.devices.android import usb
    except (ImportError, OSError):
        raise LinkLost(f"no phone {serial}: plug it in and run `adb start-server`") from None
    return direct.connect(serial, usb.find(serial), ask_user)


def _list_server() -> list[AndroidPhone]:
    with _needs_packages():
        from orchestrator.devices.android import server
    return [
        _described(phone.serial, phone.state, server.ServerLink(phone.serial), "server")
        for phone in server.list_phones() or []
    ]


def _list_usb() -> list[AndroidPhone]:
    try:
        from orchestrator.devices.android import direct, usb
    except (ImportError, OSError):  # the package libusb1 or the library; adb servers have their own
        return []
    phones = []
    for serial, transport in usb.find_all():
        if transport is None:
            phones.append(AndroidPhone(serial, "no permissions", "", "usb"))
        else:
            connect = lambda t=transport, s=serial: direct.connect(s, t)  # noqa: E731
            phones.append(_look(serial, connect, "usb"))
    return phones


def _list_tcp(address: str) -> list[AndroidPhone]:
    with _needs_packages():
        from orchestrator.devices.android import direct
    phone = _look(address, lambda: direct.connect_tcp(address), "tcp")
    return [] if phone.state == "unreachable" else [phone]


def _look(serial: str, connect: Callable[[], AdbLink], transport: Transport) -> AndroidPhone:
    try:
        with closing(connect()) as link:
            return _described(serial, "device", link, transport)
    except PhoneNotReady as error:
        return AndroidPhone(serial, error.state, "", transport)
    except LinkLost:
        return AndroidPhone(serial, "unreachable", "", transport)


def _described(serial: str, state: str, link: AdbLink, transport: Transport) -> AndroidPhone:
    """As it tells of itself: its model, which an adb server's own listing gives with its punctuation replaced, and
    whether it is an emulator."""
    if state != "device":
        return AndroidPhone(serial, state, "", transport)
    try:
        model = link.shell("getprop ro.product.model", timeout_s=_MODEL_TIMEOUT_S)
        hardware = link.shell(_ASK_HARDWARE, timeout_s=_MODEL_TIMEOUT_S)
    except DeviceError:
        return AndroidPhone(serial, "offline", "", transport)
    emulated = bool(_EMULATED & set(hardware.text.split()))
    return AndroidPhone(serial, state, model.text if model.exit_code == 0 else "", transport, emulated)


@contextmanager
def _needs_packages() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise DeviceError(
            f"Android phones need the package {error.name}, which is not installed: "
            "pip install 'blocktime[android]'"
        ) from None
