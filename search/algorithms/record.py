"""Constraints, settings and results of a search, as values and as JSON files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from luts.format.errors import BlocktimeError
from luts.format.files import read_json, write_atomically
from luts.format.provenance import CodeVersion
from luts.format.registry import NAME
from luts.format.schema import Fraction, Sha256, Value
from search.algorithms.adaptive import AdaptiveResult, CascadeLimits
from search.spaces import Arch
from search.spaces.registry import MAX_ARCH_BYTES, arch_from_json

INHERITED_ACCURACY = "inherited-accuracy"
"""Objective: top-1 with weights inherited from a supernet."""

INHERITED_LIKELIHOOD = "inherited-likelihood"
"""Objective: probability of the labels with weights inherited from a supernet."""

BACKBONE_ACCURACY = "backbone-accuracy"
"""Objective: inherited top-1 of the classifier with the same backbone, a proxy for detection and segmentation."""

MACS = "macs"
"""Objective: conv+linear MACs, for a search without a supernet."""


NASWOT = "naswot"
"""Objective: how different the images' patterns of active units are in a network with random weights."""


class ClassifierParams(Value):
    """Limits of a classifier's parameters, for networks whose backbone has another task's head instead."""

    classes: int = Field(ge=1)
    least_params: int = Field(ge=1)
    params: int = Field(ge=1)


class Constraints(Value):
    """Upper limits of an architecture's costs; all that are given must hold.

    Attributes:
        latency_ms: Latency by the first LUT.
        further_latency_ms: Latency by each further LUT, in their order.
        least_params: Fewest parameters, such as a supernet's scope has.
        macs: Conv+linear MACs.
        memory_bytes: Peak activation memory, see `search.blocks.peak_activation_bytes`.
        as_classifier: The supernet's scope, where the network has another task's head than the supernet.
        cautious: A chance constraint: each latency limit holds for the upper bound, below which a measured latency
            stays with probability `confidence`, not for the prediction.
        confidence: Of that bound.
    """

    latency_ms: float = Field(gt=0)
    further_latency_ms: tuple[Annotated[float, Field(gt=0)], ...] = ()
    params: int | None = Field(default=None, gt=0)
    least_params: int | None = Field(default=None, gt=0)
    macs: int | None = Field(default=None, gt=0)
    memory_bytes: int | None = Field(default=None, gt=0)
    as_classifier: ClassifierParams | None = Field(default=None, exclude_if=lambda value: value is None)
    cautious: bool = True
    confidence: float = Field(default=0.95, ge=0.5, lt=1)

    @model_validator(mode="after")
    def _one_minimum(self) -> Self:
        if self.as_classifier is not None and self.least_params is not None:
            raise ValueError("as_classifier has a minimum of its own; leave least_params out")
        return self

    @property
    def latencies(self) -> tuple[float, ...]:
        """Latency limit of each LUT, ms."""
        return (self.latency_ms, *self.further_latency_ms)

    def other_limits(self) -> list[str]:
        """Return the limits besides latency as text."""
        limits = [
            ("{:,} parameters", self.params),
            ("at least {:,} parameters", self.least_params),
            ("{:,} conv+linear MACs", self.macs),
            ("{:,} bytes of activations", self.memory_bytes),
        ]
        texts = [text.format(limit) for text, limit in limits if limit is not None]
        if scope := self.as_classifier:
            texts.append(f"{scope.least_params:,} to {scope.params:,} parameters as a classifier")
        return texts


Criterion = Literal["accuracy", "latency", "params", "macs", "memory"]
"""What architectures are compared by; `accuracy` is the objective's value."""


def _renamed(strategy: object) -> object:
    """Return a strategy's name of today."""
    return "autovit" if strategy == "coarse-to-fine" else strategy


