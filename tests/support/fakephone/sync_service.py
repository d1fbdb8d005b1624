"""The file service `sync:` (AOSP SYNC.TXT): stat, list, send and receive, in their first and second versions."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path

from tests.support.fakephone.folders import Folders
from tests.support.fakephone.stream import Stream, StreamClosed

_REQUEST = struct.Struct("<4sI")
_STAT_V1 = struct.Struct("<4sIII")
_STAT_V2 = struct.Struct("<4sIQQIIIIQqqq")
_DENT_TAIL = struct.Struct("<I")
_MAX_PATH_BYTES = 1024
_MAX_DATA_BYTES = 64 * 1024


class SyncFailed(Exception):
    """Why a file was not taken, as the client is told."""


class SyncService:
    """Serves one `sync:` stream; `free_bytes` tells how much may be written yet, None for any amount."""

    def __init__(self, stream: Stream, folders: Folders, free_bytes: Callable[[], int | None]) -> None:
        self._stream = stream
        self._folders = folders
        self._free_bytes = free_bytes
        self._received = bytearray()

    def serve(self) -> None:
        """Answers requests until QUIT, the end of the stream, or one that it doesn't know."""
        while True:
            name, size = _REQUEST.unpack(self._take(_REQUEST.size))
            if name == b"QUIT":
                return
            if size > _MAX_PATH_BYTES:
                self._fail("path too long")
                return
            path = self._take(size).decode("utf-8", "surrogateescape")
            if name in (b"STAT", b"STA2", b"LST2"):
                self._stream.write(self._stat(name, path))
            elif name in (b"LIST", b"LIS2"):
                self._list(name, path)
            elif name == b"RECV":
                self._receive(path)
            elif name == b"SEND":
                self._send(path)
            else:
                self._fail(f"unknown command {int.from_bytes(name, 'little'):x}")
                return

    def _take(self, size: int) -> bytes:
        while len(self._received) < size:
            part = self._stream.read()
            if not part:
                raise StreamClosed
            self._received += part
        data = bytes(self._received[:size])
        del self._received[:size]
        return data

    def _fail(self, why: str) -> None:
        self._stream.write(_REQUEST.pack(b"FAIL", len(why.encode())))
        self._stream.write(why.encode())

    def _stat(self, name: bytes, path: str) -> bytes:
        try:
            found = self._folders.local(path)
            result = found.lstat() if name == b"LST2" else found.stat()
        except OSError as error:
            return _stat_reply(name, None, error.errno or errno.EIO)
        return _stat_reply(name, result, 0)

    def _list(self, request: bytes, path: str) -> None:
        kind, stat_name = (b"DENT", b"STAT") if request == b"LIST" else (b"DNT2", b"LST2")
        try:
            folder = self._folders.local(path)
            names = [".", "..", *sorted(entry.name for entry in folder.iterdir())]
        except OSError:
            names = []
        for name in names:
            head = kind + _stat_reply(stat_name, os.lstat(folder / name), 0)[4:]
            self._stream.write(head + _DENT_TAIL.pack(len(os.fsencode(name))))
            self._stream.write(os.fsencode(name))
        end = _stat_reply(stat_name, None, 0)[4:]
        self._stream.write(b"DONE" + end + _DENT_TAIL.pack(0))

    def _receive(self, path: str) -> None:
        try:
            with self._folders.local(path).open("rb") as file:
                while part := file.read(_MAX_DATA_BYTES):
                    self._stream.write(_REQUEST.pack(b"DATA", len(part)) + part)
        except OSError as error:
            step = "read" if isinstance(error, IsADirectoryError) else "open"
            self._fail(f"{step} failed: {error.strerror}")
            return
        self._stream.write(_REQUEST.pack(b"DONE", 0))

    def _send(self, path_and_mode: str) -> None:
        """Writes what the client sends to a file. On a failure it tells so at once, reads on, and ends."""
        path, comma, mode = path_and_mode.rpartition(",")
        if not comma:
            self._fail("missing , in ID_SEND_V1")
            raise StreamClosed
        # As adbd does: what is no number is 0, and group and others may do what the owner may.
        owner = int(mode) & stat.S_IRWXU if mode.isdecimal() else 0
        target: Path | None = None
        try:
            target = self._create(path)
            while (message := self._take_message())[0] == b"DATA":
                self._append(target, self._take(message[1]))
            if message[0] != b"DONE":
                raise SyncFailed("invalid data message")
        except SyncFailed as failure:
            if target is not None:
                target.unlink()
            self._fail(str(failure))
            self._drain()
            raise StreamClosed from None
        target.chmod(owner | owner >> 3 | owner >> 6)
        os.utime(target, (message[1], message[1]))
        self._stream.write(_REQUEST.pack(b"OKAY", 0))

    def _create(self, path: str) -> Path:
        try:
            target = self._folders.local(path)
            with contextlib.suppress(FileExistsError):
                target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            target.touch()
        except OSError as error:
            raise SyncFailed(f"couldn't create file: {error.strerror}") from None
        return target

    def _append(self, target: Path, part: bytes) -> None:
        free_bytes = self._free_bytes()
        if free_bytes is not None and target.stat().st_size + len(part) > free_bytes:
            raise SyncFailed("write failed: No space left on device")
        with target.open("ab") as file:
            file.write(part)

    def _take_message(self) -> tuple[bytes, int]:
        name, size = _REQUEST.unpack(self._take(_REQUEST.size))
        if name == b"DATA" and size > _MAX_DATA_BYTES:
            raise SyncFailed("oversize data message")
        return name, size

    def _drain(self) -> None:
        """A client that is still writing would not read the failure if the stream ended now."""
        while (message := _REQUEST.unpack(self._take(_REQUEST.size)))[0] == b"DATA":
            if message[1] > _MAX_DATA_BYTES:
                return
            self._take(message[1])


def _stat_reply(name: bytes, found: os.stat_result | None, error: int) -> bytes:
    """What STAT (v1, 32 bits) or STA2 and LST2 (v2) answer; zeros for what isn't there."""
    if name == b"STAT":
        if found is None:
            return _STAT_V1.pack(name, 0, 0, 0)
        return _STAT_V1.pack(
            name, found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime) & 0xFFFFFFFF
        )
    if found is None:
        return _STAT_V2.pack(name, error, *[0] * 10)
    times = (int(found.st_atime), int(found.st_mtime), int(found.st_ctime))
    owner = (found.st_uid, found.st_gid)
    head = (found.st_dev, found.st_ino, found.st_mode, found.st_nlink)
    return _STAT_V2.pack(name, error, *head, *owner, found.st_size, *times)
