"""Commands on a phone by adb's shell protocol, version 2: output, exit code and a stdin of its own.

Packets of u8 kind, u32 little-endian length and data (AOSP, packages/modules/adb/shell_protocol.h).
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from dataclasses import dataclass

from orchestrator.devices.android.errors import LinkLost
from orchestrator.devices.android.reading import receive

MAX_OUTPUT_BYTES = 4 << 20

# More could fill the pipes of both sides while nobody reads.
MAX_STDIN_BYTES = 16 << 10

_HEADER = struct.Struct("<BI")
_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = 0, 1, 2, 3, 4
_MAX_PACKET_BYTES = 1 << 20


@dataclass(frozen=True)
class ShellResult:
    """What a command printed (stdout and stderr as they came, at most MAX_OUTPUT_BYTES) and its exit code."""

    output: bytes
    exit_code: int

    @property
    def text(self) -> str:
        return self.output.decode(errors="replace").strip()


def service_of(command: str) -> str:
    """The adb service that runs `command` without a terminal."""
    return f"shell,v2,raw:{command}"


def converse(sock: socket.socket, command: str, stdin: bytes, timeout_s: float, phone: str) -> ShellResult:
    """Speaks with a command that was started over `sock`, until it ends.

    ValueError for more than MAX_STDIN_BYTES of `stdin`. LinkLost where the phone goes away, or the command
    is not done in time.
    """
    if len(stdin) > MAX_STDIN_BYTES:
        raise ValueError(f"a command takes at most {MAX_STDIN_BYTES} bytes of stdin")
    deadline_s = time.monotonic() + timeout_s
    output = bytearray()
    try:
        sock.settimeout(timeout_s)
        with contextlib.suppress(
            BrokenPipeError
        ):  # the command has ended already; its answer waits to be read
            if stdin:
                sock.sendall(_HEADER.pack(_STDIN, len(stdin)) + stdin)
            sock.sendall(_HEADER.pack(_CLOSE_STDIN, 0))
        while True:
            kind, size_bytes = _HEADER.unpack(receive(sock, _HEADER.size, deadline_s))
            if size_bytes > _MAX_PACKET_BYTES:
                raise LinkLost(f"{phone} broke adb's shell protocol with a packet of {size_bytes} bytes")
            data = receive(sock, size_bytes, deadline_s)
            if kind in (_STDOUT, _STDERR):
                output += data[: MAX_OUTPUT_BYTES - len(output)]
            elif kind == _EXIT:
                return ShellResult(bytes(output), data[0] if data else 255)
    except TimeoutError:
        raise LinkLost(
            f"{phone} did not finish `{_short(command)}` within {timeout_s:.0f} s; wake it and try again"
        ) from None
    except OSError as error:
        raise LinkLost(
            f"{phone} was lost during `{_short(command)}`: {error.strerror or error}; check its cable or network"
        ) from None


def _short(command: str) -> str:
    return command if len(command) <= 60 else command[:59] + "…"
