"""What is known about an attached iPhone, the errors of reaching one, and the address of usbmuxd."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

from luts.format.errors import UsageError
from luts.format.processes import environment
from orchestrator.devices.common.registry import phone_of
from orchestrator.wire.errors import DeviceError

Trust = Literal["trusted", "unpaired", "locked", "silent"]
"""`locked`: the passcode was not typed since the phone started. `silent`: the phone does not answer."""

Connection = Literal["usb", "network"]

BUNDLE_PREFIX = "dev.blocktime.bench"
ADDRESS_VARIABLE = "USBMUXD_SOCKET_ADDRESS"

DEVELOPER_MODE_STEP = (
    "Developer Mode is off: switch it on in Settings > Privacy & Security, then let the phone restart"
)
_NO_APP_STEP = (
    "the app is not installed: give the signed .ipa with --app, or run ios_bench/App from Xcode once"
)
_SEVERAL_APPS_STEP = "several copies of the app are installed ({}): delete all but one from the phone"
_TRUST_STEPS = {
    "unpaired": "it does not trust this computer yet: unlock it, then tap Trust when it asks",
    "locked": "it is locked: unlock it with its passcode",
    "silent": "it does not answer{reason}: unlock it, or unplug it and plug it in again",
}


class PhoneGoneError(DeviceError):
    """The phone is not attached; it may come back."""


class CannotLaunchError(DeviceError):
    """The app cannot be started from this computer, but the user can still tap its icon."""


def is_bench_app(bundle: str) -> bool:
    """Return whether a bundle identifier is the app's: the prefix, then perhaps the team that signed it."""
    return bundle == BUNDLE_PREFIX or bundle.startswith(f"{BUNDLE_PREFIX}.")


@dataclass(frozen=True)
class IphoneState:
    """An iPhone that usbmuxd lists.

    Attributes:
        product_type: Apple's identifier such as iPhone14,5; like `ios` and `owner_name`, empty if unknown.
        trust: Whether it has been paired with this computer.
        developer_mode: None before iOS 16, which has none, and if unknown.
        apps: Build numbers of the app by bundle identifier, which differs between teams; None if unknown.
        silence: Why the phone did not answer, if `trust` is `silent`.
    """

    udid: str
    connection: Connection
    product_type: str = ""
    ios: str = ""
    owner_name: str = ""
    trust: Trust = "silent"
    developer_mode: bool | None = None
    apps: Mapping[str, str] | None = None
    silence: str = ""

    @property
    def name(self) -> str:
        """The registry's name of the phone, or one such as `iphone99-1` for an unknown product type."""
        known = phone_of(self.product_type)
        slug = re.sub(r"[^a-z0-9]+", "-", self.product_type.lower()).strip("-")
        return known.name if known else slug or "iphone"

    @property
    def title(self) -> str:
        """What people call it."""
        known = phone_of(self.product_type)
        return known.title if known else self.product_type or "iPhone"

    def matches(self, name: str) -> bool:
        """Return whether it has this name or UDID."""
        return name == self.name or _plain(name) == _plain(self.udid)

    @property
    def starts_apps(self) -> bool:
        """Whether this computer can start apps on it: not with Developer Mode off, and on iOS 17.0 to 17.3."""
        return self.developer_mode is not False and not re.match(r"17\.[0-3](\.|$)", self.ios)

    @property
    def next_step(self) -> str:
        """What prevents measuring and what to do about it; empty if nothing does."""
        if self.connection != "usb":
            return "seen over the network only: connect it by cable"
        if self.trust != "trusted":
            return _TRUST_STEPS[self.trust].format(reason=f" ({self.silence})" if self.silence else "")
        if self.developer_mode is False:
            return DEVELOPER_MODE_STEP
        return self.app_step

    @property
    def app_step(self) -> str:
        """What to do until exactly one copy of the app is installed; empty if it is, or if that is unknown."""
        if self.apps is None or len(self.apps) == 1:
            return ""
        return _SEVERAL_APPS_STEP.format(", ".join(sorted(self.apps))) if self.apps else _NO_APP_STEP


def mux_address() -> str:
    """Return where usbmuxd listens: the path of a socket or host:port, empty for the system's default.

    That is USBMUXD_SOCKET_ADDRESS: `UNIX:/path`, `/path` or `host:port`.

    Raises:
        UsageError: It is none of these.
    """
    text = os.environ.get(ADDRESS_VARIABLE, "")
    if not text or text.startswith("/"):
        return text
    kind, colon, rest = text.rpartition(":")
    if (kind, rest[:1]) == ("UNIX", "/") or (kind and colon and ":" not in kind and _is_port(rest)):
        return rest if kind == "UNIX" else text
    raise UsageError(
        f"{ADDRESS_VARIABLE}={text[:80]!r} is not an address of usbmuxd: write UNIX:/path or host:port",
        code="bad_address",
    )


def exported_address(address: str) -> AbstractContextManager[None]:
    """Set the variable as pymobiledevice3 reads it: it would take `UNIX:` before a path for a host."""
    return environment(ADDRESS_VARIABLE, address) if address else nullcontext()


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text) < 65536


def _plain(udid: str) -> str:
    return udid.replace("-", "").casefold()
