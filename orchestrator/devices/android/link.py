"""What the rest of this package needs of an adb connection, whoever makes it."""

from __future__ import annotations

import abc
import socket
from pathlib import Path

from orchestrator.devices.android import shell, sync
from orchestrator.devices.android.shell import ShellResult

SHELL_TIMEOUT_S = 30.0


class AdbLink(abc.ABC):
    """A phone that lets this computer in. `label` is how errors call it.

    All methods raise LinkLost where the phone is gone; the link is then of no more use.
    """

    def __init__(self, serial: str, label: str) -> None:
        self.serial = serial
        self.label = label

    @abc.abstractmethod
    def open_service(self, service: str) -> socket.socket:
        """A blocking socket to a service of adbd. ServiceRefused where the phone does not offer it."""

    @abc.abstractmethod
    def close(self) -> None:
        """Frees what the link holds."""

    def open_socket(self, port: int) -> socket.socket:
        """A socket to a port of the phone's loopback. ServiceRefused where nothing listens."""
        return self.open_service(f"tcp:{port}")

    def shell(self, command: str, stdin: bytes = b"", timeout_s: float = SHELL_TIMEOUT_S) -> ShellResult:
        """Runs a command to its end; LinkLost where it is not done in time.

        Whoever can list the phone's processes can read `command`: secrets belong into `stdin`.
        """
        with self.open_service(shell.service_of(command)) as sock:
            return shell.converse(sock, command, stdin, timeout_s, self.label)

    def push(self, path: Path, remote: str) -> None:
        """Writes a file to the phone; DeviceError with its reason where it refuses it."""
        with self.open_service("sync:") as sock:
            sync.push(sock, path, remote, self.label)
