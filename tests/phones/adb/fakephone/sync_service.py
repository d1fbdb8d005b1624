"""The file service `sync:` (AOSP SYNC.TXT): stat, list, send and receive, in their first and second versions."""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path

from fakephone.folders import Folders
from fakephone.stream import Stream, StreamClosed

_REQUEST = struct.Struct("<4sI")
_STAT_V1 = struct.Struct("<4sIII")
_STAT_V2 = struct.Struct("<4sIQQIIIIQqqq")
_DENT_TAIL = struct.Struct("<I")
_MAX_PATH_BYTES = 1024
_MAX_DATA_BYTES = 64 * 1024


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
                self._fail(f"unknown command {name!r}")
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
        self._stream.write(_REQUEST.pack(b"FAIL", len(why.encode())) + why.encode())

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
            self._stream.write(head + _DENT_TAIL.pack(len(os.fsencode(name))) + os.fsencode(name))
        end = _stat_reply(stat_name, None, 0)[4:]
        self._stream.write(b"DONE" + end + _DENT_TAIL.pack(0))

    def _receive(self, path: str) -> None:
        try:
            with self._folders.local(path).open("rb") as file:
                while part := file.read(_MAX_DATA_BYTES):
                    self._stream.write(_REQUEST.pack(b"DATA", len(part)) + part)
        except OSError as error:
            self._fail(f"open failed: {error.strerror}")
            return
        self._stream.write(_REQUEST.pack(b"DONE", 0))

    def _send(self, path_and_mode: str) -> None:
        """Reads the file to its end whatever happens, as adbd does, and then tells what happened."""
        path, _, mode = path_and_mode.rpartition(",")
        if not (path and mode.isdecimal()):
            self._fail(f"missing or wrong mode: {path_and_mode}")
            raise StreamClosed
        failure: str | None = None
        target: Path | None = None
        try:
            target = self._folders.local(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            target.touch()
        except OSError as error:
            failure = f"couldn't create file: {error.strerror}"
        while True:
            name, size = _REQUEST.unpack(self._take(_REQUEST.size))
            if name != b"DATA" or size > _MAX_DATA_BYTES:
                break
            part = self._take(size)
            if target is not None and failure is None:
                failure = self._append(target, part)
        if name != b"DONE":
            self._fail(f"invalid data message {name!r} of {size} bytes")
            raise StreamClosed
        if failure is not None:
            if target is not None:
                target.unlink(missing_ok=True)
            self._fail(failure)
            return
        assert target is not None
        # As adbd does: group and others may do what the owner may.
        owner = int(mode) & stat.S_IRWXU
        target.chmod(owner | owner >> 3 | owner >> 6)
        os.utime(target, (size, size))
        self._stream.write(_REQUEST.pack(b"OKAY", 0))

    def _append(self, target: Path, part: bytes) -> str | None:
        free_bytes = self._free_bytes()
        if free_bytes is not None and len(part) > free_bytes:
            return "couldn't write file: No space left on device"
        with target.open("ab") as file:
            file.write(part)
        return None


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
