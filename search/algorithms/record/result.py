"""A finished search as one JSON file: what was asked, what was evaluated, and the winner."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from luts.format.atomic_file import write_atomically
from luts.format.code_version import CodeVersion
from luts.format.errors import BlocktimeError
from luts.format.json_file import read_json
from luts.format.registry import NAME
from luts.format.values import Value
from search.algorithms.record.settings import INHERITED_ACCURACY, Budget, SearchSettings
from search.spaces import Arch
from search.spaces.registry import MAX_ARCH_BYTES, arch_from_json

MAX_RECORD_BYTES = 256 * 1024 * 1024
"""A search of a hundred thousand evaluations has about 50 MB."""

_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Text = Annotated[str, Field(max_length=4096)]
_Fraction = Annotated[float, Field(ge=0, le=1)]


class Coarse(Value):
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


class Generation(Value):
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


class Evaluated(Value):
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

    @property
    def latencies(self) -> tuple[tuple[float, float], ...]:
        """By each LUT the predicted latency and its bound, ms."""
        further = zip(self.further_latency_ms, self.further_latency_high_ms, strict=True)
        return ((self.latency_ms, self.latency_high_ms), *further)

    def architecture(self) -> Arch:
        """The architecture itself; `UsageError` where its space has no such choice any more."""
        return arch_from_json(self.arch)


class LutPin(Value):
    """A LUT by name and by the sha256 of its lut.json, which holds the digests of its other files.

    `read_for`: the device that was meant where the LUT is another's, from which it may lie `device_log_sd` away, as
    a standard deviation of the logarithm; 0 where that was not known.
    """

    name: _Text
    sha256: _Sha256
    read_for: _Text = ""
    device_log_sd: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class Provenance(Value):
    """Everything outside the settings that decides a result.

    Attributes:
        luts: In the order of the budget's latencies.
        checkpoint: sha256 of the supernet's weights.
        data: Source of the images as it was named.
        data_digest: sha256 of the images and labels.
        split: Which part of them accuracies are of.
        objective: By which architectures were judged; only of `INHERITED_ACCURACY` are the values top-1.
    """

    luts: tuple[LutPin, ...] = Field(min_length=1, max_length=64)
    checkpoint: _Sha256
    data: _Text
    data_digest: _Sha256
    split: Literal["search", "validation"]
    split_seed: int
    split_fraction: _Fraction
    code: CodeVersion
    objective: str = Field(default=INHERITED_ACCURACY, pattern=NAME)


class SearchInputs(Value):
    """All that decides what a search finds, but the code.

    Attributes:
        space_digest: Of the space as it is searched, its classes, resolutions and heads included.
        evaluator: Fingerprint of checkpoint, data and split.
        price: Fingerprint of the LUTs.
    """

    format: Literal[1] = 1
    space: str
    space_digest: str
    evaluator: str
    price: str
    budget: Budget
    settings: SearchSettings

    def difference(self, now: SearchInputs) -> str:
        """What is other `now`, the first of it and as people call it; "" where nothing is."""
        if (self.space, self.space_digest) != (now.space, now.space_digest):
            return f"space: {self.space}" + (f", now {now.space}" if self.space != now.space else ", changed")
        for name, called in (("price", "LUT"), ("evaluator", "supernet, objective or images")):
            if getattr(self, name) != getattr(now, name):
                return called
        for part, called in (("budget", "budget"), ("settings", "setting")):
            before, after = (getattr(inputs, part).model_dump() for inputs in (self, now))
            for name, value in after.items():
                if before[name] != value:
                    return f"{called}: {name} was {_short(before[name])}, now {_short(value)}"
        return ""


def _short(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


class SearchResult(SearchInputs):
    """A finished search; the same inputs give the same result.

    Attributes:
        evaluated: In order of evaluation.
        provenance: None for a search that was called as a function, on whatever it was given.
    """

    coarse: Coarse
    history: tuple[Generation, ...]
    evaluated: tuple[Evaluated, ...] = Field(min_length=1)
    winner: Evaluated
    provenance: Provenance | None = None

    @property
    def lut_names(self) -> tuple[str, ...]:
        """Of the LUTs, in the order of the budget's latencies; numbers where they are not known."""
        if self.provenance is not None:
            return tuple(pin.name for pin in self.provenance.luts)
        return tuple(f"LUT {number}" for number in range(1, 2 + len(self.budget.further_latency_ms)))

    @property
    def own_objective(self) -> str:
        """By what architectures were judged; "" where values are accuracies."""
        objective = self.provenance.objective if self.provenance else INHERITED_ACCURACY
        if self.settings.additive:
            return f"{objective}, {self.settings.additive:.0%} by an additive model"
        return "" if objective == INHERITED_ACCURACY else objective

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        if self.winner not in self.evaluated:
            raise ValueError("the winner was not evaluated")
        if [generation.index for generation in self.history] != list(range(len(self.history))):
            raise ValueError("generations are missing")
        if len({row.arch for row in self.evaluated}) != len(self.evaluated):
            raise ValueError("an architecture stands there twice")
        return self

    def save(self, path: Path) -> None:
        """Write as JSON, all or nothing; `BlocktimeError` where that fails."""
        try:
            write_atomically(path, self.model_dump_json(indent=1).encode())
        except OSError as error:
            raise BlocktimeError(f"{path}: cannot save the search ({error.strerror})") from error

    @classmethod
    def load(cls, path: Path, remedy: str = "search again") -> SearchResult:
        """Read what `save` wrote; `InvalidArtifactError`, which ends with `remedy`, where it is damaged."""
        return read_json(path, cls, MAX_RECORD_BYTES, remedy)
