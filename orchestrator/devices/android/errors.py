"""What can go wrong between this computer and an Android phone; each is one line for the user."""

from __future__ import annotations

from orchestrator.wire.errors import DeviceError


class LinkLost(DeviceError):
    """The phone is gone or stopped answering: cable, network, reboot. Connecting again may help."""


class ServiceRefused(DeviceError):
    """The phone answers but does not offer the service: nothing listens on the port."""


class PhoneNotReady(DeviceError):
    """The phone is attached but does not let this computer in; `state` is adb's word for it."""

    def __init__(self, message: str, state: str) -> None:
        super().__init__(message)
        self.state = state


class NotInstalled(DeviceError):
    """The app is not on the phone, or not in the version that this program speaks with."""
