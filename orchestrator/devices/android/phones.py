"""Android phones that are attached: their names, what they wait for, and the link to one of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from luts.format.errors import install_extra
from orchestrator.devices.android.link import (
    ACCEPT_TIMEOUT_S,
    AdbLink,
    LinkLostError,
    PhoneNotReadyError,
    is_address,
)
from orchestrator.devices.common.device import KindUnavailableError
from orchestrator.devices.common.registry import known_phones, phone_of
from orchestrator.wire.errors import DeviceError

if TYPE_CHECKING:
    from orchestrator.devices.android.server import AdbServer

ADDRESSES_VARIABLE = "BLOCKTIME_ADB_ADDRESSES"
"""Environment variable with `host:port,…` of phones that debug over the network."""

EMULATOR = "emulator"
"""Name of every emulator, whatever phone it shows: its latencies are those of the computer that it runs on."""

_PROPERTY_TIMEOUT_S = 5.0
_POLL_S = 0.5

# AOSP reads the first since Android 12 and the second before that; its emulator's hardware is called ranchu, once
# goldfish.
_ASK_HARDWARE = "getprop ro.boot.qemu; getprop ro.kernel.qemu; getprop ro.hardware"
_EMULATED = {"1", "ranchu", "goldfish"}

_NEXT_STEPS = {
    "unauthorized": "unlock the phone and accept its USB debugging dialog for this computer",
    "offline": "unplug the phone and plug it in again",
    "no permissions": (
        "allow this user to open the USB device: install the udev rules for Android (package "
        "android-sdk-platform-tools-common), then plug it in again"
    ),
    "unreachable": "close the program that holds the phone, then plug it in again",
}


@dataclass(frozen=True)
class AndroidPhone:
    """A phone that is attached, or an emulator.

    Attributes:
        serial: Serial number, or `host:port` on the network.
        state: adb's word for its state, `device` if it can be used.
        model: ro.product.model, empty if unknown.
        transport: How it is reached: through an adb server, or by this process over USB or TCP.
        emulated: It is an emulator.
    """

    serial: str
    state: str
    model: str
    transport: Literal["server", "usb", "tcp"]
    emulated: bool = False

    @property
    def name(self) -> str:
        """The registry's name of its model, else a name made from the model; empty if the model is unknown."""
        known = phone_of(self.model)
        return EMULATOR if self.emulated else known.name if known else slug(self.model)

    @property
    def title(self) -> str:
        """What people call it."""
        if self.emulated:
            return f"Android emulator, not a phone ({self.model})"
        known = phone_of(self.model)
        return known.title if known else self.model or "Android phone"

    def matches(self, name: str) -> bool:
        """Return whether `name` is its serial, or its name in any spacing and capitalisation."""
        return name == self.serial or (bool(self.name) and slug(name) == self.name)

    @property
    def next_step(self) -> str:
        """What a person must do before it can be measured; empty if it is ready."""
        return _next_step(self.state)


def _next_step(state: str) -> str:
    if state == "device":
        return ""
    return _NEXT_STEPS.get(state, f"adb says {state}: bring the phone to its home screen")


def slug(model: str) -> str:
    """Return a model as a device name in the registry's style: `SM-S911B` becomes `sms911b`."""
    return "".join(character for character in model.casefold() if character.isascii() and character.isalnum())


def choose(name: str, phones: Iterable[AndroidPhone]) -> AndroidPhone | None:
    """Return the phone with this serial or name, None if there is none.

    Raises:
        DeviceError: Several phones have the name.
        PhoneNotReadyError: The phone cannot be used yet, or a phone hides its name and may be the one.
    """
    phones = list(phones)
    matching = [phone for phone in phones if phone.matches(name)]
    if not matching:
        known = known_phones().get(slug(name))
        hidden = [phone for phone in phones if not phone.name]
        if not hidden or (known is not None and known.kind != "android"):
            return None
        raise PhoneNotReadyError(
            f"no {name} found, unless it is {hidden[0].serial}, which is {hidden[0].state}: {hidden[0].next_step}",
            hidden[0].state,
        )
    if len(matching) > 1:
        serials = ", ".join(phone.serial for phone in matching)
        raise DeviceError(
            f"several phones are {name}: choose one by its serial, --device with one of {serials}",
            code="several_phones",
        )
    (phone,) = matching
    if phone.next_step:
        raise PhoneNotReadyError(
            f"{phone.title} ({phone.serial}) is {phone.state}: {phone.next_step}", phone.state
        )
    return phone


def list_phones(addresses: Iterable[str] = ()) -> list[AndroidPhone]:
    """Return the phones of the adb server, or without one those on USB; and those on the network.

    Starts an adb server if none runs. Looks on the network at `addresses` and BLOCKTIME_ADB_ADDRESSES.

    Raises:
        KindUnavailableError: A package is missing, or there is neither an adb server nor access to USB.
    """
    addresses = dict.fromkeys([*_configured_addresses(), *addresses])
    with _packages():
        from orchestrator.devices.android import server as server_module
    server = server_module.running_server()
    if server is None:
        return _list_directly(addresses)
    for address in addresses:
        server.add_network_phone(address)
    phones = []
    for serial, state in server.list_states().items():
        link = server_module.ServerLink(serial, server)
        phones.append(
            _describe(link, "server") if state == "device" else AndroidPhone(serial, state, "", "server")
        )
    return phones


