"""Files: written whole, read as validated JSON, or appended to; locked folders; where this user's data is."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Self, TypeVar

from platformdirs.unix import Unix
from pydantic import BaseModel, ValidationError

from luts.format.errors import BlocktimeError, InvalidArtifactError, StorageError, UsageError, first_problem
from luts.format.locks import exclusive, one_at_a_time


def data_folder() -> Path:
    """Return $XDG_DATA_HOME/blocktime, by default ~/.local/share/blocktime; it need not exist.

    The folders follow the XDG specification on every system, so that runs of earlier versions are found.
    """
    return Path(Unix("blocktime").user_data_dir)


def cache_folder() -> Path:
    """Return $XDG_CACHE_HOME/blocktime, by default ~/.cache/blocktime; it need not exist."""
    return Path(Unix("blocktime").user_cache_dir)


LOCK_FILE = ".lock"
"""Name of a folder's lock."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def storage_error(what: str, error: OSError, elsewhere: str = "choose another place") -> StorageError:
    """Return an error `what: reason; remedy`; the remedy is to free space if the disk is full, else `elsewhere`."""
    full = error.errno in _FULL
    remedy = "free some space and repeat" if full else elsewhere
    code = "disk_full" if full else "not_writable"
    return StorageError(f"{what}: {error.strerror or error}; {remedy}", code=code)


@contextlib.contextmanager
def storage_errors(what: str, elsewhere: str = "choose another place") -> Iterator[None]:
    """Raise the `storage_error` of an `OSError` within the context."""
    try:
        yield
    except OSError as error:
        raise storage_error(what, error, elsewhere) from error


def check_writable(file: Path) -> None:
    """Check before the work that a file can be written; its folders need not exist yet.

    Raises:
        UsageError: It is a folder or a device, or a part of its path is a file.
        StorageError: No permission to write there.
    """
    if file.exists() and not file.is_file():
        kind = "a folder" if file.is_dir() else "not a file"
        raise UsageError(f"{file} is {kind}; give a file's name", code="not_a_file")
    check_folder(file.parent)


def check_folder(folder: Path, elsewhere: str = "choose another place") -> None:
    """Check that files can be written to a folder, as `check_writable`; messages end with `elsewhere`."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise UsageError(f"{folder} can't be a folder: {there} is a file; {elsewhere}", code="not_a_folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise StorageError(
            f"{folder} can't be written: no permission in {there}; {elsewhere}", code="not_writable"
        )


class FolderBusyError(BlocktimeError):
    """Another process writes to the folder."""


@contextlib.contextmanager
def exclusive_folder(folder: Path) -> Iterator[None]:
    """Create a folder and keep other processes from writing there; without effect on file systems without locks.

    Raises:
        FolderBusyError: Another process writes there; the message says which.
        StorageError: The folder can't be created or written.
    """

    def busy(holder: str) -> FolderBusyError:
        return FolderBusyError(
            f"{folder} is being written by {holder}; wait until it has ended, stop it, or choose another folder",
            code="folder_busy",
        )

    with ExitStack() as stack:
        with storage_errors(f"cannot write to {folder}", "choose another folder"):
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(exclusive(folder / LOCK_FILE, busy, optional=True))
        yield


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file completely or not at all, creating its folder; on `OSError` the old file remains."""
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
    """Write a text file completely or not at all; raises StorageError."""
    with storage_errors(f"cannot write {path}"):
        write_atomically(path, text.encode())


def write_read_only(path: Path, content: bytes) -> None:
    """Write a read-only file and wait until it is on the disk; raises `OSError`."""
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    path.chmod(0o444)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


Model = TypeVar("Model", bound=BaseModel)


def read_bytes(path: Path, max_bytes: int, remedy: str) -> bytes:
    """Return the content of a file.

    Raises InvalidArtifactError: it is missing (the message ends with `remedy`) or larger than `max_bytes`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise InvalidArtifactError(
            f"{path}: cannot be read ({error.strerror}); {remedy}", code="unreadable_file"
        ) from error
    if len(data) > max_bytes:
        raise InvalidArtifactError(
            f"{path}: over {max_bytes} bytes; is this the right file?", code="file_too_large"
        )
    return data


def read_json(path: Path, model: type[Model], max_bytes: int, remedy: str) -> Model:
    """Return the value of a JSON file.

    Raises InvalidArtifactError: it is missing, larger than `max_bytes` or invalid; ends with `remedy`.
    """
    data = read_bytes(path, max_bytes, remedy)
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise InvalidArtifactError(
            f"{path}: invalid ({first_problem(error, 'JSON')}); {remedy}", code="invalid_file"
        ) from error


def write_json(path: Path, document: object) -> None:
    """Write a JSON file completely or not at all; raises `StorageError`."""
    write_text(path, json.dumps(document, indent=1) + "\n")


MAX_APPENDED_BYTES = 8 << 30
"""Largest append-only file that is opened."""

MAX_LINE_BYTES = 64 << 20
"""Longest line that is read: the journal's line for 200,000 samples has under 3 MiB."""


