"""Phones that an adb server holds: its clients (adb itself, Android Studio) and this program share it."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from dataclasses import dataclass

from adbutils import AdbClient, AdbConnection, AdbError

from orchestrator.devices.android.errors import LinkLost, PhoneNotReady, ServiceRefused
from orchestrator.devices.android.link import AdbLink

DEFAULT_PORT = 5037
_TIMEOUT_S = 20.0
_PROBE_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class ServerAddress:
    """Where an adb server listens."""

    host: str
    port: int

    @classmethod
    def from_environment(cls) -> ServerAddress:
        """As adb finds it: ADB_SERVER_SOCKET=tcp:[host:]port, else ANDROID_ADB_SERVER_ADDRESS and _PORT."""
        spec = re.fullmatch(r"tcp:(?:(.+):)?(\d+)", os.environ.get("ADB_SERVER_SOCKET", ""))
        if spec:
            return cls(spec[1] or "127.0.0.1", int(spec[2]))
        port = os.environ.get("ANDROID_ADB_SERVER_PORT", "")
        host = os.environ.get("ANDROID_ADB_SERVER_ADDRESS", "127.0.0.1")
        return cls(host, int(port) if port.isdigit() else DEFAULT_PORT)


@dataclass(frozen=True)
class ServerPhone:
    """A phone as the server lists it: adb's word for its state (`device` when usable)."""

    serial: str
    state: str


class _Connection(AdbConnection):  # type: ignore[misc]
    """One that never starts a server: adbutils' own does where none answers."""

    def _safe_connect(self) -> socket.socket:
        sock: socket.socket = self._create_socket()
        return sock


class _Client(AdbClient):  # type: ignore[misc]
    def make_connection(self, timeout: float | None = None) -> AdbConnection:
        connection = _Connection(self.host, self.port)
        connection.conn.settimeout(timeout or _TIMEOUT_S)
        return connection


def list_phones(address: ServerAddress | None = None) -> list[ServerPhone] | None:
    """What the adb server lists; None where no server answers. None is ever started."""
    address = address or ServerAddress.from_environment()
    with contextlib.suppress(OSError):
        socket.create_connection((address.host, address.port), _PROBE_TIMEOUT_S).close()
        try:
            listed = _Client(address.host, address.port).list(extended=True)
        except AdbError:
            return None
        # `no permissions (…)` is the one state of several words.
        return [ServerPhone(i.serial, "no permissions" if i.state == "no" else i.state) for i in listed]
    return None


class ServerLink(AdbLink):
    """A phone over the adb server at `address`; each service has a connection of its own to the server."""

    def __init__(self, serial: str, address: ServerAddress | None = None) -> None:
        super().__init__(serial, serial)
        self._address = address or ServerAddress.from_environment()

    def open_service(self, service: str) -> socket.socket:
        try:
            connection = self._transport()
        except (AdbError, OSError) as error:
            raise self._no_phone(str(error)) from None
        try:
            connection.send_command(service)
            connection.check_okay()
        except (AdbError, OSError) as error:
            connection.close()
            raise self._no_service(service, str(error)) from None
        sock: socket.socket = connection.conn
        sock.settimeout(None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def close(self) -> None:
        """Nothing is held between services."""

    def _transport(self) -> AdbConnection:
        return (
            _Client(self._address.host, self._address.port)
            .device(self.serial)
            .open_transport(timeout=_TIMEOUT_S)
        )

    def _no_phone(self, reason: str) -> LinkLost | PhoneNotReady:
        first_line = reason.strip().splitlines()[0] if reason.strip() else "it gave no reason"
        for state in ("unauthorized", "no permissions"):
            if state in reason:
                return PhoneNotReady(f"{self.serial} is {state}: see `bench devices`", state)
        return LinkLost(
            f"the adb server does not reach {self.serial}: {first_line}; check its cable or network"
        )

    def _no_service(self, service: str, reason: str) -> LinkLost | PhoneNotReady | ServiceRefused:
        """The server says `closed` or the phone's errno where the phone is there and refuses."""
        listed = list_phones(self._address) or []
        if any(phone.serial == self.serial and phone.state == "device" for phone in listed):
            return ServiceRefused(
                f"{self.serial} refused {service}: {reason.strip() or 'nothing there answers'}"
            )
        return self._no_phone(reason)
