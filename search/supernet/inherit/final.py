"""What the validation set has said of a supernet's subnets: `final.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from luts.format.atomic_file import write_atomically
from luts.format.errors import StorageError
from luts.format.json_file import read_json

MAX_BYTES = 16 << 20
"""Room for ten thousand architectures, far more than a final evaluation has."""


FINAL_FILE = "final.json"


class FinalScore(BaseModel):
    """One evaluation; `arch` is its JSON, `weights_sha256` names the supernet's weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    arch: str = Field(max_length=4096)
    weights_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    top1: float = Field(ge=0, le=1)
    top5: float = Field(ge=0, le=1)


class FinalScores(BaseModel):
    """All final evaluations of a supernet, in the order in which they were made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    scores: tuple[FinalScore, ...] = ()


def record_final(path: Path, score: FinalScore, shared: Path | None = None) -> int:
    """Keep a final evaluation; how many other architectures the same weights were judged with before.

    Args:
        path: The record.
        score: The evaluation.
        shared: A further record that counts and is not written.

    Raises:
        InvalidArtifactError: a record is damaged.
        StorageError: it can't be written.
    """
    scores, others = _scores(path), _scores(shared) if shared else ()
    if score not in scores:
        try:
            document = FinalScores(scores=(*scores, score))
            write_atomically(path, document.model_dump_json(indent=1).encode())
        except OSError as error:
            raise StorageError(
                f"{path}: cannot note this use of the validation set ({error.strerror}); make it writable"
            ) from error
    judged = {s.arch for s in (*scores, *others) if s.weights_sha256 == score.weights_sha256}
    return len(judged - {score.arch})


def _scores(path: Path) -> tuple[FinalScore, ...]:
    return read_json(path, FinalScores, MAX_BYTES, "restore it").scores if path.exists() else ()
