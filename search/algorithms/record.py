"""Settings and results of a search, as values and as JSON files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from luts.format.errors import BlocktimeError
from luts.format.files import read_json, write_atomically, write_json
from luts.format.provenance import CodeVersion
from luts.format.registry import NAME
from luts.format.schema import Floats, Integers, Value
from search.spaces import Arch
from search.spaces.registry import MAX_ARCH_BYTES, arch_from_json

INHERITED_ACCURACY = "inherited-accuracy"
INHERITED_LIKELIHOOD = "inherited-likelihood"
"""Name of the objective that is top-1 with weights inherited from a supernet."""


class Budget(Value):
    """What an architecture may cost; everything given must hold.

    Attributes:
        latency_ms: By the first LUT.
        least_params: Fewest parameters, such as the supernet's subnets have.
        further_latency_ms: By each further LUT, in their order (several phones, each with its own budget).
        memory_bytes: Peak of activations, see `search.blocks.peak_activation_bytes`.
        cautious: A chance constraint: the bound under which a measured latency stays with probability
            `confidence` is held to the budget, phone by phone, not the prediction itself.
    """

    latency_ms: float = Field(gt=0)
    further_latency_ms: tuple[Annotated[float, Field(gt=0)], ...] = ()
    params: int | None = Field(default=None, gt=0)
    least_params: int | None = Field(default=None, gt=0)
    macs: int | None = Field(default=None, gt=0)
    memory_bytes: int | None = Field(default=None, gt=0)
    cautious: bool = True
    confidence: float = Field(default=0.95, ge=0.5, lt=1)


Criterion = Literal["accuracy", "latency", "params", "macs", "memory"]
"""What architectures are compared by; `accuracy` is what the objective says."""


class SearchSettings(Value):
    """How to search; the defaults are those of AutoViT section 4.1 where it names them.

    Every strategy evaluates `population` architectures and then `crossovers` + `mutations` in each generation,
    fewer only where the budget leaves no others.

    Attributes:
        strategy: Name of a registered one; a record may hold one that is not registered where it is read.
        draws: Architectures within the budget that are drawn for the coarse stage; where it leaves no more, all
            of them are enumerated.
        skeletons: K of the coarse stage.
        redraws: Attempts at a new child before one drawn from all within the budget takes its place.
        ms_per_loss: lambda of the joint objective min L(s) + lambda C(s) of AutoViT's journal version with L the
            latency in ms by the first LUT, as in its L(s) <= L_max, and C the share of wrong answers; 0 for none.
        loss_per_ms: lambda of the other reading: L the share of wrong answers, C the latency in ms; 0 for none.
            Without either, accuracy alone ranks.
        objectives: What `pareto` trades against each other.
        additive: Share of an additive model of the choices in what an architecture is judged by; 0 for its own
            value alone (`search.algorithms.objectives`).
        sample: Random architectures within the budget that the model is fitted to, evaluated besides the others.
    """

    strategy: str = Field(default="coarse-to-fine", pattern=NAME)
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
    ms_per_loss: float = Field(default=0.0, ge=0)
    loss_per_ms: float = Field(default=0.0, ge=0)
    objectives: tuple[Criterion, ...] = ("accuracy", "latency")
    additive: float = Field(default=0.0, ge=0, le=1)
    sample: int = Field(default=100, ge=10, le=100_000)

    @model_validator(mode="after")
    def _one_reading(self) -> Self:
        if self.ms_per_loss and self.loss_per_ms:
            raise ValueError(
                "ms_per_loss and loss_per_ms are two readings of one objective; give one of them"
            )
        return self

    def loss(self, accuracy: float, latency_ms: float) -> float:
        """What a search makes small: L(s) + lambda C(s) in the reading that was chosen."""
        wrong = 1.0 - accuracy
        if self.ms_per_loss:
            return latency_ms + self.ms_per_loss * wrong
        return wrong + self.loss_per_ms * latency_ms

    @property
    def children(self) -> int:
        """Architectures of a generation after the first."""
        return self.crossovers + self.mutations

    @property
    def evaluations(self) -> int:
        """Architectures that are evaluated where the budget allows so many."""
        return self.population + self.generations * self.children


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


BLOCK = 512
"""Rows compared with all kept ones at a time where there are three costs or more."""


def skyline(costs: Floats) -> Integers:
    """Indices of the rows of (N, objectives) that no other is at most as large as in every column; of equal
    rows one. In lexicographic order of their costs."""
    order: Integers = np.lexsort(costs.T[::-1])
    if costs.shape[1] <= 2:
        last = costs[order, -1]
        before = np.concatenate([[np.inf], np.minimum.accumulate(last)[:-1]])
        kept: Integers = order[last < before]
        return kept
    kept = np.empty(0, np.int64)
    for start in range(0, len(order), BLOCK):
        block = order[start : start + BLOCK]
        block = block[~_dominated(costs[block], costs[kept])]
        earlier = np.tri(len(block), k=-1, dtype=np.bool_)
        beaten = (costs[block][None] <= costs[block][:, None]).all(axis=2) & earlier
        kept = np.concatenate([kept, block[~beaten.any(axis=1)]])
    return kept


def _dominated(rows: Floats, by: Floats) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    beaten = np.zeros(len(rows), np.bool_)
    for start in range(0, len(by), 8 * BLOCK):
        some = by[start : start + 8 * BLOCK]
        worse = np.ones((len(rows), len(some)), np.bool_)
        for column in range(rows.shape[1]):
            worse &= some[None, :, column] <= rows[:, column, None]
        beaten |= worse.any(axis=1)
    return beaten


def front(evaluated: Sequence[Evaluated], criteria: Sequence[Criterion]) -> tuple[Evaluated, ...]:
    """Those that no other beats in all criteria; best in the first one first."""
    return tuple(evaluated[row] for row in skyline(criterion_costs(evaluated, criteria)))


def criterion_costs(evaluated: Sequence[Evaluated], criteria: Sequence[Criterion]) -> Floats:
    """(N, criteria), all wanted small."""
    columns = {
        "accuracy": lambda row: -row.accuracy,
        "latency": lambda row: row.latency_ms,
        "params": lambda row: row.params,
        "macs": lambda row: row.macs,
        "memory": lambda row: row.memory_bytes,
    }
    return np.array([[columns[name](row) for name in criteria] for row in evaluated], dtype=np.float64)


MAX_BYTES = 64 << 20
"""Room for the largest K that is allowed."""

MAX_COUNT = 10_000

CRITERION: Literal["conv+linear MACs, then parameters"] = "conv+linear MACs, then parameters"


class Sized(Value):
    """An architecture (canonical JSON) with its size and predicted latency; fields as those of `Evaluated`."""

    arch: str = Field(max_length=MAX_ARCH_BYTES)
    macs: int
    params: int
    latency_ms: float
    latency_high_ms: float
    further_latency_ms: tuple[float, ...] = ()
    further_latency_high_ms: tuple[float, ...] = ()
    memory_bytes: int

    def architecture(self) -> Arch:
        """The architecture itself; `UsageError` where its space has no such choice any more."""
        return arch_from_json(self.arch)


class CoarseInputs(Value):
    """All that decides the result, but the code.

    Attributes:
        count: K, how many networks are kept.
        draws: As of `SearchSettings`.
    """

    format: Literal[1] = 1
    space: str
    space_digest: str
    price: str
    budget: Budget
    count: int = Field(ge=1, le=MAX_COUNT)
    draws: int = Field(ge=1, le=1_000_000)
    seed: int


class CoarseResult(CoarseInputs):
    """The first K of the candidates within the budget.

    Attributes:
        largest_by: What they are ranked by, which says nothing of accuracy.
        whole: Whether the candidates were all within the budget, and not draws from them.
        networks: Largest first.
        luts: In the order of the budget's latencies.
    """

    largest_by: Literal["conv+linear MACs, then parameters"] = CRITERION
    coarse: Coarse
    whole: bool
    networks: Annotated[tuple[Sized, ...], Field(min_length=1, max_length=MAX_COUNT)]
    luts: tuple[LutPin, ...] = ()

    def save(self, path: Path) -> None:
        """Write as JSON; `StorageError` where that fails."""
        write_json(path, self.model_dump())

    @classmethod
    def load(cls, path: Path, remedy: str) -> CoarseResult:
        """Read what `save` wrote; `InvalidArtifactError`, which ends with `remedy`, where it is damaged."""
        return read_json(path, cls, MAX_BYTES, remedy)