def read_lines(
    path: Path, accept: Callable[[bytes], bool], remedy: str, *, first_byte: int = 0, lines_before: int = 0
) -> tuple[int, int]:
    """Read the lines of an append-only file; a last line that a killed writer left unfinished is ignored.

    Args:
        path: The file.
        accept: Called with every line in order; returns False for a damaged line, and may raise its own error.
        remedy: End of the message about a damaged line: what to do.
        first_byte: Offset of the first line to read.
        lines_before: Number of lines before that offset, for messages.

    Returns:
        The offset after the last good line, and the number of lines before it.

    Raises:
        InvalidArtifactError: The file is unreadable, too large, or damaged before its last line.
    """
    end, number = first_byte, lines_before
    try:
        if path.stat().st_size > MAX_APPENDED_BYTES:
            raise InvalidArtifactError(
                f"{path}: over {MAX_APPENDED_BYTES >> 30} GiB, this file was not written by `bench`; {remedy}",
                code="file_too_large",
            )
        with path.open("rb") as file:
            file.seek(first_byte)
            while line := file.readline(MAX_LINE_BYTES):
                if not line.endswith(b"\n") or not accept(line):
                    if file.read(1):
                        raise InvalidArtifactError(
                            f"{path}: line {number + 1} is damaged; {remedy}", code="damaged_file"
                        )
                    break
                end += len(line)
                number += 1
    except OSError as error:
        raise InvalidArtifactError(
            f"{path}: cannot be read ({error.strerror}); {remedy}", code="unreadable_file"
        ) from error
    return end, number


DAMAGED_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, UnicodeDecodeError)
"""What `zipfile` raises for damaged archives; RuntimeError for encryption, UnicodeDecodeError for names."""


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open an archive whose entries are all stored or deflated, and not larger than the file.

    Memory is taken by what is written there: LZMA's own header may ask for 4 GiB. Raises OSError, or what
    `DAMAGED_ZIP` names.
    """
    archive, known = zipfile.ZipFile(path), (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    for entry in archive.infolist():
        if entry.compress_type not in known or entry.compress_size > path.stat().st_size:
            archive.close()
            raise zipfile.BadZipFile(f"{entry.filename[:80]!r} is neither stored nor deflated, or too long")
    return archive


class Closeable(ABC):
    """A resource that is closed at the end of a `with` block."""

    @abstractmethod
    def close(self) -> None:
        """Release the resource."""

    def __enter__(self) -> Self:
        """Return the resource."""
        return self

    def __exit__(self, *_: object) -> None:
        """Release the resource."""
        self.close()


class AppendFile:
    """A file of one record a line that only grows; created if missing.

    `.NAME.lock` locks the file from opening to `close`; if it is `shared` between processes, `locked` alone does,
    which first reads what others have appended.
    """

    def __init__(
        self,
        path: Path,
        accept: Callable[[bytes], bool],
        *,
        remedy: str,
        elsewhere: str,
        again: str,
        shared: bool = False,
        durable: bool = True,
    ) -> None:
        """Open the file and read it; its folder is created.

        Args:
            path: The file.
            accept: Called with every line in order, see `read_lines`.
            remedy: What to do if a line is damaged.
            elsewhere: What to do if the file cannot be created.
            again: What to do once there is space on the disk.
            shared: Whether several processes append in turn.
            durable: Whether `append` waits until the line is on the disk.

        Raises:
            StorageError: The file cannot be created.
            InvalidArtifactError: The file is damaged before its last line.
            BlocktimeError: Another process writes the file (not if `shared`); the message says which.
        """
        self.path, self._accept, self._again = path, accept, again
        self._remedy, self._durable = remedy, durable
        self._end = self._lines = 0
        with ExitStack() as stack:
            with storage_errors(f"cannot write {path}", elsewhere):
                path.parent.mkdir(parents=True, exist_ok=True)
                if not shared:
                    lock = path.with_name(f".{path.name}.lock")
                    stack.enter_context(exclusive(lock, self._busy, optional=True))
                self._file: BinaryIO = stack.enter_context(path.open("a+b", buffering=0))
            with self.locked() if shared else contextlib.nullcontext():
                self._read_on()
            self._opened = stack.pop_all()

    def _busy(self, holder: str) -> BlocktimeError:
        return BlocktimeError(
            f"{self.path} is being written by {holder}; wait until it has ended or stop it",
            code="file_in_use",
        )

    def _read_on(self) -> None:
        """Read the lines since the last reading; cut off a line that a killed writer left unfinished."""
        if self.path.stat().st_size < self._end:
            raise InvalidArtifactError(
                f"{self.path}: was truncated while it was in use; repeat the command", code="damaged_file"
            )
        self._end, self._lines = read_lines(
            self.path, self._accept, self._remedy, first_byte=self._end, lines_before=self._lines
        )
        if self._end != self.path.stat().st_size:
            self._file.truncate(self._end)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock a shared file, with all its lines read, to append to it."""
        with one_at_a_time(self.path):
            self._read_on()
            yield

    def append(self, line: bytes) -> None:
        """Write a line, and wait until it is on the disk (if `durable`).

        Raises StorageError: the disk is full; the file is as before.
        """
        try:
            view = memoryview(line)
            while view:
                view = view[self._file.write(view) :]
            if self._durable:
                os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(self._end)
            raise StorageError(
                f"{self.path}: cannot write ({error.strerror}); free some space and {self._again}",
                code="disk_full",
            ) from error
        self._end += len(line)
        self._lines += 1

    def close(self) -> None:
        """Release the file."""
        self._opened.close()
