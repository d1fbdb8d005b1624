"""What a search was asked, and what it found, as one JSON file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from luts.errors import BlocktimeError
from luts.json_file import read_json
from search.code_version import CodeVersion
from search.files import write_atomically
from search.spaces import Arch
from search.spaces.registry import MAX_ARCH_BYTES, arch_from_json

MAX_RECORD_BYTES = 256 * 1024 * 1024
"""A search of a hundred thousand evaluations has about 50 MB."""

_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Text = Annotated[str, Field(max_length=4096)]
_Fraction = Annotated[float, Field(ge=0, le=1)]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Budget(_Value):
    """What an architecture may cost; everything given must hold.

    Attributes:
        latency_ms: By the first LUT.
        further_latency_ms: By each further LUT, in their order (several phones, each with its own budget).
        memory_bytes: Peak of activations, see `search.blocks.peak_activation_bytes`.
        cautious: A chance constraint: the bound under which a measured latency stays with probability
            `confidence` is held to the budget, phone by phone, not the prediction itself.
    """

    latency_ms: float = Field(gt=0)
    further_latency_ms: tuple[Annotated[float, Field(gt=0)], ...] = ()
    params: int | None = Field(default=None, gt=0)
    macs: int | None = Field(default=None, gt=0)
    memory_bytes: int | None = Field(default=None, gt=0)
    cautious: bool = True
    confidence: float = Field(default=0.95, ge=0.5, lt=1)


Objective = Literal["accuracy", "latency", "params", "macs", "memory"]

Strategy = Literal["coarse-to-fine", "evolution", "random", "pareto"]
"""See `search.algorithms.strategies`."""


class SearchSettings(_Value):
    """How to search; the defaults are those of AutoViT section 4.1 where it names them.

    Every strategy evaluates `population` architectures and then `crossovers` + `mutations` in each generation,
    fewer only where the budget leaves no others.

    Attributes:
        draws: Architectures within the budget that are drawn for the coarse stage; where it leaves no more, all
            of them are enumerated.
        skeletons: K of the coarse stage.
        redraws: Attempts at a new child before one drawn from all within the budget takes its place.
        loss_per_ms: lambda of the joint objective min L(s) + lambda C(s) of AutoViT's journal version, L being
            the share of wrong answers and C the latency in ms by the first LUT; 0 ranks by accuracy alone.
        objectives: What `pareto` trades against each other.
    """

    strategy: Strategy = "coarse-to-fine"
    seed: int = 0
    draws: int = Field(default=10_000, ge=1, le=1_000_000)
    skeletons: int = Field(default=25, ge=1)
    population: int = Field(default=50, ge=1)
    generations: int = Field(default=20, ge=0)
    parents: int = Field(default=10, ge=1)
    crossovers: int = Field(default=25, ge=0)
    mutations: int = Field(default=25, ge=0)
    p_depth: float = Field(default=0.2, ge=0, le=1)
    p_block: float = Field(default=0.4, ge=0, le=1)
    redraws: int = Field(default=50, ge=1)
    loss_per_ms: float = Field(default=0.0, ge=0)
    objectives: tuple[Objective, ...] = ("accuracy", "latency")

    @property
    def evaluations(self) -> int:
        """Architectures that are evaluated where the budget allows so many."""
        return self.population + self.generations * (self.crossovers + self.mutations)


class Coarse(_Value):
    """What the budget allows, and what the first stage made of it.

    Attributes:
        priced: Architectures priced: all that may be within the budget where these are few, else draws.
        feasible: Distinct ones among them that are within it.
        feasible_share: Share of the whole space that is within the budget; exact where these are few, else
            estimated by the draws.
        skeletons: Skeletons kept; 0 for strategies that have none.
        smallest_ms: Smallest latency within the other budgets: what counts, the bound where it is cautious.
    """

    priced: int
    feasible: int
    feasible_share: float = Field(default=0.0, ge=0, le=1)
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
    """An architecture (canonical JSON) with its accuracy and predicted costs.

    `latency_high_ms` holds a measured latency with the budget's confidence; the `further_` ones are those of the
    LUTs after the first.
    """

    arch: str = Field(max_length=MAX_ARCH_BYTES)
    accuracy: _Fraction
    latency_ms: float
    latency_high_ms: float
    further_latency_ms: tuple[float, ...] = ()
    further_latency_high_ms: tuple[float, ...] = ()
    params: int
    macs: int
    memory_bytes: int = 0
    generation: int

    def architecture(self) -> Arch:
        """The architecture itself; `UsageError` where its space has no such choice any more."""
        return arch_from_json(self.arch)


class LutPin(_Value):
    """A LUT by name and by the sha256 of its lut.json, which holds the digests of its other files."""

    name: _Text
    sha256: _Sha256


class Provenance(_Value):
    """Everything outside the settings that decides a result.

    Attributes:
        luts: In the order of the budget's latencies.
        checkpoint: sha256 of the supernet's weights.
        data: Source of the images as it was named.
        data_digest: sha256 of the images and labels.
        split: Which part of them accuracies are of.
    """

    luts: tuple[LutPin, ...] = Field(min_length=1, max_length=64)
    checkpoint: _Sha256
    data: _Text
    data_digest: _Sha256
    split: Literal["search", "validation"]
    split_seed: int
    split_fraction: _Fraction
    code: CodeVersion


class SearchResult(_Value):
    """A finished search; the same inputs give the same result.

    Attributes:
        space_digest: Of the space as it was searched, its classes, resolutions and heads included.
        evaluator: Fingerprint of checkpoint, data and split.
        price: Fingerprint of the LUT.
        evaluated: In order of evaluation.
        provenance: None for a search that was called as a function, on whatever it was given.
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
    evaluated: tuple[Evaluated, ...] = Field(min_length=1)
    winner: Evaluated
    provenance: Provenance | None = None

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        if self.winner not in self.evaluated:
            raise ValueError("the winner was not evaluated")
        if [generation.index for generation in self.history] != list(range(len(self.history))):
            raise ValueError("generations are missing")
        if len({found.arch for found in self.evaluated}) != len(self.evaluated):
            raise ValueError("an architecture stands there twice")
        return self

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
