"""One measurement on a device at a time: two that share it would each see the other as noise.

A lock is a file that is locked, not one that exists: the system lets it go when its holder ends, in whatever
way.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from luts.format.files import storage_error
from orchestrator.devices.common.device import Device
from orchestrator.wire.errors import DeviceError

MAX_HOLDER_CHARACTERS = 200

_FOR_ALL_USERS = 0o666


class BusyError(DeviceError):
    """Another process measures on the device."""


def lock_path(identity: str) -> Path:
    """Of a device; in $BLOCKTIME_LOCKS, else where all users of this machine have their temporary files."""
    folder = Path(os.environ.get("BLOCKTIME_LOCKS") or tempfile.gettempdir())
    return folder / f"blocktime-{re.sub('[^A-Za-z0-9.-]', '_', identity)}.lock"


@contextmanager
def held(device: Device) -> Iterator[None]:
    """Within, no other process measures on the device; a simulated one is for everybody.

    Raises:
        BusyError: one does; names it.
        StorageError: there is no place for locks.
    """
    if not device.identity:
        yield
        return
    path = lock_path(device.identity)
    try:
        lock = _open(path)
    except OSError as error:
        raise storage_error(str(path), error, "give another folder with BLOCKTIME_LOCKS") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 4 * MAX_HOLDER_CHARACTERS, 0).decode(errors="replace").strip()
            raise BusyError(
                f"{device.name} is being measured by {holder or 'another process'}; two at once disturb each "
                "other: wait until it has ended or stop it, then run the same command again"
            ) from None
        with contextlib.suppress(
            OSError
        ):  # a file of another user's, who kept it to himself, can still be locked
            os.ftruncate(lock, 0)
            os.pwrite(lock, _this_process().encode(), 0)
        yield
    finally:
        os.close(lock)


def _open(path: Path) -> int:
    """A symbolic link, which somebody else may have put there, is not followed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, _FOR_ALL_USERS)
        os.fchmod(lock, _FOR_ALL_USERS)
        return lock
    try:
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except PermissionError:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)


def _this_process() -> str:
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:MAX_HOLDER_CHARACTERS]
    now = datetime.datetime.now().strftime("%H:%M")
    return f"process {os.getpid()} ({' '.join(command.split())}, since {now})\n"
