"""Locks between processes, each of which names its holder to a process that is refused.

The operating system releases a lock when its holder ends in any way: the file of a killed process is no obstacle.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from luts.format.errors import BlocktimeError

_MAX_COMMAND_CHARACTERS = 200
_FOR_ALL_USERS = 0o666

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""Errors of file systems without locks, such as Lustre mounted without `flock`."""


@contextmanager
def exclusive(path: Path, busy: Callable[[str], BlocktimeError], *, optional: bool = False) -> Iterator[None]:
    """Hold a lock file, whose folder exists, until the end.

    Args:
        path: The lock file; a symbolic link is not followed.
        busy: Makes the error from the name of the process that holds the lock.
        optional: Whether the block runs without a lock on file systems that have none.

    Raises:
        BlocktimeError: Another process holds the lock.
        OSError: The file can't be written, or (unless `optional`) the file system has no locks.
    """
    lock = _lock(path)
    try:
        _acquire(lock, 0, optional)
    except Timeout:
        raise busy(_holder(path) or "another process") from None
    try:
        with contextlib.suppress(OSError), path.open("r+", encoding="utf-8") as file:  # may be another user's
            file.truncate()
            file.write(_this_process())
        yield
    finally:
        lock.release()


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Wait until no other process has the lock file, and hold it; without effect on file systems without locks."""
    lock = _lock(path)
    _acquire(lock, -1, optional=True)
    try:
        yield
    finally:
        lock.release()


def _lock(path: Path) -> FileLock:
    # filelock's fallback for file systems without locks takes any file that exists for a lock; a file of accuracies
    # is its own lock.
    return FileLock(path, mode=_FOR_ALL_USERS, thread_local=False, fallback_to_soft=False)


def _acquire(lock: FileLock, timeout_s: float, optional: bool) -> None:
    try:
        lock.acquire(timeout=timeout_s)
    except OSError as error:
        if not optional or error.errno not in _NO_LOCKS:
            raise


def _holder(path: Path) -> str:
    with contextlib.suppress(OSError), path.open(encoding="utf-8", errors="replace") as file:
        return file.readline(2 * _MAX_COMMAND_CHARACTERS).strip()
    return ""


def _this_process() -> str:
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:_MAX_COMMAND_CHARACTERS]
    now = datetime.datetime.now().strftime("%H:%M")
    return f"process {os.getpid()} ({' '.join(command.split())}, since {now})\n"
