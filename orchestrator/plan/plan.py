"""A plan: whole models to build and measure so that every block of a space gets its latency."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from luts.classifiers import with_classifiers
from luts.format.errors import UsageError
from luts.format.lut import Lut
from luts.format.operators import OPERATORS, parse_operator
from luts.format.schema import KeyFeatures, classes_of
from search.blocks import BlockSpec, parse_key, parse_keys
from search.blocks.sequence import BYTES_PER_ELEMENT
from search.spaces import Arch, get_space
from search.spaces.registry import arch_from_json
from search.spaces.scope import covered_space

MIN_MODELS = 3
"""Models that make a LUT: a reference, one to fit and one to hold out."""

Role = Literal["reference", "base", "removal", "swap", "design", "heldout"]
Removals = Literal["all", "reference", "none"]


@dataclass(frozen=True)
class PlanModel:
    """One whole model: an architecture (`arch` is its JSON), or a base without one block (`arch` is empty).

    A removal and a swap name their base, and the base's block that they isolate (`removed_key`).
    """

    model_id: str
    arch: str
    blocks: tuple[str, ...]
    role: Role
    base_id: str = ""
    removed_key: str = ""

    @classmethod
    def of(cls, arch: Arch, role: Role, base_id: str = "", removed_key: str = "") -> PlanModel:
        """Return an architecture as a model."""
        blocks = arch.keys()
        return cls(model_id(blocks), arch.to_json(), blocks, role, base_id, removed_key)

    @property
    def program(self) -> str:
        """Name of the module whose operators are its blocks, such as `timm:resnet18`; else empty."""
        return str(json.loads(self.arch).get("program", "")) if self.arch else ""


@dataclass(frozen=True)
class Plan:
    """The models of one profile, the reference first."""

    space: str
    space_digest: str
    classes: int
    resolutions: tuple[int, ...]
    seed: int
    models: tuple[PlanModel, ...]

    @property
    def reference(self) -> PlanModel:
        """The model that every batch contains twice."""
        return self.models[0]

    @property
    def digest(self) -> str:
        """SHA-256 of everything in the plan."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def covered_keys(self) -> set[str]:
        """Return the block keys that occur in some fitted model."""
        return {key for model in self.models if model.role != "heldout" for key in model.blocks}


def model_id(blocks: Sequence[str]) -> str:
    """Return the name of a model; equal blocks have equal names."""
    return hashlib.sha256(" ".join(blocks).encode()).hexdigest()[:12]


def features_of_plan(plan: Plan) -> dict[str, KeyFeatures]:
    """Return the features of all blocks of a plan's space, and of other blocks that its models contain."""
    if plan.space == OPERATORS:
        return {key: parse_operator(key).features for key in sorted(plan.covered_keys())}
    features = dict(_space_features(plan.space, plan.classes, plan.resolutions))
    more = {key for model in plan.models for key in model.blocks} - features.keys()
    return features | features_of(parse_keys(sorted(more)))


@functools.lru_cache(maxsize=8)
def _space_features(space: str, classes: int, resolutions: tuple[int, ...]) -> Mapping[str, KeyFeatures]:
    return features_of(get_space(space).with_classes(classes).block_specs(resolutions))


def features_of(specs: Sequence[BlockSpec]) -> dict[str, KeyFeatures]:
    """Return kind, MACs, depthwise MACs, activation traffic in bytes and parameters of each block, by key."""
    return {
        spec.key: KeyFeatures(
            kind=spec.kind,
            macs=spec.macs().total,
            traffic_bytes=spec.costs.traffic_elements * BYTES_PER_ELEMENT,
            params=spec.params(),
            depthwise_macs=spec.costs.depthwise_macs,
        )
        for spec in specs
    }


def planning_features(features: Mapping[str, KeyFeatures]) -> dict[str, KeyFeatures]:
    """Return the features by which models are chosen, so that a measurement of any version gets its plan again.

    Plans are a function of these features. Versions before counted two maps instead of three for the addition of an
    inverted residual; plans still do, LUTs do not.
    """
    planned = dict(features)
    for key, feature in features.items():
        if not key.startswith(("mbconv(", "mbconv.relu(")):
            continue
        block = parse_key(key)
        if block.removable:  # it adds its input
            traffic_bytes = feature.traffic_bytes - block.out_elements * BYTES_PER_ELEMENT
            planned[key] = feature.model_copy(update={"traffic_bytes": traffic_bytes})
    return planned


