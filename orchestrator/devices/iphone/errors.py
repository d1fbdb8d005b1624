"""What can go wrong on the way to an iPhone, where the caller does different things about it."""

from __future__ import annotations

from orchestrator.wire.errors import DeviceError


class UnreachableError(DeviceError):
    """No iPhone at all can be seen from here: the library or usbmuxd is missing."""

    def __init__(self, reason: str, next_step: str) -> None:
        super().__init__(f"{reason}: {next_step}")
        self.reason = reason
        self.next_step = next_step


class NoSuchPhoneError(DeviceError):
    """None of the attached iPhones is the one that was asked for."""


class PhoneGoneError(DeviceError):
    """The phone is not attached; it may come back."""


class CannotLaunchError(DeviceError):
    """The app can't be started from here, but its owner can still tap its icon."""
