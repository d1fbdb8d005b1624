"""Files: written atomically, read as validated JSON, or appended to line by line."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

from pydantic import BaseModel, ValidationError

from luts.format.errors import BlocktimeError, InvalidArtifactError, StorageError, UsageError, first_problem

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


Model = TypeVar("Model", bound=BaseModel)


def read_bytes(path: Path, max_bytes: int, remedy: str) -> bytes:
    """A whole file, of any kind.

    Raises:
        InvalidArtifactError: missing, which ends with `remedy`, or over `max_bytes`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise InvalidArtifactError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    if len(data) > max_bytes:
        raise InvalidArtifactError(f"{path}: over {max_bytes} bytes; is this the right file?")
    return data


def read_json(path: Path, model: type[Model], max_bytes: int, remedy: str) -> Model:
    """A value from its JSON file.

    Raises:
        InvalidArtifactError: missing, over `max_bytes` or against the schema; ends with `remedy`.
    """
    data = read_bytes(path, max_bytes, remedy)
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise InvalidArtifactError(f"{path}: invalid ({first_problem(error, 'JSON')}); {remedy}") from error


def write_json(path: Path, document: object) -> None:
    """Write a JSON file, all or nothing; `StorageError` where that fails."""
    write_text(path, json.dumps(document, indent=1) + "\n")


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
