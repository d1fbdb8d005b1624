"""Units that are attached to this machine: found by class, each taken once."""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import replace

from luts.format.errors import BlocktimeError
from luts.format.messages import few
from orchestrator.devices.common.device import Access, Device
from orchestrator.devices.common.registry import known_phone
from orchestrator.devices.discover import list_attached, resolve
from orchestrator.devices.lock import held
from orchestrator.devices.simulated import PREFIX
from orchestrator.fleet.classes import HOST, DeviceClass
from orchestrator.wire.errors import DeviceError


class LocalUnit:
    """A device of this machine."""

    def __init__(self, serial: str, device: Device):
        self.serial, self.device = serial, device.__enter__()

    def held(self) -> AbstractContextManager[None]:
        """As every command holds a device."""
        return held(self.device)

    def close(self) -> None:
        """End what was started for it."""
        with suppress(BlocktimeError, OSError):
            self.device.__exit__(None, None, None)


def open_local(device_class: DeviceClass, access: Access, taken: Collection[str] = ()) -> LocalUnit:
    """A unit of the class that is attached here and has none of the serials `taken`.

    Raises:
        DeviceError: all are taken, none is attached, or none can be used; the first reason.
    """
    access = replace(access, agent=device_class.agent)
    reasons, seen = [], []
    for serial, name in _candidates(device_class, taken):
        seen.append(serial)
        if serial in taken:
            continue
        try:
            return LocalUnit(serial, resolve(name, access))
        except DeviceError as error:
            reasons.append(error)
    if reasons:
        raise reasons[0]
    if seen:
        raise DeviceError(
            f"{few(seen)} of {device_class.name} are units of this fleet already; attach another one"
        )
    resolve(device_class.device, access)  # says what is missing
    raise DeviceError(f"no {device_class.name} is attached; see `bench devices`")


def _candidates(device_class: DeviceClass, taken: Collection[str]) -> Iterator[tuple[str, str]]:
    """Serials with names that `resolve` takes."""
    machine = socket.gethostname()
    if device_class.members:
        yield from ((member, member) for member in device_class.members)
    elif device_class.name.partition(":")[0] == HOST:
        yield machine, HOST
    elif device_class.name.partition(":")[0] == PREFIX:
        yield from ((f"{machine}-{number}", device_class.name) for number in range(1, len(taken) + 2))
    else:
        known = known_phone(device_class.name)
        name = known.name if known else device_class.name
        yield from ((phone.serial, phone.serial) for phone in list_attached().attached if phone.name == name)
