"""The devices that are attached, the kinds that cannot be seen and why, and the device that a name means."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from luts.format.errors import BlocktimeError, UsageError
from orchestrator.agent.programs import agent_program
from orchestrator.devices.android import phones as android
from orchestrator.devices.android.device import AndroidDevice
from orchestrator.devices.android.link import is_address
from orchestrator.devices.common.device import Access, Device, KindUnavailableError
from orchestrator.devices.common.registry import known_phone, unknown_device
from orchestrator.devices.host import HostDevice, scenario_of, simulated_program
from orchestrator.devices.iphone import phones as iphone
from orchestrator.wire.errors import DeviceError

Kind = Literal["host", "simulated", "android", "iphone"]
PhoneKind = Literal["android", "iphone"]


@dataclass(frozen=True)
class AttachedDevice:
    """A device that is attached.

    Attributes:
        name: What --device takes, in addition to the serial; empty if unknown.
        product_type: How a phone identifies itself, empty if unknown.
        next_step: What a person must do before it can be measured, empty if it is ready.
    """

    kind: Literal["host", "android", "iphone"]
    name: str
    title: str
    product_type: str
    serial: str
    next_step: str


@dataclass(frozen=True)
class UnavailableKind:
    """Why one kind of phone cannot be seen at all, and what to do about it."""

    kind: PhoneKind
    reason: str
    next_step: str


@dataclass(frozen=True)
class Listing:
    """The devices that are attached, and the kinds of phone that cannot be seen."""

    attached: tuple[AttachedDevice, ...]
    unavailable: tuple[UnavailableKind, ...]


def list_attached() -> Listing:
    """Return the host, the Android phones and the iPhones; raises nothing, and no phone asks its user anything."""
    attached = [AttachedDevice("host", "host", "this machine", "", "", "")]
    unavailable = []
    for kind, list_kind in _LISTS.items():
        try:
            attached += list_kind()
        except KindUnavailableError as error:
            unavailable.append(UnavailableKind(kind, error.reason, error.next_step))
        except BlocktimeError as error:
            reason, _, step = str(error).partition(": ")
            unavailable.append(UnavailableKind(kind, reason, step))
    return Listing(tuple(attached), tuple(unavailable))


def resolve(name: str, access: Access | None = None) -> Device:
    """Return the device with this name.

    Args:
        name: `host`, a phone's name, serial or UDID, host:port of an Android phone, or `simulated[:SCENARIO]`.
        access: How it is opened.

    Raises:
        DeviceError: Unknown name, or the phone is not attached or not ready.
        UsageError: `access` does not fit the device.
    """
    access = access or Access()
    kind, known = kind_of(name, access), known_phone(name)
    phone_name = known.name if known else name
    if kind == "host":
        return HostDevice(agent_program(access.agent))
    if scenario := scenario_of(name):
        return HostDevice(simulated_program(scenario), identity="")
    with contextlib.suppress(KindUnavailableError):
        if kind == "iphone" and (device := iphone.find_iphone(phone_name, access)):
            return device
        if kind == "android" and (phone := android.find(phone_name, access.say)):
            return AndroidDevice(phone, access)
    raise _not_attached(name, kind)


def kind_of(name: str, access: Access) -> Kind:
    """Return the kind of device that `name` means; a phone of the registry need not be attached.

    Raises:
        DeviceError: Unknown name, or the host's agent is not built.
        UsageError: `access` does not fit the device.
    """
    kind = _kind_of(name, access)
    if access.fixed_performance and kind != "android":
        raise UsageError(
            f"--fixed-performance is a mode of Android phones; {name} has none", code="option_does_not_apply"
        )
    return kind


def _kind_of(name: str, access: Access) -> Kind:
    if name == "host":
        agent_program(access.agent)
        return "host"
    scenario = scenario_of(name)
    if access.agent != "python":
        raise UsageError(
            f"--agent is for the host; {name} has its own app or agent", code="option_does_not_apply"
        )
    if scenario is not None:
        return "simulated"
    known = known_phone(name)
    if known is not None:
        return known.kind
    if is_address(name):
        return "android"
    wanted = name.replace("-", "").casefold()
    for device in list_attached().attached:
        if wanted in (device.name.casefold(), device.serial.replace("-", "").casefold()):
            return device.kind
    raise unknown_device(name)


def _list_android() -> Iterator[AttachedDevice]:
    for phone in android.list_phones():
        yield AttachedDevice("android", phone.name, phone.title, phone.model, phone.serial, phone.next_step)


def _list_iphones() -> Iterator[AttachedDevice]:
    for state in iphone.list_phones():
        name, title = (state.name, state.title) if state.product_type else ("", "iPhone")
        yield AttachedDevice("iphone", name, title, state.product_type, state.udid, state.next_step)


_LISTS: dict[PhoneKind, Callable[[], Iterator[AttachedDevice]]] = {
    "android": _list_android,
    "iphone": _list_iphones,
}

_CONNECT_STEPS: dict[Kind, str] = {
    "android": "connect it by cable, switch on USB debugging and allow this computer",
    "iphone": "connect it by cable, unlock it and trust this computer",
}


def _not_attached(name: str, kind: Kind) -> DeviceError:
    """Return the error for a phone that is not attached, with what is and what to do."""
    listing, known = list_attached(), known_phone(name)
    phones = [device for device in listing.attached if device.kind != "host"]
    missing = next((missing for missing in listing.unavailable if missing.kind == kind), None)
    if missing is not None:
        step = f"{missing.reason}: {missing.next_step}"
    elif kind == "iphone" and any(device.kind == kind and not device.product_type for device in phones):
        step = "unlock the iPhone that does not answer"
    else:
        step = _CONNECT_STEPS[kind]
    attached = ", ".join(map(_describe, phones)) or "no phone"
    wanted = known.describe() if known else name
    return DeviceError(
        f"no {wanted} found; attached: {attached}; {step}, then see `bench devices`",
        code="device_not_attached",
    )


def _describe(device: AttachedDevice) -> str:
    if device.title == device.product_type:
        return device.title
    return f"{device.title} ({device.product_type or device.serial})"
