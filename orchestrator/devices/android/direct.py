"""Phones on computers without an adb server: this process speaks adb itself, through the library adb_shell."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adb_shell.adb_device import AdbDevice, UsbTransport
from adb_shell.adb_message import AdbMessage
from adb_shell.auth.keygen import keygen
from adb_shell.auth.sign_cryptography import CryptographySigner
from adb_shell.constants import CLSE, MESSAGE_SIZE, OKAY, OPEN, SYNC, WRTE
from adb_shell.exceptions import TcpTimeoutException
from adb_shell.hidden_helpers import _AdbTransactionInfo
from adb_shell.transport.tcp_transport import TcpTransport

from orchestrator.devices.android.link import (
    ACCEPT_TIMEOUT_S,
    AdbLink,
    LinkLostError,
    PhoneNotReadyError,
    ServiceRefusedError,
    service_title,
)
from orchestrator.wire.errors import DeviceError

HAS_USB = UsbTransport is not None
"""Whether the library libusb, which only USB needs, is installed."""

_CONNECT_TIMEOUT_S = 5.0
_ANSWER_TIMEOUT_S = 20.0
# Streams take turns on the phone's only connection: none waits for data longer than this.
_POLL_S = 0.02
_PAUSE_S = 0.005
_CHUNK_BYTES = 1 << 16
# A phone sends what it has within a few milliseconds; a killed session leaves a few packets at most.
_STALE_TIMEOUT_S = 0.1
_MAX_STALE_READS = 256


def _read_timeout_s(numbytes: int, timeout_s: float) -> float:
    """Return the timeout of a read: a poll may end before a message, not between its header and its data."""
    return timeout_s if numbytes == MESSAGE_SIZE else _ANSWER_TIMEOUT_S


class _Tcp(TcpTransport):  # type: ignore[misc]
    """adb_shell's TCP transport, except that it sends all of the data, at once, and ends at EOF."""

    def connect(self, transport_timeout_s: float) -> None:
        super().connect(transport_timeout_s)
        # Header and data of a message are sent separately: the data would wait for the phone's delayed ACK.
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def bulk_read(self, numbytes: int, transport_timeout_s: float) -> bytes:
        data: bytes = super().bulk_read(numbytes, _read_timeout_s(numbytes, transport_timeout_s))
        if not data:
            raise ConnectionResetError("the phone closed the connection")
        return data

    def bulk_write(self, data: bytes, _timeout_s: float) -> int:
        sent = 0
        while sent < len(data):
            sent += super().bulk_write(data[sent:], _ANSWER_TIMEOUT_S)
        return sent


class _Usb(UsbTransport or object):  # type: ignore[misc]
    """adb_shell's USB transport, except that an empty packet follows whole ones, as adbd expects.

    adbd reads until a packet that is not full (AOSP, client/usb_linux.cpp, `zero_mask`).
    """

    def connect(self, transport_timeout_s: float) -> None:
        """Open the phone, and drop what it still sends to a session that was killed."""
        super().connect(transport_timeout_s)
        for endpoint in (self._read_endpoint, self._write_endpoint):
            with contextlib.suppress(Exception):  # of usb1; a phone whose endpoints work may refuse
                self._transport.clearHalt(endpoint)
        with contextlib.suppress(Exception):  # nothing is left once a read times out
            for _ in range(_MAX_STALE_READS):
                super().bulk_read(_CHUNK_BYTES, _STALE_TIMEOUT_S)

    def bulk_read(self, numbytes: int, transport_timeout_s: float) -> bytes:
        try:
            data: bytes = super().bulk_read(numbytes, _read_timeout_s(numbytes, transport_timeout_s))
        except Exception as error:
            if type(getattr(error, "usb_error", None)).__name__ == "USBErrorTimeout":
                raise TcpTimeoutException(str(error)) from None
            raise
        return data

    def bulk_write(self, data: bytes, _timeout_s: float) -> int:
        written: int = super().bulk_write(data, _ANSWER_TIMEOUT_S)
        if written and written % self._device.getMaxPacketSize(self._write_endpoint) == 0:
            super().bulk_write(b"", _ANSWER_TIMEOUT_S)
        return written


