"""Accuracies on disk, one JSON line each, as several processes write them at once."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from luts.format.errors import BlocktimeError, InvalidArtifactError, StorageError
from luts.format.json_file import read_bytes

MAX_BYTES = 1 << 30
"""About two million lines."""

MAX_FINGERPRINT_CHARS = 4096


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    evaluator: str = Field(min_length=1, max_length=MAX_FINGERPRINT_CHARS)
    arch: str = Field(max_length=64 * 1024)
    accuracy: float = Field(ge=0, le=1)


class AccuracyFile:
    """The lines of one objective, in a file with those of others; of two for an architecture the first counts."""

    def __init__(self, path: Path, fingerprint: str, shared: Path | None = None):
        """Read it, and before it the lines of a shared file, which is never written.

        Raises:
            InvalidArtifactError: a line is damaged that is not the last.
        """
        self._path, self._fingerprint = path, fingerprint
        self._known: dict[str, float] = {}
        self._read_bytes, self._read_lines = 0, 0
        if shared is not None:
            lines = read_bytes(shared, MAX_BYTES, "make it readable").split(b"\n")[:-1]
            for number, text in enumerate(lines, start=1):
                self._learn(text, shared, number)
        self.read()

    def read(self) -> Mapping[str, float]:
        """Accuracies by the JSON of their architectures, with what was written since the last look; it goes on
        to grow with this object."""
        if self._path.exists():
            with self._locked():
                pass
        return self._known

    def append(self, arch: str, accuracy: float) -> None:
        """Write a line, unless another process has written one of this architecture."""
        line = _Line(evaluator=self._fingerprint, arch=arch, accuracy=accuracy)
        data = line.model_dump_json().encode() + b"\n"
        with self._locked() as file:
            if arch in self._known:
                return
            try:
                file.write(data)
                file.flush()
            except OSError as error:
                file.truncate(self._read_bytes)
                raise StorageError(
                    f"{self._path}: cannot save an accuracy ({error.strerror}); free some space and repeat"
                ) from error
            self._read_bytes += len(data)
            self._read_lines += 1
        self._known[arch] = accuracy

    @contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        """The file, held alone, all its lines known, at its end; what a killed writer left half is cut off."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = self._path.open("a+b", buffering=0)
        except OSError as error:
            raise BlocktimeError(
                f"{self._path}: cannot keep accuracies ({error.strerror}); make the folder writable"
            ) from error
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._read_on(file)
            yield file

    def _read_on(self, file: BinaryIO) -> None:
        """Learn the lines since the last look."""
        size = file.seek(0, 2)
        if size > MAX_BYTES:
            raise InvalidArtifactError(f"{self._path}: over {MAX_BYTES} bytes; remove it to start over")
        if size < self._read_bytes:
            raise InvalidArtifactError(f"{self._path}: was cut short while it was in use; repeat the command")
        file.seek(self._read_bytes)
        data = file.read(size - self._read_bytes)
        whole = data[: data.rfind(b"\n") + 1]
        for text in whole.splitlines():
            self._read_lines += 1
            self._learn(text, self._path, self._read_lines)
        self._read_bytes += len(whole)
        if len(whole) < len(data):
            file.truncate(self._read_bytes)

    def _learn(self, text: bytes, path: Path, number: int) -> None:
        try:
            line = _Line.model_validate(json.loads(text))
        except (ValidationError, ValueError, RecursionError) as error:
            raise InvalidArtifactError(
                f"{path}: line {number} is not an accuracy; remove the line, or the file to start over"
            ) from error
        if line.evaluator == self._fingerprint:
            self._known.setdefault(line.arch, line.accuracy)
