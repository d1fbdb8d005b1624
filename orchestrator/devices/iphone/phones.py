"""The iPhones that are attached, and the one that a name means."""

from __future__ import annotations

import os
import re
from pathlib import Path

from orchestrator.devices.common.device import Access
from orchestrator.devices.common.registry import Phone, phone_of
from orchestrator.devices.iphone.device import IphoneDevice
from orchestrator.devices.iphone.driver import PhoneDriver, open_driver
from orchestrator.devices.iphone.errors import NoSuchPhoneError, PhoneGoneError, UnreachableError
from orchestrator.devices.iphone.state import IphoneState
from orchestrator.wire.errors import DeviceError

APP_VARIABLE = "BLOCKTIME_IOS_APP"


def list_phones(driver: PhoneDriver | None = None) -> tuple[IphoneState, ...]:
    """All attached iPhones, sorted by UDID; asks nothing of their owners.

    Raises:
        UnreachableError: pymobiledevice3 is not installed, or usbmuxd does not answer.
    """
    driver = driver or open_driver()
    return tuple(filter(None, (_look(driver, udid) for udid in sorted(driver.attached()))))


def _look(driver: PhoneDriver, udid: str) -> IphoneState | None:
    try:
        return driver.look(udid)
    except UnreachableError:
        raise
    except PhoneGoneError:
        return None
    except DeviceError:
        return IphoneState(udid, driver.attached().get(udid, "usb"))


def name_of(state: IphoneState) -> str:
    """The registry's name of the phone; `iphone99-1` for a product type that it does not have."""
    phone = phone_of(state.product_type)
    return (
        phone.name if phone else re.sub(r"[^a-z0-9]+", "-", state.product_type.lower()).strip("-") or "iphone"
    )


def find_iphone(wanted: Phone | str, access: Access | None = None, app: Path | None = None) -> IphoneDevice:
    """The attached iPhone that is a `wanted` one, or has that UDID or name.

    Args:
        app: A signed .ipa to install first; None for that of BLOCKTIME_IOS_APP, if set.

    Raises:
        UnreachableError: as for `list_phones`.
        NoSuchPhoneError: no such phone is attached.
        DeviceError: several are.
    """
    driver = open_driver()
    states = list_phones(driver)
    matching = [state for state in states if _is_wanted(state, wanted)]
    title = wanted if isinstance(wanted, str) else wanted.describe()
    if not matching:
        seen = ", ".join(f"{_title(state)} ({state.udid})" for state in states) or "no iPhone"
        silent = any(not state.product_type for state in states)
        step = (
            "unlock the one that does not answer"
            if silent
            else "connect it by cable, unlock it and tap Trust"
        )
        raise NoSuchPhoneError(f"no {title} found; attached: {seen}; {step}, then see `bench devices`")
    if len(matching) > 1:
        udids = ", ".join(f"{state.udid} ({state.owner_name})" for state in matching)
        raise DeviceError(
            f"{len(matching)} phones are {title}; choose one by its UDID, with --device: {udids}"
        )
    if app is None and (path := os.environ.get(APP_VARIABLE)):
        app = Path(path)
    (state,) = matching
    return IphoneDevice(driver, state, name_of(state), _title(state), access, app)


def _is_wanted(state: IphoneState, wanted: Phone | str) -> bool:
    if isinstance(wanted, Phone):
        return state.product_type in wanted.product_types
    return (
        wanted == name_of(state)
        or wanted.replace("-", "").casefold() == state.udid.replace("-", "").casefold()
    )


def _title(state: IphoneState) -> str:
    phone = phone_of(state.product_type)
    return phone.title if phone else state.product_type or "iPhone"
