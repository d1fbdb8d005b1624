"""A connection to the adb daemon of one Android phone, and what can go wrong with it."""

from __future__ import annotations

import abc
import contextlib
import re
import socket
import time
from dataclasses import dataclass

from orchestrator.wire.errors import DeviceError

SHELL_TIMEOUT_S = 30.0

ACCEPT_TIMEOUT_S = 60.0
"""How long the user has to accept the phone's USB debugging dialog."""

_CHUNK_BYTES = 1 << 16
_EXEC = "exec:("


def is_address(name: str) -> bool:
    """Return whether `name` is host:port, which is what adb calls a phone on the network."""
    match = re.fullmatch(r"(?:\[[\w:%.]+\]|[\w.-]+):(\d{1,5})", name)
    return match is not None and 0 < int(match[1]) < 65536


def service_title(service: str) -> str:
    """Return how messages name a service: a command without what surrounds it, on one line."""
    return service.removeprefix(_EXEC).partition("\n")[0][:80]


class LinkLostError(DeviceError):
    """The phone is gone or does not answer (cable, network, restart); connecting again may help."""


class ServiceRefusedError(DeviceError):
    """The phone answers but does not offer the service: for example, nothing listens on the port."""


class PhoneNotReadyError(DeviceError):
    """The phone is attached but cannot be used yet; `state` is adb's word for the condition."""

    def __init__(self, message: str, state: str) -> None:
        """Make the error for a phone in a state such as `unauthorized`."""
        super().__init__(message, code="phone_not_ready")
        self.state = state


@dataclass(frozen=True)
class ShellResult:
    """Output of a command on the phone, stdout and stderr together, and its exit code."""

    output: bytes
    exit_code: int

    @property
    def text(self) -> str:
        """The output as text, without surrounding white space."""
        return self.output.decode(errors="replace").strip()

    def first_line(self) -> str:
        """Return the first line that is not empty, cut to 200 characters, for use in a message."""
        lines = (line.strip()[:200] for line in self.text.splitlines())
        return next(filter(None, lines), "no message")


class AdbLink(abc.ABC):
    """A connection to one phone that has authorised this computer.

    All methods raise LinkLostError if the phone is gone; the link cannot be used any more then.
    """

    def __init__(self, serial: str) -> None:
        """Remember the phone's serial, which messages name."""
        self.serial = serial

    @abc.abstractmethod
    def open_service(self, service: str) -> socket.socket:
        """Return a blocking socket to a service of the phone's adb daemon, such as `tcp:5000` or `exec:ls`.

        Raises:
            ServiceRefusedError: The phone does not offer the service.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Release the connection."""

    def shell(self, command: str, stdin: bytes = b"", timeout_s: float = SHELL_TIMEOUT_S) -> ShellResult:
        """Run a command to its end.

        Secrets belong in `stdin`: every program on the phone that can list processes can read `command`. The
        command must not wait for the end of its stdin, which stays open.

        Raises:
            LinkLostError: The command did not end within `timeout_s` seconds.
        """
        deadline_s = time.monotonic() + timeout_s
        # `exec:` has no exit code, so the shell prints it on a last line of its own.
        with self.open_service(f"{_EXEC}{command}\n) 2>&1; printf '\\n%s' $?") as sock:
            try:
                sock.settimeout(timeout_s)
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # ended early; it says why
                    sock.sendall(stdin)
                answer = _receive_all(sock, deadline_s)
            except OSError as error:
                raise _lost(self.serial, str(error) or "it does not answer") from None
        output, _, exit_code = answer.rpartition(b"\n")
        if not exit_code.isdigit():
            raise _lost(self.serial, "it disconnected before a command ended")
        return ShellResult(output, int(exit_code))


def _lost(serial: str, reason: str) -> LinkLostError:
    return LinkLostError(f"lost {serial}: {reason}; check its cable or network", code="phone_lost")


def _receive_all(sock: socket.socket, deadline_s: float) -> bytes:
    """Read to the end of the stream; raises TimeoutError at the monotonic `deadline_s`."""
    received = bytearray()
    while True:
        remaining_s = deadline_s - time.monotonic()
        if remaining_s <= 0:
            raise TimeoutError("a command did not end in time")
        sock.settimeout(remaining_s)
        try:
            chunk = sock.recv(_CHUNK_BYTES)
        except ConnectionResetError:  # the command ended without reading all of its input
            chunk = b""
        if not chunk:
            return bytes(received)
        received += chunk
