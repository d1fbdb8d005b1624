"""Phones that no adb server holds: this process speaks adb with them, over USB or TCP."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

from orchestrator.devices.android import keys
from orchestrator.devices.android.connection import AdbConnection
from orchestrator.devices.android.errors import LinkLost, PhoneNotReady
from orchestrator.devices.android.handshake import Welcome, greet
from orchestrator.devices.android.link import AdbLink
from orchestrator.devices.android.pipe import Pipe
from orchestrator.devices.android.tcp import TcpTransport
from orchestrator.devices.android.transport import Transport

CONNECT_TIMEOUT_S = 5.0


class DirectLink(AdbLink):
    """One connection to the phone's adbd, over which all of the phone's services are reached."""

    def __init__(self, serial: str, connection: AdbConnection) -> None:
        super().__init__(serial, serial)
        self._connection = connection

    @property
    def welcome(self) -> Welcome:
        """What the phone said of itself."""
        return self._connection.welcome

    def open_service(self, service: str) -> socket.socket:
        return self._connection.open(service)

    def close(self) -> None:
        self._connection.close()


def connect_tcp(
    serial: str, ask_user: Callable[[], None] | None = None, key_path: Path | None = None
) -> DirectLink:
    """The phone at `serial`, which is `host:port`. See `connect`."""
    host, _, port = serial.rpartition(":")
    return connect(serial, TcpTransport(host.strip("[]"), int(port)), ask_user, key_path)


def connect(
    serial: str,
    transport: Transport,
    ask_user: Callable[[], None] | None = None,
    key_path: Path | None = None,
) -> DirectLink:
    """A link over `transport`, which it then owns.

    `ask_user` is called when the phone shows its dialog; without one a phone that does not know this computer is
    PhoneNotReady. LinkLost where nobody answers.
    """
    key = keys.load_or_make(key_path)
    pipe = Pipe(transport)
    try:
        transport.connect(CONNECT_TIMEOUT_S)
        welcome = greet(pipe, key, serial, ask_user)
        _check(serial, welcome)
    except ConnectionRefusedError:
        pipe.close()
        raise LinkLost(
            f"nothing listens at {serial}: switch on network debugging there (`adb tcpip 5555` by cable once)"
        ) from None
    except OSError as error:
        pipe.close()
        raise LinkLost(
            f"no adb at {serial}: {error.strerror or error}; check that the phone is on and reachable"
        ) from None
    except BaseException:
        pipe.close()
        raise
    return DirectLink(serial, AdbConnection(pipe, welcome, serial))


def _check(serial: str, welcome: Welcome) -> None:
    if "shell_v2" not in welcome.features:
        raise PhoneNotReady(
            f"{serial} runs an Android that is too old (before 7): measure on a newer phone", "too old"
        )