class SearchSettings(Value):
    """How to search; `AUTOVIT_SETTINGS` are those of the paper.

    Every strategy evaluates `population` architectures and then `crossovers` + `mutations` in each generation,
    fewer only where the constraints leave no others.

    Attributes:
        strategy: Name of a registered strategy; a file may name one that is not registered where it is read.
        draws: Architectures within the constraints drawn for the coarse stage; if there are no more, all of them.
        skeletons: K: skeletons of the coarse stage, or the largest networks where all can be listed.
        population: Architectures of the first generation; those of `sample` are among them for `large-first`.
        parents: Best architectures that the next generation descends from.
        crossovers: Children of two parents in a generation.
        mutations: Children of one parent in a generation.
        p_depth: P_d, probability that a mutation changes a depth.
        p_block: P_m, probability that a mutation changes a block.
        redraws: Attempts at a new child before a random architecture within the constraints replaces it.
        ms_per_loss: lambda of the joint objective min L(s) + lambda C(s) of AutoViT's journal version, with L the
            latency in ms by the first LUT, as in its L(s) <= L_max, and C the top-1 error; 0 to leave it out.
        loss_per_ms: lambda of the other reading: L the top-1 error, C the latency in ms; 0 to leave it out.
            Without either, accuracy alone ranks.
        objectives: Criteria that `pareto` trades against each other.
        additive: Weight of an additive surrogate in the value of an architecture (`AdditiveModel`); 0 for none.
        sample: Random architectures within the constraints that the surrogate is fitted to, evaluated in addition.
    """

    strategy: Annotated[str, BeforeValidator(_renamed)] = Field(default="large-first", pattern=NAME)
    seed: int = 0
    draws: int = Field(default=10_000, ge=1, le=1_000_000)
    skeletons: int = Field(default=256, ge=1)
    population: int = Field(default=356, ge=1)
    generations: int = Field(default=10, ge=0)
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
    def _one_joint_objective(self) -> Self:
        if self.ms_per_loss and self.loss_per_ms:
            raise ValueError(
                "ms_per_loss and loss_per_ms are two readings of one objective; give one of them"
            )
        return self

    def loss(self, accuracy: float, latency_ms: float) -> float:
        """Return what a search minimises: L(s) + lambda C(s), in the reading that was chosen."""
        wrong = 1.0 - accuracy
        if self.ms_per_loss:
            return latency_ms + self.ms_per_loss * wrong
        return wrong + self.loss_per_ms * latency_ms

    def rank_key(self, row: Evaluated) -> tuple[float, float, float, str]:
        """Return the sort key of an architecture: best loss first, among equals the faster, then the smaller.

        For the strategy `largest`, that with the most MACs is first, then most parameters, then the faster.
        """
        if self.strategy == "largest":
            return -row.macs, -row.params, row.latency_ms, row.arch
        return self.loss(row.accuracy, row.latency_ms), row.latency_ms, row.params, row.arch

    @property
    def children(self) -> int:
        """Architectures of a generation after the first."""
        return self.crossovers + self.mutations

    @property
    def evaluations(self) -> int:
        """Architectures that are evaluated if the constraints allow so many."""
        return self.population + self.generations * self.children


AUTOVIT_SETTINGS = SearchSettings(strategy="autovit", skeletons=25, population=50, generations=20)
"""AutoViT, section 4.1, where it states them; other strategies evaluate as many networks."""


def usual_settings(strategy: str) -> SearchSettings:
    """Return the settings of a strategy where the user gives none."""
    usual = SearchSettings() if strategy == "large-first" else AUTOVIT_SETTINGS
    return SearchSettings(**usual.model_dump() | {"strategy": strategy})


MAX_RECORD_BYTES = 256 * 1024 * 1024
"""A search of a hundred thousand evaluations has about 50 MB."""

_Text = Annotated[str, Field(max_length=4096)]


class CoarseStage(Value):
    """What the constraints leave of the space, and the result of the coarse stage.

    Attributes:
        priced: Architectures priced: all that may be within the constraints if these are few, else draws.
        feasible: Distinct ones among them within the constraints.
        feasible_share: Fraction of the space within the constraints; exact if these are few, else estimated.
        skeletons: Skeletons selected; 0 for strategies without them.
        smallest_ms: Smallest latency within the other constraints; its upper bound if they are cautious.
        whole: Whether the feasible architectures are all there are; None in files that do not say.
    """

    priced: int
    feasible: int
    feasible_share: float = Field(default=0.0, ge=0, le=1)
    skeletons: int
    smallest_ms: float
    whole: bool | None = Field(default=None, exclude_if=lambda value: value is None)