class DirectLink(AdbLink):
    """One connection to the phone's adb daemon, shared by all services that are open."""

    def __init__(self, serial: str, device: AdbDevice) -> None:
        """Wrap a connected device."""
        super().__init__(serial)
        self._device = device

    def open_service(self, service: str) -> socket.socket:
        """Open a stream of the connection; see `AdbLink.open_service`."""
        # adb_shell's own `_open` takes a refusal for silence, and its public services have no input.
        with self._device._local_id_lock:
            self._device._local_id += 1
            stream = _AdbTransactionInfo(self._device._local_id, None, None, _ANSWER_TIMEOUT_S)
        try:
            self._reserve(0, stream)
            self._send(OPEN, stream, service.encode() + b"\0")
            command, stream.remote_id, _, _ = self._device._io_manager.read([OKAY, CLSE], stream)
            self._reserve(stream.remote_id, stream)
        except Exception as error:  # adb_shell's, libusb's and the socket's have no common base
            raise _lost(self.serial, error) from None
        if command == CLSE:
            message = f"{self.serial} refused {service_title(service)}: nothing listens there"
            raise ServiceRefusedError(message, code="service_refused")
        near, far = socket.socketpair()
        stream.transport_timeout_s = _POLL_S
        threading.Thread(target=self._carry, args=[stream, near], name="adb-stream", daemon=True).start()
        return far

    def close(self) -> None:
        """Close the connection."""
        self._device.close()

    def _carry(self, stream: Any, near: socket.socket) -> None:
        """Carry bytes between a stream of the phone and a local socket until either ends."""
        may_send, command = True, b""
        with near, contextlib.suppress(Exception):  # if the phone is lost, the end of the socket says so
            while command != CLSE:
                if may_send and select.select([near], [], [], _PAUSE_S)[0]:
                    data = near.recv(_CHUNK_BYTES)
                    self._send(WRTE if data else CLSE, stream, data)
                    if not data:
                        return
                    may_send = False
                with contextlib.suppress(TcpTimeoutException):
                    command, data = self._device._read_until([OKAY, WRTE, CLSE], stream)
                    may_send = may_send or command == OKAY
                    near.sendall(data)

    def _reserve(self, remote_id: int, stream: Any) -> None:
        """Make adb_shell keep a CLSE that another stream reads; it drops one of a stream without an entry."""
        with self._device._io_manager._store_lock:
            self._device._io_manager._packet_store.put(remote_id, stream.local_id, SYNC, b"")

    def _send(self, command: bytes, stream: Any, data: bytes = b"") -> None:
        message = AdbMessage(command, stream.local_id, stream.remote_id or 0, data)
        self._device._io_manager.send(message, stream)


def list_usb() -> dict[str, _Usb | None]:
    """Return the transport of each phone on USB by serial, None if this user may not open it."""
    found = {}
    for transport in _Usb.find_all_adb_devices() if HAS_USB else ():
        try:
            found[transport.serial_number] = transport
        except Exception as error:  # of the library usb1, which may be missing
            if type(error).__name__ == "USBErrorAccess":
                found[f"usb:{'.'.join(map(str, transport.port_path))}"] = None
    return found


def connect(serial: str, transport: Any, ask_user: Callable[[], None] | None = None) -> DirectLink:
    """Connect to a phone. `ask_user` is called when it shows its dialog; without it, no dialog is shown.

    Over USB a phone is greeted once more if it answers the first greeting with the rest of an earlier session.

    Raises:
        LinkLostError: The phone does not answer.
        PhoneNotReadyError: It does not know this computer, or another program or user holds it.
    """
    device, asked = AdbDevice(transport), False

    def on_dialog(_: AdbDevice) -> None:
        nonlocal asked
        if ask_user is None:
            raise unauthorized(serial)
        ask_user()
        asked = True

    for may_greet_again in (isinstance(transport, _Usb), False):
        try:
            device.connect([_signer()], _CONNECT_TIMEOUT_S, ACCEPT_TIMEOUT_S, _ANSWER_TIMEOUT_S, on_dialog)
            break
        except Exception as error:
            with contextlib.suppress(Exception):
                device.close()
            if isinstance(error, DeviceError):
                raise
            if asked or not may_greet_again:
                raise (unauthorized(serial) if asked else _lost(serial, error)) from None
    return DirectLink(serial, device)


def connect_tcp(address: str, ask_user: Callable[[], None] | None = None) -> DirectLink:
    """Connect to the phone at `host:port`; see `connect`."""
    host, _, port = address.rpartition(":")
    return connect(address, _Tcp(host.strip("[]"), int(port)), ask_user)


def unauthorized(serial: str) -> PhoneNotReadyError:
    """Return the error for a phone that does not know this computer."""
    step = "unlock it, accept its USB debugging dialog and run the command again"
    return PhoneNotReadyError(f"{serial} has not authorised this computer: {step}", "unauthorized")


def _lost(serial: str, error: Exception) -> LinkLostError:
    reason = str(error) or type(error).__name__
    step = "check its cable or network, and close other programs that use it"
    if "STLS" in reason:
        reason, step = "wireless debugging is encrypted", "install adb, then `adb pair` and `adb connect`"
    return LinkLostError(f"{serial} does not answer adb ({reason}): {step}", code="phone_lost")


def _signer() -> CryptographySigner:
    """Return adb's own key, so that a phone that knows adb need not ask again; made if there is none."""
    path = Path.home() / ".android" / "adbkey"
    try:
        if not path.exists():
            mask = os.umask(0o077)
            try:
                path.parent.mkdir(exist_ok=True)
                keygen(str(path))
            finally:
                os.umask(mask)
        return CryptographySigner(str(path))
    except (OSError, ValueError) as error:
        message = f"cannot use the adb key {path} ({error}); move it away and run the command again"
        raise DeviceError(message, code="bad_adb_key") from None
