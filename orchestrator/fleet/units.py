"""The units of a fleet: classes of devices, and those attached to this machine."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import Field, RootModel

from luts.format.errors import BlocktimeError, UsageError, shorten
from luts.format.files import read_json
from orchestrator.devices.common.device import Access, Device
from orchestrator.devices.common.registry import known_phone
from orchestrator.devices.discover import list_attached, resolve
from orchestrator.devices.host import SIMULATED, scenario_of
from orchestrator.wire.errors import DeviceError


class FleetUnit(Protocol):
    """An open unit; `serial` distinguishes it from all others of the fleet."""

    serial: str
    device: Device

    def held(self) -> AbstractContextManager[None]:
        """Reserve the unit for this program; raises DeviceBusyError."""

    def close(self) -> None:
        """Stop what was started for it, even if it hangs; raises nothing."""


OpenUnit = Callable[[Collection[str]], FleetUnit]
"""Opens a unit with none of the given serials; raises DeviceError if there is none, or it can't be reached."""


class UnfitUnitError(BlocktimeError):
    """A unit differs from the others: its samples can't be in one LUT with theirs."""


MAX_UNITS = 256
MAX_FILE_BYTES = 1 << 20
HOST = "host"

_FORM = 'write pixel8=3,iphone13=1, or give a .json file such as {"pixel8": 3, "rack": ["10.0.0.4:5555"]}'


@dataclass(frozen=True)
class DeviceClass:
    """Units of one kind: measured together, as one device.

    Attributes:
        name: Name in --devices: `pixel8`, `host`, `host:kotlin`, `simulated:noisy`, or a name of the file's; and of
            the resource that hosts of a Ray cluster offer.
        units: Largest number of units.
        members: Devices that are units of it, by serial or host:port; empty if any device of that name is
            one.
    """

    name: str
    units: int
    members: tuple[str, ...] = ()

    @property
    def device(self) -> str:
        """A name of one of its devices for `discover.resolve`."""
        if self.members:
            return self.members[0]
        return HOST if self.agent != "python" else self.name

    @property
    def agent(self) -> str:
        """Language of the host's agent, as in `host:kotlin`."""
        prefix, _, language = self.name.partition(":")
        return language if prefix == HOST and language else "python"


class _File(RootModel[dict[str, Annotated[int, Field(ge=1, le=MAX_UNITS)] | list[str]]]):
    pass


def parse_classes(text: str, _flag: str = "--devices") -> tuple[DeviceClass, ...]:
    """Return the classes that --devices names.

    Raises:
        UsageError: It is neither a list of classes nor a file of that form.
        InvalidArtifactError: The file is missing, or has other content.
        DeviceError: No device has such a name.
    """
    if text.endswith(".json") and "=" not in text:
        given = read_json(Path(text), _File, MAX_FILE_BYTES, _FORM).root
    else:
        given = dict(_pair(part) for part in text.split(",") if part.strip())
        if len(given) < len([part for part in text.split(",") if part.strip()]):
            raise UsageError(
                f"--devices {text[:80]!r} lists a class twice; add up its units", code="bad_devices"
            )
    if not given:
        raise UsageError(f"--devices {text[:80]!r} lists no device; {_FORM}", code="bad_devices")
    return tuple(_class(name, units) for name, units in given.items())


def _pair(part: str) -> tuple[str, int | list[str]]:
    name, equals, count = part.strip().rpartition("=")
    if not equals:
        name, count = count, "1"
    if not name or not re.fullmatch("[0-9]{1,4}", count) or not 1 <= int(count) <= MAX_UNITS:
        raise UsageError(
            f"--devices {part.strip()[:80]!r}: expected a class and 1 to {MAX_UNITS} units; {_FORM}",
            code="bad_devices",
        )
    return name, int(count)


def _class(name: str, units: int | list[str]) -> DeviceClass:
    if isinstance(units, list):
        if not 0 < len(set(units)) == len(units) <= MAX_UNITS:
            raise UsageError(
                f"--devices: {name[:64]} lists no device, one twice, or over {MAX_UNITS}; {_FORM}",
                code="bad_devices",
            )
        return DeviceClass(name, len(units), tuple(units))
    found = DeviceClass(name, units)
    if name == HOST or name.startswith(f"{HOST}:"):
        if units > 1:
            raise UsageError(
                f"--devices {name}={units}: a machine is one unit; start one host for each",
                code="bad_devices",
            )
    elif name.partition(":")[0] == SIMULATED:
        scenario_of(name)
    elif known_phone(name) is None and not re.fullmatch("[a-z0-9]{1,40}", name):
        raise DeviceError(
            f"unknown device {name[:64]!r}: `bench devices` shows what is attached; {_FORM}",
            code="unknown_device",
        )
    return found


def open_local(device_class: DeviceClass, access: Access, taken: Collection[str] = ()) -> tuple[str, Device]:
    """Open a device of the class that is attached here and has none of the serials `taken`; return its serial too.

    Raises:
        DeviceError: All are taken, none is attached, or none can be used; the first reason.
    """
    access = replace(access, agent=device_class.agent)
    reasons, seen = [], []
    for serial, name in _candidates(device_class, taken):
        seen.append(serial)
        if serial in taken:
            continue
        try:
            return serial, resolve(name, access).__enter__()
        except DeviceError as error:
            reasons.append(error)
    if reasons:
        raise reasons[0]
    if seen:
        raise DeviceError(
            f"{shorten(seen)} of {device_class.name} are units of this fleet already; attach another one",
            code="no_device",
        )
    resolve(device_class.device, access)  # says what is missing
    raise DeviceError(f"no {device_class.name} is attached; see `bench devices`", code="no_device")


def _candidates(device_class: DeviceClass, taken: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield serials with names for `discover.resolve`."""
    machine = socket.gethostname()
    if device_class.members:
        yield from ((member, member) for member in device_class.members)
    elif device_class.name.partition(":")[0] == HOST:
        yield machine, HOST
    elif device_class.name.partition(":")[0] == SIMULATED:
        yield from ((f"{machine}-{number}", device_class.name) for number in range(1, len(taken) + 2))
    else:
        known = known_phone(device_class.name)
        name = known.name if known else device_class.name
        yield from ((phone.serial, phone.serial) for phone in list_attached().attached if phone.name == name)