class Generation(Value):
    """State after a generation; 0 is the initial population.

    Attributes:
        new: Architectures evaluated in it.
        best: Best accuracy so far.
        mean: Mean accuracy of the new ones.
    """

    index: int
    new: int
    best: float
    mean: float


class PricedArch(Value):
    """An architecture with its predicted costs.

    Attributes:
        arch: Canonical JSON.
        latency_high_ms: Upper bound of the latency at the constraints' confidence.
        further_latency_ms: By the LUTs after the first.
        further_latency_high_ms: Upper bounds by the LUTs after the first.
        depth: Blocks that combine positions, so not 1x1 convolutions; 0 in files that do not say.
    """

    latency_ms: float
    latency_high_ms: float
    further_latency_ms: tuple[float, ...] = ()
    further_latency_high_ms: tuple[float, ...] = ()
    params: int
    macs: int
    depth: int = 0
    memory_bytes: int = 0
    arch: str = Field(max_length=MAX_ARCH_BYTES)

    @property
    def latencies(self) -> tuple[tuple[float, float], ...]:
        """Predicted latency and upper bound by each LUT, ms."""
        further = zip(self.further_latency_ms, self.further_latency_high_ms, strict=True)
        return ((self.latency_ms, self.latency_high_ms), *further)

    def architecture(self) -> Arch:
        """Return the architecture; raise UsageError if its space does not have these choices any more."""
        return arch_from_json(self.arch)


class Evaluated(PricedArch):
    """An architecture with its predicted costs and the objective's value, found in a generation."""

    accuracy: Fraction
    generation: int


class LutPin(Value):
    """A LUT by name and by the sha256 of its lut.json, which contains the digests of its other files.

    Attributes:
        name: DEVICE/SPACE/VARIANT/vN.
        sha256: Digest.
        read_for: The target device if the LUT is used as a proxy for it, else empty.
        device_log_sd: Standard deviation of the logarithm of latency between the devices; 0 if unknown.
    """

    name: _Text
    sha256: Sha256
    read_for: _Text = ""
    device_log_sd: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class Provenance(Value):
    """Everything besides the settings that decides a result.

    Attributes:
        luts: In the order of the latency limits.
        checkpoint: sha256 of the supernet's weights; None for a search without a supernet, as the next four.
        data: Source of the images as it was named.
        data_digest: sha256 of the images and labels.
        split: Part of them that accuracies are of.
        split_seed: Seed of the split.
        split_fraction: Fraction of the images in the search split.
        code: Version of the code.
        objective: What architectures were evaluated by; values are top-1 only for `INHERITED_ACCURACY`.
    """

    luts: tuple[LutPin, ...] = Field(min_length=1, max_length=64)
    checkpoint: Sha256 | None = None
    data: _Text = ""
    data_digest: Sha256 | None = None
    split: Literal["search", "validation"] = "search"
    split_seed: int = 0
    split_fraction: Fraction = 0.0
    code: CodeVersion
    objective: str = Field(default=INHERITED_ACCURACY, pattern=NAME)


