"""What a search was asked, and what it found, as one JSON file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from luts.errors import BlocktimeError
from search.algorithms.interfaces import Priced
from search.files import read_json, write_atomically
from search.spaces import Arch
from search.spaces.registry import arch_from_json

MAX_RECORD_BYTES = 256 * 1024 * 1024
"""A search of a hundred thousand evaluations has about 50 MB."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Budget(_Value):
    """What an architecture may cost.

    Attributes:
        cautious: Hold the upper end of the latency's interval to the budget, not the prediction itself.
    """

    latency_ms: float = Field(gt=0)
    params: int | None = Field(default=None, gt=0)
    cautious: bool = False

    def allows(self, priced: Priced) -> bool:
        """Whether a price is within."""
        latency_ms = priced.latency_high_ms if self.cautious else priced.latency_ms
        return latency_ms <= self.latency_ms and (self.params is None or priced.params <= self.params)


class SearchSettings(_Value):
    """Algorithm 2; the defaults are those of AutoViT section 4.1 where it names them.

    Attributes:
        draws: Architectures that the coarse stage prices; a space of at most this size is enumerated.
        skeletons: K of the coarse stage.
        redraws: Attempts at a child within the budgets before one of the coarse stage takes its place.
    """

    seed: int = 0
    draws: int = Field(default=10_000, ge=1, le=10_000_000)
    skeletons: int = Field(default=25, ge=1)
    population: int = Field(default=50, ge=1)
    generations: int = Field(default=20, ge=0)
    parents: int = Field(default=10, ge=1)
    crossovers: int = Field(default=25, ge=0)
    mutations: int = Field(default=25, ge=0)
    p_depth: float = Field(default=0.2, ge=0, le=1)
    p_block: float = Field(default=0.4, ge=0, le=1)
    redraws: int = Field(default=50, ge=1)


class Coarse(_Value):
    """Outcome of the coarse stage.

    Attributes:
        priced: Distinct architectures priced.
        feasible: Those within the budgets.
        skeletons: Skeletons kept.
        smallest_ms: Smallest latency of the space, within the parameter budget.
    """

    priced: int
    feasible: int
    skeletons: int
    smallest_ms: float


class Generation(_Value):
    """State after a generation; 0 is the initial population.

    Attributes:
        new: Architectures evaluated in it.
        best: Best accuracy up to here.
        mean: Mean accuracy of the new ones.
    """

    index: int
    new: int
    best: float
    mean: float


class Evaluated(_Value):
    """An architecture (canonical JSON) with its accuracy and predicted costs."""

    arch: str
    accuracy: float
    latency_ms: float
    latency_high_ms: float
    params: int
    macs: int
    generation: int

    def architecture(self) -> Arch:
        """The architecture itself; `UsageError` where its space has no such choice any more."""
        return arch_from_json(self.arch)


class SearchResult(_Value):
    """A finished search; the same inputs give the same result.

    Attributes:
        space_digest: Of the space as it was searched, its classes, resolutions and heads included.
        evaluator: Fingerprint of checkpoint, data and split.
        price: Fingerprint of the LUT.
        evaluated: In order of evaluation.
    """

    format: Literal[1] = 1
    space: str
    space_digest: str
    evaluator: str
    price: str
    budget: Budget
    settings: SearchSettings
    coarse: Coarse
    history: tuple[Generation, ...]
    evaluated: tuple[Evaluated, ...]
    winner: Evaluated

    def save(self, path: Path) -> None:
        """Write as JSON, all or nothing; `BlocktimeError` where that fails."""
        try:
            write_atomically(path, self.model_dump_json(indent=1).encode())
        except OSError as error:
            raise BlocktimeError(f"{path}: cannot save the search ({error.strerror})") from error

    @classmethod
    def load(cls, path: Path) -> SearchResult:
        """Read what `save` wrote; `InvalidArtifactError` where it is damaged."""
        return read_json(path, cls, MAX_RECORD_BYTES, "search again")