@dataclass(frozen=True)
class Policy:
    """How a set of models is measured against a reference model.

    Attributes:
        batch_models: Models loaded together, besides the two loads of the reference. With more of them the
            reference's samples serve more models, but they evict each other's weights from the caches.
        warmup: Untimed calls of each model after its load: the first ones page in weights and grow pools.
        warmup_ms: Longest time, in the models, of calling all of them in turn before every run of rounds,
            until their latencies stop falling: the clock falls while a run's samples are transferred. It
            takes 150 ms if the clock is up, and about a second on a phone whose clock rises slowly.
        pace_us: Microseconds between the starts of two calls, at least; 0: back to back. Idle time between
            calls lets clocks fall, as in an app that processes camera frames; such runs are not warmed up by
            time.
        settle_runs: Calls of a model right before each timed one, journaled but not used: they refill the
            caches that the model before evicted, so that a sample does not depend on its neighbour.
        keep_warm: Whether the processor is kept busy before calls, if a self-test finds that the clock falls
            otherwise; else it is as the device's user has set it.
        chunk_rounds: Rounds between two checks of the interval.
        min_rounds: Fewest rounds of a batch; a median and its bootstrap need about this many.
        max_rounds: Most rounds of a batch; beyond them a load's own level, not its noise, decides the error,
            and a new load helps more.
        load_se: A load is done when the relative standard error of each model's ratio is below this.
        min_passes: Fewest loads of every model: two give a spread, three an interval.
        max_passes: Loads of every model after which measuring ends, narrow or not.
        calls: Timed calls of each model for which measuring continues within its budget, narrow or not, for
            the interval of a percentile. 0: none.
        half_width: Measuring ends when every model's 95 % interval is narrower than this, relative.
        heldout_half_width: A profile ends when the conformal interval of its predictions is narrower than
            this, relative, at 95 % (90 % if fewer than 19 models are held out). 1.5 % is what remains of
            networks that do not quite add up once noise is small: from there on passes gain little, more
            models would.
        max_attempts: Attempts at one batch before measuring ends with an error, and repetitions of its runs
            because a clock's limit changed. One valid batch in twenty fails the 95 % A/A interval by chance,
            four in a row one set of batches in a hundred thousand.
        max_reconnects: Losses of the agent that one batch survives.
        self_test: Whether the interference self-test decides `settle_runs`, `batch_models` and `keep_warm`.
        cooling_s: Pause before a batch that was throttled is repeated, and the longest one before any batch
            for a warm device to cool.
    """

    batch_models: int = 6
    warmup: int = 5
    warmup_ms: int = 2000
    pace_us: int = 0
    settle_runs: int = 1
    keep_warm: bool = False
    chunk_rounds: int = 10
    min_rounds: int = 20
    max_rounds: int = 40
    load_se: float = 0.003
    min_passes: int = 3
    max_passes: int = 8
    calls: int = 0
    half_width: float = 0.01
    heldout_half_width: float = 0.015
    max_attempts: int = 4
    max_reconnects: int = 3
    cooling_s: float = 60.0
    self_test: bool = False

    @classmethod
    def of(cls, simulated: bool, self_test: bool = True, pace_us: int = 0) -> Policy:
        """Return the policy of all measurements; a simulated device cools in simulated time."""
        return cls(
            cooling_s=0.0 if simulated else cls.cooling_s,
            self_test=self_test,
            pace_us=pace_us,
            warmup_ms=0 if pace_us else cls.warmup_ms,
        )

    def to_dict(self) -> dict[str, int | float]:
        """Return name to value, for journals and LUTs."""
        return asdict(self)


def with_classifier_prices(lut: Lut, classes: int) -> Lut:
    """Return the LUT with entries for networks of so many classes; itself if these were measured.

    Only classifiers are added, from physics (`luts.classifiers`), and only to a LUT that covers its space.

    Raises UsageError: `classes` is not a number of classes.
    """
    if classes < 1:
        raise UsageError(f"{classes} classes; give 1 or more", code="bad_classes")
    try:
        space = covered_space(lut)
    except UsageError:
        return lut
    known = {entry.key for entry in lut.entries}
    blocks = space.with_classes(classes).block_specs()
    missing = [block for block in blocks if block.key not in known]
    if not missing or any(classes_of(block.key) != classes for block in missing):
        return lut
    return with_classifiers(lut, features_of(missing))


def classifier_note(lut: Lut, priced: Lut, classes: int) -> str:
    """Return what `with_classifier_prices` changed, in one line; empty if nothing."""
    added = {entry.key for entry in priced.entries} - {entry.key for entry in lut.entries}
    if not added:
        return ""
    arm_ms = max(priced.latency_model.costs[key].half_width_ms for key in added)
    return (
        f"note: the LUT measured classifiers of {covered_space(lut).default_classes} classes; those of {classes} "
        f"follow from its physics, within {arm_ms:.3f} ms; profile with --classes {classes} to measure them"
    )


NETWORKS_PER_HEAD = 6
"""Most networks for each number of classes; classifiers elsewhere follow from physics (`luts.classifiers`)."""


def with_heads(plan: Plan, heads: Sequence[int]) -> Plan:
    """Return the plan and, for each further number of classes, fitted networks of it with another classifier.

    Each differs from a network of the plan only in the classifier, and has one that the others do not have.
    """
    models = list(plan.models)
    for classes in dict.fromkeys(heads):
        if classes == plan.classes:
            continue
        shown: dict[str, PlanModel] = {}
        for model in plan.models:
            if not model.arch or model.role == "heldout":
                continue
            other = PlanModel.of(arch_from_json(model.arch).with_classes(classes), "design")
            shown.setdefault(other.blocks[-1], other)
        models += list(shown.values())[:NETWORKS_PER_HEAD]
    return replace(plan, models=tuple(models))
