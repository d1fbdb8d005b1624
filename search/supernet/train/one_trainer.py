"""One training in a folder at a time: two would write over each other's checkpoints and log."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from luts.format.atomic_file import storage_error
from luts.format.errors import BlocktimeError


class BusyFolderError(BlocktimeError):
    """Another process trains there."""


@contextmanager
def only_training(folder: Path) -> Iterator[None]:
    """Within, no other process trains in `folder`, which is made where there is none.

    The folder itself is locked, so that nothing is left behind; the system lets it go when this process ends, in
    whatever way. Where a file system has no locks, nothing is held.

    Raises:
        BusyFolderError: another process trains there.
        StorageError: the folder can't be made or opened.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise storage_error(f"cannot train in {folder}", error, "choose another folder") from error
    try:
        _lock(opened, folder)
        yield
    finally:
        os.close(opened)


def _lock(opened: int, folder: Path) -> None:
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BusyFolderError(
            f"another process trains in {folder}; wait for it, stop it, or choose another folder"
        ) from None
    except OSError:
        return  # no locks on this file system
