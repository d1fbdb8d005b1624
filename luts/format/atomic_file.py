"""Writing whole files safely, and what to say where that fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from luts.format.errors import StorageError, UsageError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def storage_error(what: str, error: OSError, elsewhere: str = "choose another place") -> StorageError:
    """`what: why; what to do`: room where it is missing, otherwise `elsewhere`."""
    remedy = "free some space and repeat" if error.errno in _FULL else elsewhere
    return StorageError(f"{what}: {error.strerror or error}; {remedy}")


def check_writable(file: Path) -> None:
    """Find out before the work whether a file can be written, in folders that need not exist yet.

    Raises:
        UsageError: it is a folder or a device, or lies in what is not a folder.
        StorageError: there is no permission to write there.
    """
    if file.exists() and not file.is_file():
        raise UsageError(f"{file} is {'a folder' if file.is_dir() else 'not a file'}; give a file's name")
    check_folder(file.parent)


def check_folder(folder: Path, elsewhere: str = "choose another place") -> None:
    """As `check_writable` for a folder into which files will go; messages end with `elsewhere`."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise UsageError(f"{folder} can't be a folder: {there} is a file; {elsewhere}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise StorageError(f"{folder} can't be written: no permission in {there}; {elsewhere}")


def write_atomically(path: Path, data: bytes) -> None:
    """Write all or nothing, making the directory; `OSError` leaves what was there before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, all or nothing.

    Raises:
        StorageError: the file system refused.
    """
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise storage_error(f"cannot write {path}", error) from error


def write_read_only(path: Path, content: bytes) -> None:
    """Write a file that nobody is to change, on the disk when this returns; `OSError` where that fails."""
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    path.chmod(0o444)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