def find(name: str, say: Callable[[str], None]) -> AndroidPhone | None:
    """Return the attached phone that `name` (serial, host:port, or name of the model) means, None if there is none.

    A phone that does not know this computer shows a dialog, which `say` announces; it is waited for.

    Raises:
        LinkLostError: No phone answers at host:port.
        PhoneNotReadyError: The phone cannot be used yet.
        DeviceError: Several phones have the name.
    """
    phones = list_phones([name] if is_address(name) else [])
    if is_address(name) and not any(phone.serial == name for phone in phones):
        raise LinkLostError(
            f"no phone answers at {name}: switch on network debugging there (`adb tcpip 5555` by cable once)",
            code="phone_lost",
        )
    if not any(phone.matches(name) and phone.state == "device" for phone in phones):
        asking = [phone for phone in phones if phone.state == "unauthorized"]
        for phone in [phone for phone in asking if phone.serial == name] or asking:
            announce = partial(say, f"the phone {phone.serial} asks: unlock it and allow USB debugging there")
            with closing(open_link(phone.serial, announce)) as link:
                phones[phones.index(phone)] = _describe(link, phone.transport)
    return choose(name, phones)


def open_link(serial: str, ask_user: Callable[[], None] | None = None) -> AdbLink:
    """Return a link to the phone: through the adb server, or directly if there is none.

    `ask_user` is called when the phone shows its dialog, which is then waited for.

    Raises:
        LinkLostError: The phone is not attached.
        PhoneNotReadyError: The phone does not let this computer in.
    """
    with _packages():
        from orchestrator.devices.android import server as server_module
    server = server_module.running_server()
    if server is None:
        return _open_directly(serial, ask_user)
    if is_address(serial):
        server.add_network_phone(serial)
    state = server.list_states().get(serial)
    if state == "unauthorized" and ask_user is not None:
        ask_user()
        state = _await_permission(server, serial)
    if state == "device":
        return server_module.ServerLink(serial, server)
    if state is None:
        raise LinkLostError(
            f"no phone {serial}: plug it in, unlock it, and see `bench devices`", code="phone_lost"
        )
    message = f"{serial} is {state}: {_next_step(state)}"
    raise (
        LinkLostError(message, code="phone_lost")
        if state == "offline"
        else PhoneNotReadyError(message, state)
    )


def _configured_addresses() -> list[str]:
    addresses = [text.strip() for text in os.environ.get(ADDRESSES_VARIABLE, "").split(",") if text.strip()]
    for address in addresses:
        if not is_address(address):
            raise DeviceError(
                f"{ADDRESSES_VARIABLE} has {address[:64]!r}, which is not an address: write host:port, for example "
                "192.168.1.5:5555",
                code="bad_address",
            )
    return addresses


def _await_permission(server: AdbServer, serial: str) -> str | None:
    """Return the phone's state once its user has decided, or when there was enough time to."""
    deadline_s = time.monotonic() + ACCEPT_TIMEOUT_S
    while (state := server.list_states().get(serial)) == "unauthorized" and time.monotonic() < deadline_s:
        time.sleep(_POLL_S)
    return state


def _list_directly(addresses: Iterable[str]) -> list[AndroidPhone]:
    with _packages():
        from orchestrator.devices.android import direct
    phones = []
    for serial, transport in direct.list_usb().items():
        if transport is None:
            phones.append(AndroidPhone(serial, "no permissions", "", "usb"))
        else:
            phones.append(_try_directly(serial, "usb"))
    on_network = [_try_directly(address, "tcp") for address in addresses]
    phones += [phone for phone in on_network if phone.state != "unreachable"]
    if not phones and not direct.HAS_USB:
        raise KindUnavailableError(
            "no adb server can be started, and USB cannot be read without one", "install adb", "no_adb"
        )
    return phones


def _try_directly(serial: str, transport: Literal["usb", "tcp"]) -> AndroidPhone:
    try:
        with closing(_open_directly(serial, None)) as link:
            return _describe(link, transport)
    except PhoneNotReadyError as error:
        return AndroidPhone(serial, error.state, "", transport)
    except LinkLostError:
        return AndroidPhone(serial, "unreachable", "", transport)


def _open_directly(serial: str, ask_user: Callable[[], None] | None) -> AdbLink:
    with _packages():
        from orchestrator.devices.android import direct
    if is_address(serial):
        return direct.connect_tcp(serial, ask_user)
    attached = direct.list_usb()
    if serial not in attached:
        raise LinkLostError(
            f"no phone {serial}: plug it in, unlock it, and see `bench devices`", code="phone_lost"
        )
    if attached[serial] is None:
        state = "no permissions"
        raise PhoneNotReadyError(f"this user may not open {serial}: {_NEXT_STEPS[state]}", state)
    return direct.connect(serial, attached[serial], ask_user)


def _describe(link: AdbLink, transport: Literal["server", "usb", "tcp"]) -> AndroidPhone:
    """Read the model and whether it is an emulator; an adb server's list has neither in full."""
    try:
        model = link.shell("getprop ro.product.model", timeout_s=_PROPERTY_TIMEOUT_S)
        hardware = link.shell(_ASK_HARDWARE, timeout_s=_PROPERTY_TIMEOUT_S)
    except DeviceError:
        return AndroidPhone(link.serial, "offline", "", transport)
    emulated = bool(_EMULATED & set(hardware.text.split()))
    return AndroidPhone(
        link.serial, "device", model.text if model.exit_code == 0 else "", transport, emulated
    )


@contextmanager
def _packages() -> Iterator[None]:
    """Raise KindUnavailableError if an import fails."""
    try:
        yield
    except ImportError as error:
        raise KindUnavailableError(
            f"Android phones need the package {error.name}, which is not installed",
            install_extra("android"),
            "package_missing",
        ) from None
