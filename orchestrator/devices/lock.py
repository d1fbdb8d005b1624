"""A lock that keeps two processes from measuring on one device at once: each would see the other as noise."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from luts.format.files import storage_errors
from luts.format.locks import exclusive
from orchestrator.devices.common.device import Device
from orchestrator.wire.errors import DeviceError


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

    def busy(holder: str) -> DeviceBusyError:
        return DeviceBusyError(
            f"{device.name} is being measured by {holder}; two at once disturb each other: wait until it has ended "
            "or stop it, then run the same command again",
            code="device_busy",
        )

    path = lock_path(device.identity)
    with ExitStack() as stack:
        with storage_errors(str(path), "choose another folder with BLOCKTIME_LOCKS"):
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(exclusive(path, busy))
        yield