class SearchInputs(Value):
    """Everything that decides a search's result, apart from the code.

    Attributes:
        space_digest: Digest of the part that is searched, with its classes, resolutions and heads.
        evaluator: Fingerprint of checkpoint, data and split.
        price: Fingerprint of the LUTs.
        constraints: `budget` in files.
        adaptive: Limits of a cascade of the networks; None for a search of one network.
    """

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    format: Literal[1] = 1
    space: str
    space_digest: str
    evaluator: str
    price: str
    constraints: Constraints = Field(validation_alias="budget", serialization_alias="budget")
    settings: SearchSettings
    adaptive: CascadeLimits | None = Field(default=None, exclude_if=lambda value: value is None)

    def difference(self, now: SearchInputs) -> str:
        """Return the first difference to other inputs as text; "" if there is none."""
        if (self.space, self.space_digest) != (now.space, now.space_digest):
            return f"space: {self.space}" + (f", now {now.space}" if self.space != now.space else ", changed")
        names = {
            "price": "LUT",
            "evaluator": "supernet, objective or images",
            "adaptive": "limit of a cascade",
        }
        for name, label in names.items():
            if getattr(self, name) != getattr(now, name):
                return label
        for part, label in (("constraints", "constraint"), ("settings", "setting")):
            before, after = (getattr(inputs, part) for inputs in (self, now))
            for name in type(after).model_fields:
                was, new = getattr(before, name), getattr(after, name)
                if was != new:
                    return f"{label}: {name} was {_short(was)}, now {_short(new)}"
        return ""


def _short(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


class SearchResult(SearchInputs):
    """A finished search; the same inputs give the same result.

    Attributes:
        evaluated: In order of evaluation.
        largest: The network with the most MACs within the constraints; None in files that do not say.
        deepest: That of the greatest depth, then the most MACs; None in files that do not say.
        provenance: None if `search` was called as a function.
        cascade: The cascade of an adaptive search.
    """

    coarse: CoarseStage
    history: tuple[Generation, ...]
    evaluated: tuple[Evaluated, ...] = Field(min_length=1)
    winner: Evaluated
    largest: Evaluated | None = None
    deepest: Evaluated | None = None
    provenance: Provenance | None = None
    cascade: AdaptiveResult | None = Field(default=None, exclude_if=lambda value: value is None)

    def best(self, count: int) -> list[Evaluated]:
        """Return the `count` best architectures; the winner first."""
        return sorted(self.evaluated, key=self.settings.rank_key)[:count]

    @property
    def rows(self) -> tuple[Evaluated, ...]:
        """All evaluated architectures, and the largest and the deepest if they are not among them."""
        rules = [row for row in (self.largest, self.deepest) if row is not None and row not in self.evaluated]
        return (*self.evaluated, *dict.fromkeys(rules))

    @property
    def lut_names(self) -> tuple[str, ...]:
        """Names of the LUTs in the order of the latency limits; numbers if unknown."""
        if self.provenance is not None:
            return tuple(pin.name for pin in self.provenance.luts)
        return tuple(f"LUT {number}" for number in range(1, 1 + len(self.constraints.latencies)))

    @property
    def objective(self) -> str:
        """Name of the objective."""
        return self.provenance.objective if self.provenance else INHERITED_ACCURACY

    @property
    def own_objective(self) -> str:
        """What the values are if they are not top-1 accuracies; "" if they are."""
        if self.settings.additive:
            return f"{self.objective}, {self.settings.additive:.0%} by an additive model"
        return "" if self.objective == INHERITED_ACCURACY else self.objective

    @property
    def value_name(self) -> str:
        """Name of the objective's values in tables and figures."""
        return "objective" if self.own_objective else "accuracy"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.winner not in self.evaluated:
            raise ValueError("the winner was not evaluated")
        if [generation.index for generation in self.history] != list(range(len(self.history))):
            raise ValueError("generations are missing")
        if len({row.arch for row in self.evaluated}) != len(self.evaluated):
            raise ValueError("an architecture is listed twice")
        return self

    def save(self, path: Path) -> None:
        """Write as JSON, all or nothing; raise BlocktimeError ("not_writable") if that fails."""
        try:
            write_atomically(path, self.model_dump_json(indent=1).encode())
        except OSError as error:
            raise BlocktimeError(
                f"{path}: cannot save the search ({error.strerror}); make the folder writable",
                code="not_writable",
            ) from error

    @classmethod
    def load(cls, path: Path, remedy: str = "search again") -> SearchResult:
        """Read a saved result; raise InvalidArtifactError, which ends with `remedy`, if it is damaged."""
        return read_json(path, cls, MAX_RECORD_BYTES, remedy)
