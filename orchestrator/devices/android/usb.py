"""adb over USB through libusb, for phones that no adb server holds."""

from __future__ import annotations

from collections.abc import Iterator

import usb1
from adb_shell.exceptions import UsbReadFailedError, UsbWriteFailedError
from adb_shell.transport.usb_transport import UsbTransport as _Base

from orchestrator.devices.android.errors import LinkLost, PhoneNotReady


class UsbTransport(_Base):  # type: ignore[misc]
    """adb_shell's USB pipe with what adbd needs beyond it.

    A write whose length is a multiple of the endpoint's packet size ends with an empty packet, by which adbd knows
    that it is over (AOSP, client/usb_linux.cpp, `zero_mask`); a read that times out keeps what had arrived; all
    failures are OSError.
    """

    def connect(self, transport_timeout_s: float | None) -> None:
        """Claims the phone. PhoneNotReady without permission, LinkLost where another program holds it."""
        try:
            super().connect(transport_timeout_s)
        except usb1.USBErrorAccess:
            raise _no_permission(self.usb_info) from None
        except usb1.USBErrorBusy:
            raise LinkLost(
                f"another program holds the USB phone {self.usb_info}: end it, or start `adb start-server`"
            ) from None
        except usb1.USBError as error:
            raise OSError(str(error)) from None
        self._packet_bytes = self._device.getMaxPacketSize(self._write_endpoint)

    def bulk_read(self, numbytes: int, transport_timeout_s: float | None) -> bytes:
        """Up to `numbytes` bytes; none after the timeout, or for an empty packet."""
        try:
            data: bytes = super().bulk_read(numbytes, transport_timeout_s)
        except UsbReadFailedError as error:
            if isinstance(error.usb_error, usb1.USBErrorTimeout):
                return bytes(error.usb_error.received)
            raise OSError(str(error)) from None
        return data

    def bulk_write(self, data: bytes, transport_timeout_s: float | None) -> int:
        """Writes all of `data` as one transfer."""
        try:
            written: int = super().bulk_write(data, transport_timeout_s)
            if written == len(data) and written % self._packet_bytes == 0:
                super().bulk_write(b"", transport_timeout_s)
        except UsbWriteFailedError as error:
            raise OSError(str(error)) from None
        if written < len(data):
            raise OSError(f"the phone took {written} of {len(data)} bytes")
        return written

    def interrupt(self) -> None:
        """Nothing: libusb's calls end by their timeouts, which the pipe keeps short for reads."""


def find_all() -> Iterator[tuple[str, UsbTransport | None]]:
    """Serial and transport of every phone on USB with debugging on; None where this user may not open it."""
    for transport in UsbTransport.find_all_adb_devices():
        try:
            yield transport.serial_number, transport
        except usb1.USBErrorAccess:
            where = ".".join(map(str, transport.port_path))
            yield f"usb:{where}", None
        except usb1.USBError:
            continue  # unplugged in this moment


def find(serial: str) -> UsbTransport:
    """The phone of that serial. LinkLost where it is not plugged in, PhoneNotReady without permission."""
    for known, transport in find_all():
        if known == serial:
            if transport is None:
                raise _no_permission(serial)
            return transport
    raise LinkLost(f"no phone {serial} on USB: plug it in, unlock it, and see `bench devices`")


def _no_permission(serial: str) -> PhoneNotReady:
    return PhoneNotReady(
        f"this user may not open the USB phone {serial}: install the udev rules for Android "
        "(package android-sdk-platform-tools-common), then plug it in again",
        "no permissions",
    )
