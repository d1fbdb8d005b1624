"""Phones held by an adb server, which is started if none runs."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
from dataclasses import dataclass

from adbutils import AdbClient, AdbError, AdbTimeout, adb_path

from orchestrator.devices.android.link import (
    AdbLink,
    LinkLostError,
    PhoneNotReadyError,
    ServiceRefusedError,
    is_address,
    service_title,
)

DEFAULT_PORT = 5037

_ANSWER_TIMEOUT_S = 20.0
_PROBE_TIMEOUT_S = 2.0
_NETWORK_TIMEOUT_S = 5.0
# The server waits up to 3 s for the phones on USB before it says that it is ready.
_START_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class AdbServer:
    """An adb server at `host:port`. Methods raise LinkLostError if it does not answer."""

    host: str
    port: int

    @classmethod
    def from_environment(cls) -> AdbServer:
        """Return the server that adb itself would use.

        That is ADB_SERVER_SOCKET=tcp:[host:]port, else ANDROID_ADB_SERVER_ADDRESS and ANDROID_ADB_SERVER_PORT.
        """
        spec = re.fullmatch(r"tcp:(?:(.+):)?(\d+)", os.environ.get("ADB_SERVER_SOCKET", ""))
        if spec:
            return cls(spec[1] or "127.0.0.1", int(spec[2]))
        port = os.environ.get("ANDROID_ADB_SERVER_PORT", "")
        host = os.environ.get("ANDROID_ADB_SERVER_ADDRESS", "127.0.0.1")
        return cls(host, int(port) if port.isdigit() else DEFAULT_PORT)

    @property
    def is_local(self) -> bool:
        """Whether the server is one of this computer, so that it can be started here."""
        return self.host in ("127.0.0.1", "localhost", "::1")

    def answers(self) -> bool:
        """Return whether something listens at the address."""
        try:
            socket.create_connection((self.host, self.port), _PROBE_TIMEOUT_S).close()
        except OSError:
            return False
        return True

    def start(self) -> bool:
        """Start the server with the adb program on PATH, else with the one that adbutils brings.

        Returns False if there is no such program for this computer or it fails.
        """
        try:
            command = [adb_path(), "-P", str(self.port), "start-server"]
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_START_TIMEOUT_S,
                start_new_session=True,  # Ctrl-C in this terminal must not end a server that others use by then
                check=False,
            )
        except (AdbError, OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0 and self.answers()

    def list_states(self) -> dict[str, str]:
        """Return adb's word for the state of each phone, by serial: `device` if it can be used."""
        try:
            listed = self._client().list(extended=True)
        except (AdbError, OSError) as error:
            raise LinkLostError(
                f"the adb server at {self.host}:{self.port} does not answer ({error}): run `adb start-server`",
                code="adb_server_lost",
            ) from None
        # `no permissions (…)` is the only state of several words.
        return {phone.serial: "no permissions" if phone.state == "no" else phone.state for phone in listed}

    def add_network_phone(self, address: str) -> None:
        """Have the server connect to the phone at `host:port`, now if it lost it; without effect if none answers.

        On its own the server tries a lost phone again only every ten seconds.
        """
        with contextlib.suppress(AdbError, OSError, LinkLostError):
            state = self.list_states().get(address)
            if state == "offline":
                self._client().disconnect(address)
            if state in (None, "offline"):
                self._client().connect(address, timeout=_NETWORK_TIMEOUT_S)

    def open_transport(self, serial: str, service: str) -> socket.socket:
        """Return a socket to a service of the phone; see `ServerLink.open_service` for errors."""
        try:
            connection = self._client().device(serial).open_transport(timeout=_ANSWER_TIMEOUT_S)
        except (AdbError, OSError) as error:
            raise self._unreachable(serial, str(error)) from None
        try:
            connection.send_command(service)
            connection.check_okay()
        except AdbTimeout as error:
            connection.close()
            if is_address(serial):  # the server would wait for it for ever, and not connect to it again
                with contextlib.suppress(AdbError, OSError):
                    self._client().disconnect(serial)
            raise self._unreachable(serial, str(error)) from None
        except (AdbError, OSError) as error:
            connection.close()
            raise self._refused(serial, service, str(error)) from None
        sock: socket.socket = connection.conn
        sock.settimeout(None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def _client(self) -> AdbClient:
        return AdbClient(self.host, self.port, socket_timeout=_ANSWER_TIMEOUT_S)

    def _refused(self, serial: str, service: str, reason: str) -> Exception:
        """Tell a phone that refuses a service from one that is gone: the server says `closed` for both."""
        with contextlib.suppress(LinkLostError):
            if self.list_states().get(serial) == "device":
                return ServiceRefusedError(
                    f"{serial} refused {service_title(service)}: {reason.strip() or 'nothing listens there'}",
                    code="service_refused",
                )
        return self._unreachable(serial, reason)

    def _unreachable(self, serial: str, reason: str) -> LinkLostError | PhoneNotReadyError:
        for state in ("unauthorized", "no permissions"):
            if state in reason:
                return PhoneNotReadyError(f"{serial} is {state}: see `bench devices`", state)
        lines = reason.strip().splitlines() or ["it gave no reason"]
        return LinkLostError(
            f"the adb server does not reach {serial}: {lines[0]}; check its cable or network",
            code="phone_lost",
        )


def running_server() -> AdbServer | None:
    """Return the adb server that runs or could be started; None if there is none."""
    server = AdbServer.from_environment()
    if server.answers() or (server.is_local and server.start()):
        with contextlib.suppress(LinkLostError):  # something else listens there
            server.list_states()
            return server
    return None


class ServerLink(AdbLink):
    """A phone held by an adb server; each service has its own connection to the server."""

    def __init__(self, serial: str, server: AdbServer) -> None:
        """Link to the phone that `server` holds under `serial`."""
        super().__init__(serial)
        self._server = server

    def open_service(self, service: str) -> socket.socket:
        """Open a connection to the server; see `AdbLink.open_service`."""
        return self._server.open_transport(self.serial, service)

    def close(self) -> None:
        """Do nothing: no connection is kept between services."""
