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
from luts.format.schema import KeyFeatures, classes_of
from search.blocks import BlockSpec, MBConv, parse_key, parse_keys
from search.blocks.sequence import BYTES_PER_ELEMENT
from search.spaces import get_space
from search.spaces.registry import arch_from_json
from search.spaces.scope import covered_space

MIN_MODELS = 3
"""Models that make a LUT: a reference, one to fit and one to hold out."""

Role = Literal["reference", "base", "removal", "swap", "design", "heldout"]
Removals = Literal["all", "reference", "none"]


@dataclass(frozen=True)
class PlanModel:
    """One whole model: an architecture (`arch` is its JSON), or a base without one block (`arch` is "").

    A removal and a swap name their base, and the base's block that they show (`removed_key`).
    """

    model_id: str
    arch: str
    blocks: tuple[str, ...]
    role: Role
    base_id: str = ""
    removed_key: str = ""


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
        """The model that every batch holds twice."""
        return self.models[0]

    @property
    def digest(self) -> str:
        """sha256 of everything in the plan."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def covered_keys(self) -> set[str]:
        """Block keys that some fitted model holds."""
        return {key for model in self.models if model.role != "heldout" for key in model.blocks}


def model_id(blocks: Sequence[str]) -> str:
    """Name of a model: equal blocks, equal name."""
    return hashlib.sha256(" ".join(blocks).encode()).hexdigest()[:12]


def features_of_plan(plan: Plan) -> dict[str, KeyFeatures]:
    """Of all that a LUT of a plan knows: the blocks of its space, and what else its models hold."""
    features = dict(_space_features(plan.space, plan.classes, plan.resolutions))
    more = {key for model in plan.models for key in model.blocks} - features.keys()
    return features | features_of(parse_keys(sorted(more)))


@functools.lru_cache(maxsize=8)
def _space_features(space: str, classes: int, resolutions: tuple[int, ...]) -> Mapping[str, KeyFeatures]:
    return features_of(get_space(space).with_classes(classes).block_specs(resolutions))


def features_of(specs: Sequence[BlockSpec]) -> dict[str, KeyFeatures]:
    """Kind, MACs with attention's products and those of depthwise convolutions, activation traffic, parameters."""
    return {
        spec.key: KeyFeatures(
            kind=spec.kind,
            macs=spec.macs().total,
            traffic_bytes=spec.traffic_elements() * BYTES_PER_ELEMENT,
            params=spec.params(),
            depthwise_macs=spec.depthwise_macs(),
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
        if isinstance(block, MBConv) and block.residual:
            traffic_bytes = feature.traffic_bytes - block.out_elements * BYTES_PER_ELEMENT
            planned[key] = feature.model_copy(update={"traffic_bytes": traffic_bytes})
    return planned


@dataclass(frozen=True)
class Policy:
    """How a set of models is measured against a reference model.

    Attributes:
        batch_models: Models loaded side by side, besides the two loads of the reference. More of them share
            the reference's samples, but evict each other's weights from the caches.
        warmup: Untimed visits of each model after its load: the first ones page in weights and grow pools.
        warmup_ms: Most time, in the models, of visiting all of them in turn before every run of rounds, until their
            latencies stop falling: the clock falls while a run's samples travel. It takes 150 ms where the clock
            is up, and a slow ramp of a phone about a second.
        pace_us: Microseconds from the start of one call to that of the next, at least; 0: back to back. The idle
            time between lets clocks fall, as in an app that works on a camera's frames; such runs are not warmed up
            by time.
        settle_runs: Runs of a model right before each timed one, journaled but not used: they put back into
            the caches what the model before threw out, so a sample does not depend on its neighbour.
        keep_warm: Whether the processor is kept busy before visits, where a self-test finds that the clock falls
            without; else it is as the device's user has it.
        chunk_rounds: Rounds between two looks at the interval.
        min_rounds: A median and its bootstrap need about this many rounds.
        max_rounds: Beyond it a load's own level, not its noise, decides the error; a new load helps more.
        load_se: A load is done when the relative standard error of each model's ratio is below this.
        min_passes: Fresh loads of every model that there are at least: two give a spread, three an interval.
        max_passes: Fresh loads after which measuring ends, narrow or not.
        calls: Timed calls of each model for which measuring goes on within its budget, narrow or not: what the
            interval of a percentile takes. 0: none.
        half_width: Measuring ends when every model's 95 % interval is narrower than this, relative.
        heldout_half_width: A profile ends when the conformal interval of its predictions is narrower than this,
            relative, at 95 % (90 % where fewer than 19 models are held out). 1.5 % is what remains of networks
            that do not quite add up once noise is small: from there on passes gain little, more models would.
        max_attempts: Tries of one batch before measuring ends with an error, and chunks of one that are repeated
            because a clock's cap moved. One good batch in twenty fails the 95 % A/A interval by chance, four in a
            row one set of batches in a hundred thousand.
        max_reconnects: Losses of the agent that one batch survives.
        self_test: Whether a device is first asked what settle runs and company cost, and decides those two.
        cooling_s: Pause before a batch that was throttled is tried again, and the longest one before any batch for
            a warm device to cool.
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
        """The policy of all measurements; a simulated device cools in made-up time, for which nobody need wait."""
        return cls(
            cooling_s=0.0 if simulated else cls.cooling_s,
            self_test=self_test,
            pace_us=pace_us,
            warmup_ms=0 if pace_us else cls.warmup_ms,
        )

    def to_dict(self) -> dict[str, int | float]:
        """Name to value, for journals and LUTs."""
        return asdict(self)


def with_classifier_prices(lut: Lut, classes: int) -> Lut:
    """The LUT with prices of all that networks of so many classes hold; itself where these were measured.

    Only classifiers are priced anew, from physics (`luts.classifiers`), and only of a LUT that covers its space.

    Raises:
        UsageError: `classes` is not a number of classes.
    """
    if classes < 1:
        raise UsageError(f"{classes} classes; give 1 or more")
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
    """What `with_classifier_prices` did to a LUT, in one line; "" where nothing."""
    added = {entry.key for entry in priced.entries} - {entry.key for entry in lut.entries}
    if not added:
        return ""
    arm_ms = max(priced.latency_model.costs[key].half_width_ms for key in added)
    return (
        f"note: the LUT measured classifiers of {covered_space(lut).default_classes} classes; those of {classes} "
        f"follow from its physics, within {arm_ms:.3f} ms; profile with --classes {classes} to measure them"
    )


NETWORKS_PER_HEAD = 6
"""Most for each number of classes; classifiers at other places follow from physics (`luts.classifiers`)."""


def with_heads(plan: Plan, heads: Sequence[int]) -> Plan:
    """The plan and, for each further number of classes, fitted networks of it with another classifier.

    Each differs from a network of the plan in the classifier alone, and shows one that the others do not.
    """
    models = list(plan.models)
    for classes in dict.fromkeys(heads):
        if classes == plan.classes:
            continue
        shown: dict[str, PlanModel] = {}
        for model in plan.models:
            if not model.arch or model.role == "heldout":
                continue
            arch = arch_from_json(model.arch).with_classes(classes)
            blocks = arch.keys()
            shown.setdefault(blocks[-1], PlanModel(model_id(blocks), arch.to_json(), blocks, "design"))
        models += list(shown.values())[:NETWORKS_PER_HEAD]
    return replace(plan, models=tuple(models))
