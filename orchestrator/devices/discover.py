"""What is attached now, what is missing to see more, and which device a name means."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from luts.errors import DeviceError, UsageError
from orchestrator.devices.adb import AdbDevice, find_adb, list_adb
from orchestrator.devices.base import Access, Device
from orchestrator.devices.host import HostDevice
from orchestrator.devices.programs import agent_program
from orchestrator.devices.registry import Phone, find_phone, phone_of
from orchestrator.devices.usbmux import USBMUXD_SOCKET, UsbmuxDevice, list_usbmux

PYTHON = Access()

# Phones are listed so that it is seen whether cable and permissions are right.
_NOT_YET = "this version lists phones but can't measure on them yet; `--device host` measures this machine"

_ANDROID_STEPS = {
    "unauthorized": "unlock the phone and allow USB debugging for this computer",
    "offline": "unplug the phone and plug it in again",
    "no permissions": "allow this user to use the USB device (udev rules), then plug it in again",
}


@dataclass(frozen=True)
class Attached:
    """Something that is attached. `name` is empty where the registry does not know the product type.

    `next_step` says what a person must do before it can be measured; empty where nothing is in the way.
    """

    kind: Literal["host", "android", "iphone"]
    name: str
    title: str
    product_type: str
    serial: str
    next_step: str


@dataclass(frozen=True)
class Gap:
    """Why one kind of device can't be seen at all, and what to do about it."""

    kind: Literal["android", "iphone"]
    reason: str
    next_step: str


@dataclass(frozen=True)
class Listing:
    """What is attached and what can't be seen."""

    attached: tuple[Attached, ...]
    gaps: tuple[Gap, ...]


def list_attached(usbmuxd: Path = USBMUXD_SOCKET) -> Listing:
    """The host, always; Android phones that adb lists; iPhones that usbmuxd lists. Never raises."""
    host = Attached("host", "host", "this machine", "", "", "")
    android, android_gap = _list_android()
    iphones, iphone_gap = _list_iphones(usbmuxd)
    return Listing((host, *android, *iphones), tuple(gap for gap in (android_gap, iphone_gap) if gap))


def resolve(name: str, usbmuxd: Path = USBMUXD_SOCKET, access: Access = PYTHON) -> Device:
    """The device that `name` means: `host`, a phone's name, or the serial of an attached one.

    DeviceError for an unknown name, for a phone that is not attached, and for phones, which can't be driven yet.
    """
    if name == "host":
        return HostDevice(agent_program(access.agent))
    if access.agent != "python":
        raise UsageError(f"--agent is for the host; {name} has its own app")
    listing = list_attached(usbmuxd)
    if any(name == device.serial for device in listing.attached if device.serial):
        raise DeviceError(f"{name} is attached, but {_NOT_YET}")
    phone = find_phone(name)
    for device in listing.attached:
        if device.name == phone.name:
            raise DeviceError(f"{phone.title} ({device.serial}) is attached, but {_NOT_YET}")
    raise DeviceError(_not_attached(phone, listing))


def _not_attached(phone: Phone, listing: Listing) -> str:
    seen = ", ".join(
        device.title + (f" ({device.product_type})" if device.product_type else "")
        for device in listing.attached
    )
    gap = next((gap for gap in listing.gaps if gap.kind == phone.kind), None)
    if gap is not None:
        step = f"{gap.reason}: {gap.next_step}"
    elif phone.kind == "iphone":
        step = "connect it by cable, unlock it and trust this computer"
    else:
        step = "connect it by cable, switch on USB debugging and allow this computer"
    return (
        f"no {phone.name} found: looked for {phone.describe()}; attached: {seen}; {step}, "
        "then see `bench devices`"
    )


def _list_android() -> tuple[list[Attached], Gap | None]:
    adb = find_adb()
    if adb is None:
        return [], Gap("android", "there is no adb on the PATH", "install Android's platform-tools")
    try:
        return [_android(device) for device in list_adb(adb)], None
    except (OSError, subprocess.SubprocessError) as error:
        return [], Gap("android", f"adb failed ({error})", "run `adb devices` and put right what it reports")


def _list_iphones(usbmuxd: Path) -> tuple[list[Attached], Gap | None]:
    try:
        return [_iphone(device) for device in list_usbmux(usbmuxd)], None
    except FileNotFoundError:
        return [], Gap(
            "iphone", f"there is no usbmuxd socket at {usbmuxd}", "install and start usbmuxd (macOS has it)"
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [], Gap("iphone", f"usbmuxd does not answer ({error})", "start usbmuxd again")


def _android(device: AdbDevice) -> Attached:
    phone = phone_of(device.model)
    step = (
        _NOT_YET if device.state == "device" else _ANDROID_STEPS.get(device.state, f"adb says {device.state}")
    )
    return Attached(
        "android",
        phone.name if phone else "",
        phone.title if phone else device.model or "Android device",
        device.model,
        device.serial,
        step,
    )


def _iphone(device: UsbmuxDevice) -> Attached:
    phone = phone_of(device.product_type)
    step = _NOT_YET if device.product_type else "unlock the phone and trust this computer"
    return Attached(
        "iphone",
        phone.name if phone else "",
        phone.title if phone else "iPhone",
        device.product_type,
        device.udid,
        step,
    )
