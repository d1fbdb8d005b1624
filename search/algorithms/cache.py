"""Each architecture is evaluated once ever: accuracies on disk, one JSON line each."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from luts.errors import BlocktimeError, InvalidArtifactError
from search.algorithms.interfaces import Evaluator
from search.spaces import Arch

MAX_CACHE_BYTES = 1 << 30
"""About two million lines."""


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    evaluator: str = Field(pattern=r"^[0-9a-f]{64}$")
    arch: str = Field(max_length=64 * 1024)
    accuracy: float = Field(ge=0, le=1)


class CachedEvaluator:
    """An evaluator that remembers in a file, which evaluators of other checkpoints and data may share."""

    def __init__(self, evaluator: Evaluator, path: Path):
        """Read what is known.

        Raises:
            InvalidArtifactError: a line is damaged that is not the last; a cut last line (a killed run) is dropped.
        """
        self._evaluator = evaluator
        self._path = path
        self._known = _read(path, evaluator.fingerprint)

    @property
    def fingerprint(self) -> str:
        return self._evaluator.fingerprint

    def accuracy(self, arch: Arch) -> float:
        """From the file, or evaluated and written before it is returned."""
        text = arch.to_json()
        if text not in self._known:
            accuracy = self._evaluator.accuracy(arch)
            line = _Line(evaluator=self.fingerprint, arch=text, accuracy=accuracy)
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("ab") as file:
                    file.write(line.model_dump_json().encode() + b"\n")
            except OSError as error:
                raise BlocktimeError(
                    f"{self._path}: cannot save an accuracy ({error.strerror}); free some space and repeat"
                ) from error
            self._known[text] = accuracy
        return self._known[text]


def _read(path: Path, fingerprint: str) -> dict[str, float]:
    """Known accuracies of this evaluator, the file being cut back to its last whole line."""
    if not path.exists():
        return {}
    try:
        if path.stat().st_size > MAX_CACHE_BYTES:
            raise InvalidArtifactError(f"{path}: over {MAX_CACHE_BYTES} bytes; remove it to start over")
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            with path.open("r+b") as file:
                file.truncate(len(whole))
    except OSError as error:
        raise InvalidArtifactError(f"{path}: cannot be read ({error.strerror})") from error
    known: dict[str, float] = {}
    for number, text in enumerate(whole.splitlines(), start=1):
        try:
            line = _Line.model_validate(json.loads(text))
        except (ValidationError, ValueError, RecursionError) as error:
            raise InvalidArtifactError(
                f"{path}: line {number} is no accuracy; remove the line, or the file to start over"
            ) from error
        if line.evaluator == fingerprint:
            known[line.arch] = line.accuracy
    return known
