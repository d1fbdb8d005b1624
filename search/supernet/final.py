"""What the validation set has said of a supernet's subnets: `final.json` in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from luts.errors import StorageError
from luts.json_file import read_json
from search.files import write_atomically

MAX_BYTES = 16 << 20
"""Room for ten thousand architectures, far more than a final evaluation has."""


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


def record_final(directory: Path, score: FinalScore) -> int:
    """Keep a final evaluation; how many other architectures the same weights were judged with before.

    Raises:
        InvalidArtifactError: the record is damaged.
        StorageError: it can't be written.
    """
    path = directory / "final.json"
    scores: tuple[FinalScore, ...] = ()
    if path.exists():
        scores = read_json(path, FinalScores, MAX_BYTES, "restore it").scores
    if score not in scores:
        try:
            document = FinalScores(scores=(*scores, score))
            write_atomically(path, document.model_dump_json(indent=1).encode())
        except OSError as error:
            raise StorageError(
                f"{path}: cannot note this use of the validation set ({error.strerror}); make it writable"
            ) from error
    return len({s.arch for s in scores if s.weights_sha256 == score.weights_sha256} - {score.arch})
