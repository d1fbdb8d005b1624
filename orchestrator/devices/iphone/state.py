"""What is known of an attached iPhone, and what its owner must do before it can be measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Trust = Literal["trusted", "unpaired", "locked", "silent"]
"""`locked`: its passcode was not typed since it started. `silent`: it does not answer at all."""

Connection = Literal["usb", "network"]

BUNDLE_PREFIX = "dev.blocktime.bench"


def is_bench_app(bundle: str) -> bool:
    """Whether that is the app's identifier: the prefix, and after a point the team that signed it."""
    return bundle == BUNDLE_PREFIX or bundle.startswith(f"{BUNDLE_PREFIX}.")


@dataclass(frozen=True)
class IphoneState:
    """An iPhone that usbmuxd lists.

    `product_type`, `ios` and `owner_name` are empty where it did not tell. `developer_mode` is None before iOS 16,
    which has none, and where it did not tell. `apps` has the versions of the app by identifier, as each team that
    signed one has its own; None where that is not known. `silence` is why it did not answer.
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
    def next_step(self) -> str:
        """What stands in the way and what to do about it; empty where nothing does."""
        if self.connection != "usb":
            return "seen over the network only: connect it by cable"
        if self.trust != "trusted":
            return _TRUST_STEPS[self.trust].format(silence=f" ({self.silence})" if self.silence else "")
        if self.developer_mode is False:
            return DEVELOPER_MODE_STEP
        return self.app_step

    @property
    def app_step(self) -> str:
        """What to do until one copy of the app is installed; empty where it is, and where that is not known."""
        if self.apps is None or len(self.apps) == 1:
            return ""
        return _TWO_APPS_STEP.format(", ".join(sorted(self.apps))) if self.apps else APP_STEP


DEVELOPER_MODE_STEP = (
    "Developer Mode is off: switch it on in Settings > Privacy & Security, then let the phone restart"
)
APP_STEP = "the app is not installed: give the signed .ipa with --app, or run ios_bench/App from Xcode once"
_TWO_APPS_STEP = "several copies of the app are installed ({}): delete all but one from the phone"

_TRUST_STEPS = {
    "unpaired": "it does not trust this computer yet: unlock it, then tap Trust when it asks",
    "locked": "it is locked: unlock it with its passcode",
    "silent": "it does not answer{silence}: unlock it, or unplug it and plug it in again",
}
