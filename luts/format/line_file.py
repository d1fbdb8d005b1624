"""A file that grows by whole lines, written by one process: each is on the disk before anything else happens."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from luts.format.atomic_file import storage_error
from luts.format.errors import BlocktimeError


class LineFile:
    """A file that is made where there is none, and locked until it is closed.

    `scan` reads what is there and returns the offset behind the last whole line; what follows was being written
    when a process was ended, and is cut off. In messages stand `writers`, who else may write it, `elsewhere`, what
    to do where it can't be made, and `again`, what to do once there is room.

    Raises:
        StorageError: it can't be made.
        BlocktimeError: another process writes it; and whatever `scan` raises.
    """

    def __init__(self, path: Path, scan: Callable[[], int], *, writers: str, elsewhere: str, again: str):
        self.path, self._again = path, again
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = path.open("a+b", buffering=0)
        except OSError as error:
            raise storage_error(f"cannot write {path}", error, elsewhere) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._size = scan()
            if self._size != path.stat().st_size:
                self._file.truncate(self._size)
        except BlockingIOError:
            self._file.close()
            raise BlocktimeError(f"{path} is being written by {writers}; wait for it or stop it") from None
        except BaseException:
            self._file.close()
            raise

    def append(self, line: bytes) -> None:
        """Write a line and wait until it is on the disk; BlocktimeError leaves the file as it was."""
        try:
            view = memoryview(line)
            while view:
                view = view[self._file.write(view) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(self._size)
            raise BlocktimeError(
                f"{self.path}: cannot write ({error.strerror}); free some space and {self._again}"
            ) from error
        self._size += len(line)

    def close(self) -> None:
        """Release the file."""
        self._file.close()
