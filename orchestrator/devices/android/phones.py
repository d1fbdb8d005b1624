"""An Android phone as it is attached, its name, and what is in the way of using it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from orchestrator.devices.android.errors import PhoneNotReady
from orchestrator.devices.common.registry import known_phones, phone_of
from orchestrator.wire.errors import DeviceError

_NEXT_STEPS = {
    "unauthorized": "unlock the phone and accept its USB debugging dialog for this computer",
    "offline": "unplug the phone and plug it in again",
    "no permissions": "allow this user to use the USB device (udev rules), then plug it in again",
    "unreachable": "end the program that holds the phone or run `adb start-server`, then plug it in again",
    "too old": "measure on a phone with Android 7 or newer",
}


EMULATOR = "emulator"
"""Name of every emulator, whatever phone it plays: its milliseconds are those of the computer that it runs on."""


@dataclass(frozen=True)
class AndroidPhone:
    """A phone that is attached, or an emulator. `state` is adb's word, `device` when usable; `model` is
    ro.product.model, empty where the phone does not tell; `transport` is who reaches it: an adb server, or this
    process over USB or TCP.
    """

    serial: str
    state: str
    model: str
    transport: Literal["server", "usb", "tcp"]
    emulated: bool = False

    @property
    def name(self) -> str:
        """The registry's name of its model, else the model as a name; empty where the model is not known."""
        known = phone_of(self.model)
        return EMULATOR if self.emulated else known.name if known else slug(self.model)

    @property
    def title(self) -> str:
        """How people call it."""
        if self.emulated:
            return f"Android emulator, not a phone ({self.model})"
        known = phone_of(self.model)
        return known.title if known else self.model or "Android phone"

    def is_called(self, name: str) -> bool:
        """Whether `name` is its serial, or its name however that is spaced or capitalised."""
        return name == self.serial or (bool(self.name) and slug(name) == self.name)

    @property
    def next_step(self) -> str:
        """What a person must do before it can be measured; empty where nothing is in the way."""
        if self.state == "device":
            return ""
        return _NEXT_STEPS.get(self.state, f"adb says {self.state}: bring the phone to its home screen")


def slug(model: str) -> str:
    """A model as a device name, in the way of the registry: `SM-S911B` is `sms911b`."""
    return "".join(character for character in model.casefold() if character.isascii() and character.isalnum())


def is_address(name: str) -> bool:
    """Whether `name` is host:port, as adb calls phones in the network."""
    match = re.fullmatch(r"(?:\[[\w:%.]+\]|[\w.-]+):(\d{1,5})", name)
    return match is not None and 0 < int(match[1]) < 65536


def choose(name: str, phones: Iterable[AndroidPhone]) -> AndroidPhone | None:
    """The phone of that serial, or the one of that name; None where there is none.

    DeviceError where several bear the name. PhoneNotReady where the phone can't be used yet, or one that does not
    tell its name yet.
    """
    phones = list(phones)
    called = [phone for phone in phones if phone.is_called(name)]
    if not called:
        known = known_phones().get(slug(name))
        hidden = [phone for phone in phones if not phone.name]
        if not hidden or (known is not None and known.kind != "android"):
            return None
        raise PhoneNotReady(
            f"no {name} found, unless it is {hidden[0].serial}, which is {hidden[0].state}: {hidden[0].next_step}",
            hidden[0].state,
        )
    if len(called) > 1:
        serials = ", ".join(phone.serial for phone in called)
        raise DeviceError(
            f"several phones are {name}: name one by its serial, --device with one of {serials}"
        )
    phone = called[0]
    if phone.next_step:
        raise PhoneNotReady(
            f"{phone.title} ({phone.serial}) is {phone.state}: {phone.next_step}", phone.state
        )
    return phone
