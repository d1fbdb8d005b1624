"""Each architecture is evaluated once ever: accuracies on disk, one JSON line each."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from luts.errors import BlocktimeError, InvalidArtifactError, StorageError
from search.spaces import Arch

MAX_CACHE_BYTES = 1 << 30
"""About two million lines."""

Watch = Callable[[Arch, float], None]
"""Called with an architecture and its accuracy as soon as it is known."""


class Judge(Protocol):
    """Evaluates architectures in any order: one process, several, or a cluster."""

    @property
    def fingerprint(self) -> str:
        """Everything besides the architecture that decides an accuracy."""

    def stream(self, archs: Sequence[Arch]) -> Iterable[tuple[Arch, float]]:
        """Each architecture once with its accuracy, as soon as that is known."""


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    evaluator: str = Field(pattern=r"^[0-9a-f]{64}$")
    arch: str = Field(max_length=64 * 1024)
    accuracy: float = Field(ge=0, le=1)


class CachedEvaluator:
    """An evaluator that remembers in a file, which other checkpoints, data and processes may share.

    What another process has written until a call is known to that call; where two evaluate the same at the
    same time, both keep the first line.
    """

    def __init__(self, judge: Judge, path: Path, watch: Watch | None = None):
        """Read what is known; `watch` hears of every architecture asked for, known or not.

        Raises:
            InvalidArtifactError: a line is damaged that is not the last; a cut last line (a killed run) is dropped.
        """
        self._judge, self._path, self._watch = judge, path, watch
        self._known: dict[str, float] = {}
        self._read_bytes, self._read_lines = 0, 0
        if path.exists():
            with self._locked():
                pass

    @property
    def fingerprint(self) -> str:
        return self._judge.fingerprint

    def accuracies(self, archs: Sequence[Arch]) -> list[float]:
        """In the order asked; what is not in the file is evaluated and written as soon as it is known."""
        asked = {arch.to_json(): arch for arch in archs}
        if self._path.exists():
            with self._locked():
                pass
        missing = [arch for text, arch in asked.items() if text not in self._known]
        if self._watch is not None:
            for text, arch in asked.items():
                if text in self._known:
                    self._watch(arch, self._known[text])
        for arch, accuracy in self._judge.stream(missing) if missing else ():
            self._remember(arch.to_json(), accuracy)
            if self._watch is not None:
                self._watch(arch, accuracy)
        return [self._known[arch.to_json()] for arch in archs]

    def _remember(self, arch: str, accuracy: float) -> None:
        line = _Line(evaluator=self.fingerprint, arch=arch, accuracy=accuracy)
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
        if size > MAX_CACHE_BYTES:
            raise InvalidArtifactError(f"{self._path}: over {MAX_CACHE_BYTES} bytes; remove it to start over")
        if size < self._read_bytes:
            raise InvalidArtifactError(f"{self._path}: was cut short while it was in use; repeat the command")
        file.seek(self._read_bytes)
        data = file.read(size - self._read_bytes)
        whole = data[: data.rfind(b"\n") + 1]
        for text in whole.splitlines():
            self._read_lines += 1
            self._learn(text)
        self._read_bytes += len(whole)
        if len(whole) < len(data):
            file.truncate(self._read_bytes)

    def _learn(self, text: bytes) -> None:
        try:
            line = _Line.model_validate(json.loads(text))
        except (ValidationError, ValueError, RecursionError) as error:
            raise InvalidArtifactError(
                f"{self._path}: line {self._read_lines} is no accuracy; remove the line, or the file to start over"
            ) from error
        if line.evaluator == self.fingerprint:
            self._known.setdefault(line.arch, line.accuracy)
