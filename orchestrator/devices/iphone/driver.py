"""What is asked of the library that talks to iPhones."""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Protocol

from orchestrator.devices.iphone.address import MuxAddress
from orchestrator.devices.iphone.errors import UnreachableError
from orchestrator.devices.iphone.state import Connection, IphoneState


class PhoneDriver(Protocol):
    """All calls block.

    All raise PhoneGoneError where the phone is not attached, DeviceError for what its owner must put right, and
    UnreachableError where usbmuxd does not answer.
    """

    def attached(self) -> dict[str, Connection]:
        """Phones that are attached, by UDID; a cable goes before the network."""

    def look(self, udid: str) -> IphoneState:
        """All that can be learned without asking the owner for anything."""

    def pair(self, udid: str, timeout_s: float) -> None:
        """Has the phone ask its owner whether to trust this computer, and waits for the answer."""

    def open_socket(self, udid: str, port: int) -> socket.socket | None:
        """A blocking socket to a port of the phone's loopback; None where nothing listens there."""

    def install(self, udid: str, ipa: Path) -> None:
        """Installs or replaces an app."""

    def launch(self, udid: str, bundle: str, environment: Mapping[str, str], *, fresh: bool) -> int:
        """Starts an app, afresh or unless it runs, and shows it; its process id.

        CannotLaunchError where only the owner can start it.
        """

    def kill(self, udid: str, pid: int) -> None:
        """Ends a process that `launch` started. CannotLaunchError as there."""


def open_driver() -> PhoneDriver:
    """The driver for the usbmuxd that the environment names; UnreachableError without the library."""
    if importlib.util.find_spec("pymobiledevice3") is None:
        raise UnreachableError("iPhones need pymobiledevice3", "pip install 'blocktime[ios]'")
    return _driver(MuxAddress.from_environment())


@cache
def _driver(address: MuxAddress) -> PhoneDriver:
    from orchestrator.devices.iphone.mobiledevice import MobileDevice

    return MobileDevice(address)
