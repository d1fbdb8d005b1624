"""A lock that keeps two processes from measuring on one device at once: each would see the other as noise.

The lock is released by the operating system when its holder ends, in any way.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from luts.format.files import storage_error
from orchestrator.devices.common.device import Device
from orchestrator.wire.errors import DeviceError

_MAX_COMMAND_CHARACTERS = 200
_FOR_ALL_USERS = 0o666


class DeviceBusyError(DeviceError):
    """Another process measures on the device."""


def lock_path(identity: str) -> Path:
    """Return a device's lock file, in $BLOCKTIME_LOCKS or the temporary folder that all users share."""
    folder = Path(os.environ.get("BLOCKTIME_LOCKS") or tempfile.gettempdir())
    return folder / f"blocktime-{re.sub('[^A-Za-z0-9.-]', '_', identity)}.lock"


@contextmanager
def lock_device(device: Device) -> Iterator[None]:
    """Keep other processes from measuring on the device; without effect for a simulated one.

    Raises:
        DeviceBusyError: Another process measures on it; the message says which.
        StorageError: The lock file cannot be written.
    """
    if not device.identity:
        yield
        return
    path = lock_path(device.identity)
    lock = FileLock(path, timeout=0, mode=_FOR_ALL_USERS)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise DeviceBusyError(
            f"{device.name} is being measured by {_holder(path) or 'another process'}; two at once disturb each "
            "other: wait until it has ended or stop it, then run the same command again",
            code="device_busy",
        ) from None
    except OSError as error:
        raise storage_error(str(path), error, "choose another folder with BLOCKTIME_LOCKS") from error
    try:
        with contextlib.suppress(OSError), path.open("r+", encoding="utf-8") as file:  # may be another user's
            file.truncate()
            file.write(_this_process())
        yield
    finally:
        lock.release()


def _holder(path: Path) -> str:
    with contextlib.suppress(OSError), path.open(encoding="utf-8", errors="replace") as file:
        return file.readline(2 * _MAX_COMMAND_CHARACTERS).strip()
    return ""


def _this_process() -> str:
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:_MAX_COMMAND_CHARACTERS]
    now = datetime.datetime.now().strftime("%H:%M")
    return f"process {os.getpid()} ({' '.join(command.split())}, since {now})\n"
