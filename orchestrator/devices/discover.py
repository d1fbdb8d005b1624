"""What is attached now, what is missing to see more, and which device a name means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from luts.format.errors import BlocktimeError, UsageError
from orchestrator.agent.programs import agent_program
from orchestrator.devices.android.device import COMEBACK_TIMEOUT_S, AndroidDevice
from orchestrator.devices.android.finding import find, why_blind
from orchestrator.devices.android.finding import list_phones as list_androids
from orchestrator.devices.android.phones import is_address
from orchestrator.devices.common.device import Access, Device
from orchestrator.devices.common.registry import Phone, known_phone, phone_of, unknown_device
from orchestrator.devices.host import HostDevice
from orchestrator.devices.iphone.errors import NoSuchPhoneError, UnreachableError
from orchestrator.devices.iphone.phones import find_iphone, name_of
from orchestrator.devices.iphone.phones import list_phones as list_iphones
from orchestrator.devices.iphone.state import IphoneState
from orchestrator.devices.simulated import scenario_of, simulated_program
from orchestrator.wire.errors import DeviceError

Kind = Literal["host", "simulated", "android", "iphone"]


@dataclass(frozen=True)
class Attached:
    """Something that is attached.

    `name` is what --device takes, besides the serial. `next_step` says what a person must do before it can be
    measured; empty where nothing is in the way.
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


def list_attached() -> Listing:
    """The host, always; Android phones; iPhones. Never raises; no phone shows a dialog because of it."""
    host = Attached("host", "host", "this machine", "", "", "")
    androids, android_gap = _list_android()
    iphones, iphone_gap = _list_iphones()
    return Listing((host, *androids, *iphones), tuple(gap for gap in (android_gap, iphone_gap) if gap))


def resolve(name: str, access: Access | None = None) -> Device:
    """The device that `name` means: `host`, a phone's name, its serial or UDID, host:port of an Android phone, or
    `simulated[:SCENARIO]`.

    DeviceError for an unknown name and for a phone that is not attached or not ready; UsageError where `access`
    does not fit the device.
    """
    access = access or Access()
    kind, known = kind_of(name, access), known_phone(name)
    if kind == "host":
        return HostDevice(agent_program(access.agent))
    if kind == "simulated":
        scenario = scenario_of(name)
        assert scenario is not None
        return HostDevice(simulated_program(scenario), identity="")
    return _iphone(known or name, access) if kind == "iphone" else _android(known, name, access)


def kind_of(name: str, access: Access) -> Kind:
    """The kind of device that `name` means, whether or not a phone of the registry is attached.

    DeviceError for an unknown name and for an agent that was not built; UsageError where `access` does not fit.
    """
    kind = _kind_of_named(name, access)
    if access.fixed_performance and kind != "android":
        raise UsageError(f"--fixed-performance is a mode of Android phones; {name} has none")
    return kind


def _kind_of_named(name: str, access: Access) -> Kind:
    if name == "host":
        agent_program(access.agent)
        return "host"
    scenario = scenario_of(name)
    if access.agent != "python":
        raise UsageError(f"--agent is for the host; {name} has its own app or agent")
    if scenario is not None:
        return "simulated"
    known = known_phone(name)
    kind = known.kind if known else _kind_of_attached(name)
    if kind is None:
        raise unknown_device(name)
    return kind


def _kind_of_attached(name: str) -> Kind | None:
    """What is attached under a name or serial that the registry does not have; None where nothing is."""
    if is_address(name):
        return "android"
    wanted = name.replace("-", "").casefold()
    for device in list_attached().attached:
        if wanted in (device.name.casefold(), device.serial.replace("-", "").casefold()):
            return device.kind
    return None


def _android(known: Phone | None, name: str, access: Access) -> Device:
    phone = find(known.name if known else name, access.say)
    if phone is None:
        raise DeviceError(_not_attached(known, name))
    return AndroidDevice(
        phone,
        apk=access.app,
        allow=access.allow,
        fixed=access.fixed_performance,
        say=access.say,
        comeback_timeout_s=COMEBACK_TIMEOUT_S if access.away_s is None else access.away_s,
    )


def _iphone(wanted: Phone | str, access: Access) -> Device:
    try:
        return find_iphone(wanted, access, access.app)
    except (UnreachableError, NoSuchPhoneError):
        if isinstance(wanted, str):
            raise
        raise DeviceError(_not_attached(wanted, wanted.name)) from None


def _not_attached(phone: Phone | None, name: str) -> str:
    listing, kind = list_attached(), phone.kind if phone else "android"
    phones = [device for device in listing.attached if device.kind != "host"]
    seen = ", ".join(
        device.title
        if device.title == device.product_type
        else f"{device.title} ({device.product_type or device.serial})"
        for device in phones
    )
    gap = next((gap for gap in listing.gaps if gap.kind == kind), None)
    if gap is not None:
        step = f"{gap.reason}: {gap.next_step}"
    elif kind == "iphone" and any(device.kind == kind and not device.product_type for device in phones):
        step = "unlock the iPhone that does not answer"
    elif kind == "iphone":
        step = "connect it by cable, unlock it and trust this computer"
    else:
        step = "connect it by cable, switch on USB debugging and allow this computer"
    wanted = phone.describe() if phone else name
    return f"no {wanted} found; attached: {seen or 'no phone'}; {step}, then see `bench devices`"


def _list_android() -> tuple[list[Attached], Gap | None]:
    try:
        phones = list_androids()
    except BlocktimeError as error:
        reason, _, step = str(error).partition(": ")
        return [], Gap("android", reason, step)
    attached = [
        Attached("android", phone.name, phone.title, phone.model, phone.serial, phone.next_step)
        for phone in phones
    ]
    blind = why_blind() if not attached else None
    return attached, Gap("android", *blind) if blind else None


def _list_iphones() -> tuple[list[Attached], Gap | None]:
    try:
        states = list_iphones()
    except UnreachableError as error:
        return [], Gap("iphone", error.reason, error.next_step)
    except BlocktimeError as error:
        reason, _, step = str(error).partition(": ")
        return [], Gap("iphone", reason, step)
    return [_iphone_attached(state) for state in states], None


def _iphone_attached(state: IphoneState) -> Attached:
    known = phone_of(state.product_type)
    return Attached(
        "iphone",
        name_of(state) if state.product_type else "",
        known.title if known else "iPhone",
        state.product_type,
        state.udid,
        state.next_step,
    )
