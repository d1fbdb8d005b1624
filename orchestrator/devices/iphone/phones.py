"""The iPhones that are attached, and the one that a name means."""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import TYPE_CHECKING

from luts.format.errors import install_extra
from orchestrator.devices.common.device import Access, KindUnavailableError
from orchestrator.devices.iphone.device import IphoneDevice
from orchestrator.devices.iphone.state import IphoneState, PhoneGoneError, mux_address
from orchestrator.wire.errors import DeviceError

if TYPE_CHECKING:
    from orchestrator.devices.iphone.mobiledevice import MobileDevice


def open_driver() -> MobileDevice:
    """Return the driver for the usbmuxd that the environment names.

    Raises:
        KindUnavailableError: pymobiledevice3 is not installed.
    """
    if importlib.util.find_spec("pymobiledevice3") is None:
        raise KindUnavailableError("iPhones need pymobiledevice3", install_extra("ios"), "package_missing")
    return _driver(mux_address())


@cache
def _driver(address: str) -> MobileDevice:
    from orchestrator.devices.iphone.mobiledevice import MobileDevice

    return MobileDevice(address)


def list_phones(driver: MobileDevice | None = None) -> tuple[IphoneState, ...]:
    """Return all attached iPhones, sorted by UDID; no phone asks its user anything.

    Raises:
        KindUnavailableError: pymobiledevice3 is not installed, or usbmuxd does not answer.
    """
    driver = driver or open_driver()
    states = (_read_state(driver, udid) for udid in sorted(driver.attached()))
    return tuple(state for state in states if state is not None)


def _read_state(driver: MobileDevice, udid: str) -> IphoneState | None:
    try:
        return driver.read_state(udid)
    except KindUnavailableError:
        raise
    except PhoneGoneError:
        return None
    except DeviceError:
        return IphoneState(udid, driver.attached().get(udid, "usb"))


def find_iphone(name: str, access: Access | None = None) -> IphoneDevice | None:
    """Return the attached iPhone with this name or UDID; None if there is none.

    Raises:
        KindUnavailableError: As in `list_phones`.
        DeviceError: Several attached phones match.
    """
    driver = open_driver()
    matching = [state for state in list_phones(driver) if state.matches(name)]
    if not matching:
        return None
    if len(matching) > 1:
        udids = ", ".join(f"{state.udid} ({state.owner_name})" for state in matching)
        raise DeviceError(
            f"{len(matching)} phones are {name}; choose one by its UDID, with --device: {udids}",
            code="several_phones",
        )
    return IphoneDevice(driver, matching[0], access)
