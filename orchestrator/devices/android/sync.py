"""Sending a file to a phone by adb's sync protocol (AOSP, packages/modules/adb/SYNC.TXT)."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from pathlib import Path

from luts.format.errors import InvalidArtifactError
from orchestrator.devices.android.errors import LinkLost
from orchestrator.devices.android.reading import receive
from orchestrator.wire.errors import DeviceError

# The protocol's bound of a DATA packet.
CHUNK_BYTES = 64 << 10

_HEADER = struct.Struct("<4sI")
_MODE = 0o100644
_STALL_TIMEOUT_S = 60.0
_MAX_REASON_BYTES = 4096


def push(sock: socket.socket, path: Path, remote: str, phone: str) -> None:
    """Writes the file to `remote` over a connection to the service `sync:`.

    InvalidArtifactError where `path` can't be read, DeviceError with the phone's reason where it refuses the file
    (no space, no permission), LinkLost where it goes away or takes nothing for a minute.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise InvalidArtifactError(f"can't read {path}: {error.strerror}; check the path") from None
    with file:
        modified_s = int(path.stat().st_mtime)
        try:
            sock.settimeout(_STALL_TIMEOUT_S)
            target = f"{remote},{_MODE}".encode()
            with contextlib.suppress(
                BrokenPipeError
            ):  # the phone refuses the file; its reason waits to be read
                sock.sendall(_HEADER.pack(b"SEND", len(target)) + target)
                while chunk := file.read(CHUNK_BYTES):
                    sock.sendall(_HEADER.pack(b"DATA", len(chunk)) + chunk)
                sock.sendall(_HEADER.pack(b"DONE", modified_s))
            deadline_s = time.monotonic() + _STALL_TIMEOUT_S
            answer, size_bytes = _HEADER.unpack(receive(sock, _HEADER.size, deadline_s))
            reason = (
                b"" if answer == b"OKAY" else receive(sock, min(size_bytes, _MAX_REASON_BYTES), deadline_s)
            )
        except OSError as error:
            raise LinkLost(
                f"{phone} was lost while {path.name} was sent: {error.strerror or error}; "
                "check its cable or network"
            ) from None
    if answer != b"OKAY":
        raise _refused(phone, path, remote, reason.decode(errors="replace"))


def _refused(phone: str, path: Path, remote: str, reason: str) -> DeviceError:
    if "no space" in reason.casefold():
        return DeviceError(f"the storage of {phone} is full: {path.name} does not fit; free some space there")
    return DeviceError(f"{phone} refused {path.name} at {remote}: {reason}; check that its storage is usable")
