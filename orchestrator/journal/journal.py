"""The append-only record of a measurement: every sample is in it before anything is computed.

One record a line: eight hex digits of CRC-32, a space, a JSON object, a newline. A process that dies in a
write leaves a last line that does not check; it is cut off when the journal is opened again. Damage anywhere
else is an error, never skipped.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from luts.format.errors import InvalidArtifactError
from luts.format.line_file import LineFile

MAX_LINE_BYTES = 64 * 1024 * 1024
"""Longest line that is read: a chunk of 200,000 samples takes under 3 MiB."""

MAX_JOURNAL_BYTES = 8 * 1024**3
"""Largest journal that is opened."""


class Journal:
    """One open journal with this process as its only writer; records read back in `records`.

    Raises:
        InvalidArtifactError: the file is damaged in its middle, or too large.
        BlocktimeError: another process writes it, or the disk is full.
    """

    def __init__(self, path: Path):
        self.path = path
        self.records: list[dict[str, Any]] = []
        self._file = LineFile(
            path,
            self._read,
            writers="another `bench`",
            elsewhere="give another folder for the run",
            again="run the same command again, it goes on after what is already measured",
        )

    def _read(self) -> int:
        self.records, good = read_records(self.path)
        return good

    def append(self, record: dict[str, Any]) -> None:
        """Write one record and wait until it is on the disk; on failure the file ends as it did before."""
        self._file.append(_encode(record))
        self.records.append(record)

    def close(self) -> None:
        """Release the file."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_records(path: Path) -> tuple[list[dict[str, Any]], int]:
    """All whole records of a journal and the offset after the last of them.

    Raises:
        InvalidArtifactError: unreadable, too large, or damaged before its last line.
    """
    try:
        if path.stat().st_size > MAX_JOURNAL_BYTES:
            raise InvalidArtifactError(f"{path}: over {MAX_JOURNAL_BYTES} bytes is not a journal of `bench`")
        with path.open("rb") as file:
            return _scan(path, file)
    except OSError as error:
        raise InvalidArtifactError(f"{path}: cannot read the journal ({error.strerror})") from error


def _scan(path: Path, file: BinaryIO) -> tuple[list[dict[str, Any]], int]:
    records: list[dict[str, Any]] = []
    good = 0
    for number, line in _lines(file):
        record = _decode(line)
        if record is None:
            if file.read(1):
                raise InvalidArtifactError(
                    f"{path}: line {number} is damaged; restore the file, or start anew with another --run folder"
                )
            break
        records.append(record)
        good += len(line)
    return records, good


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    number = 0
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        yield number, line


def _encode(record: dict[str, Any]) -> bytes:
    body = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _decode(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n") or line[8:9] != b" ":
        return None
    body = line[9:-1]
    if line[:8] != b"%08x" % zlib.crc32(body):
        return None
    record = json.loads(body)
    return record if isinstance(record, dict) else None
