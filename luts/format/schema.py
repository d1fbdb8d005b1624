"""Values of a LUT, measured and derived; every one bounded and frozen.

Latencies are milliseconds, sizes bytes, relative quantities fractions (0.01 = 1 %).
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

MAX_BLOCKS = 8192
"""A network of a search space has tens of blocks, one of timm up to a few thousand operators."""
MAX_MODELS = 20_000
MAX_REASON = 4096
MAX_ENTRIES = 20_000
MAX_SOURCES = 8
MAX_SAMPLES = 20_000_000
MAX_COUNT = 2**53
"""Largest integer that JSON readers in other languages keep exact."""


def _iso_date(text: str) -> str:
    datetime.datetime.fromisoformat(text)
    return text


Key = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,160}$")]
"""A block key: printable ASCII without spaces."""
ModelId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
"""A device, space or variant; safe as a folder name."""
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{0,256}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
IsoDate = Annotated[str, StringConstraints(max_length=40), AfterValidator(_iso_date)]
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Ms = Annotated[float, Field(ge=0, le=1e7)]
PositiveMs = Annotated[float, Field(gt=0, le=1e7)]
Tile = Annotated[int, Field(ge=1, le=1024)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class FrozenModel(BaseModel):
    """Base of what files and options describe: frozen, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Value(FrozenModel):
    """Base of the values: as `FrozenModel`, finite numbers only."""

    model_config = ConfigDict(allow_inf_nan=False)

    @classmethod
    def of(cls, wider: Value) -> Self:
        """Return the part of a value that has all fields of this class, and more."""
        return cls(**{name: getattr(wider, name) for name in cls.model_fields})


Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MIB = 2.0**20
MMAC = 1e6


_CLASSES = re.compile(r"classes=([0-9]+)")


def classes_of(key: str) -> int | None:
    """Return the number of classes of a classifier's key; None for other blocks."""
    match = _CLASSES.search(key)
    return int(match[1]) if match else None


def without_classes(key: str) -> str:
    """Return a key without its number of classes, equal for classifiers that differ in nothing else."""
    return _CLASSES.sub("", key)


class KeyFeatures(Value):
    """Physical features of a block, on which the prior of its entry rests.

    `depthwise_macs` are the part of `macs` in depthwise convolutions. Older LUTs without a feature have 0.
    """

    kind: Name
    macs: Count
    traffic_bytes: Count
    params: Count = 0
    depthwise_macs: Count = 0


class ModelSpec(Value):
    """One whole model of a plan: its blocks, and its role in the measurement.

    `arch` is canonical JSON, or "" for a model outside the space (a removal variant). `blocks` are the
    ordered block keys, `boundary_bytes` the data moved between them (d_j of L = sum l_i o_i + sum t_j d_j). A
    `removal` is its base (`base_id`) without one block of `removed_key`, a `swap` a neighbour of its base
    that has that block fewer times. `migrated_operations` is how many of a removal's operations run on
    another compute unit than in the base, None where the runtime does not report it. `operator_ms` are times of
    the blocks of a program by the runtime's tracer, 0 where it had none.
    """

    model_id: ModelId
    arch: Annotated[str, StringConstraints(pattern=r"^[ -~]{0,16384}$")]
    blocks: Annotated[tuple[Key, ...], Field(min_length=1, max_length=MAX_BLOCKS)]
    boundary_bytes: Count
    artifact_sha256: Sha256
    split: Literal["fit", "heldout"]
    role: Literal["reference", "base", "removal", "swap", "design", "heldout"]
    base_id: ModelId | Literal[""] = ""
    removed_key: Key | Literal[""] = ""
    migrated_operations: Count | None = None
    operator_ms: Annotated[tuple[Ms, ...], Field(max_length=MAX_BLOCKS)] | None = None

    @model_validator(mode="after")
    def _traced_whole(self) -> Self:
        if self.operator_ms is not None and (
            len(self.operator_ms) != len(self.blocks) or not any(self.operator_ms)
        ):
            raise ValueError("operator_ms are times of all blocks, and not all 0")
        return self

    @model_validator(mode="after")
    def _roles_agree(self) -> Self:
        paired = self.role in ("removal", "swap")
        if paired != (self.base_id != "") or paired != (self.removed_key != ""):
            raise ValueError("base_id and removed_key belong to a removal or a swap only")
        if self.role != "removal" and self.migrated_operations is not None:
            raise ValueError("migrated_operations belongs to a removal")
        if (self.role == "heldout") != (self.split == "heldout"):
            raise ValueError("role and split disagree about whether the model is held out")
        return self

    @property
    def fitted(self) -> bool:
        """Whether it is a row of the joint fit: neither held out nor a removal with migrated operations."""
        return self.split == "fit" and not self.migrated_operations


class MeasuredModel(ModelSpec):
    """A model with its latency: `ms` = ratio to the reference x the reference's quiet latency.

    The interval (95 %) is that of the ratio; the uncertainty of the reference's own milliseconds, common to
    all models, is not included (see lut.json). `loads` are fresh loads, `rounds` are summed over them.
    """

    ms: PositiveMs
    ci_low: Ms
    ci_high: Ms
    loads: Count
    rounds: Count


class Entry(Value):
    """Cost of one block. Intervals (95 %) include the uncertainty of the reference's milliseconds.

    `ms` comes from the joint fit, `removal_ms` (None where no removal was measured) from removals alone and
    may be negative by noise. `method` "prior": no fitted model has the block, `ms` rests on its features
    alone. `migrated_operations`: those of other blocks that ran on another compute unit once the block was
    removed, so that `removal_ms` includes their change and is not the block's cost; None where that is
    unknown. `identified`: whether the fitted models determine the entry `alone`, only its `sum` with others
    (how the sum is divided then rests on the prior), or not at all (`prior`); None in older LUTs.
    `measured_share`: the fraction of the entry's uncertainty given other devices' LUTs, the device's speed
    set aside, that is removed by measurement here; None where the LUT rests on no other.
    """

    key: Key
    ms: Ms
    ci_low: Ms
    ci_high: Ms
    removal_ms: float | None
    removal_ci_low: float | None
    removal_ci_high: float | None
    loads: Count
    rounds: Count
    method: Literal["design", "prior"]
    kind: Name
    macs: Count
    traffic_bytes: Count
    params: Count = 0
    depthwise_macs: Count = 0
    migrated_operations: Count | None = None
    identified: Literal["alone", "sum", "prior"] | None = None
    measured_share: Fraction | None = None

    @classmethod
    def unmeasured(cls, key: str, ms: float, low: float, high: float, features: KeyFeatures) -> Self:
        """Return the entry of a block that no measured model has, with the ends of its interval."""
        return cls(
            key=key,
            ms=ms,
            ci_low=max(low, 0.0),
            ci_high=high,
            removal_ms=None,
            removal_ci_low=None,
            removal_ci_high=None,
            loads=0,
            rounds=0,
            method="prior",
            identified="prior",
            **features.model_dump(),
        )

    @property
    def features(self) -> KeyFeatures:
        """Features that its prior rests on."""
        return KeyFeatures.of(self)


class DeviceInfo(Value):
    """The measured device as it describes itself."""

    name: Name
    model: Text
    soc: Text
    os: Text
    os_build: Text
    cores: Annotated[int, Field(ge=1, le=4096)]
    memory_bytes: Count


class Versions(Value):
    """Versions of the software that a measurement depends on."""

    runtime: Text
    exporter: Text
    agent: Text


class HeldoutError(Value):
    """Accuracy of predictions on whole models that were never fitted; `within_5`: the fraction within 5 %."""

    models: Annotated[int, Field(ge=1, le=MAX_MODELS)]
    mape: Annotated[float, Field(ge=0)]
    within_5: Fraction
    within_10: Fraction
    kendall_tau: Annotated[float, Field(ge=-1, le=1)] | None


class Coefficients(Value):
    """Coefficients of the physics of blocks (`luts.estimate.physics`).

    constant_ms + ms_per_mmac * other MACs / 1e6 + ms_per_depthwise_mmac * depthwise MACs / 1e6 + ms_per_mib *
    MiB of activations and weights moved. A MAC of a depthwise convolution took four times one of a matrix
    product on x86.
    """

    constant_ms: Ms
    ms_per_mmac: Ms
    ms_per_depthwise_mmac: Ms = 0.0
    ms_per_mib: Ms


class KindPrior(Coefficients):
    """Physical prior of a kind of block."""

    kind: Name


class Conformal(Value):
    """Relative half-widths of split-conformal prediction intervals; None: too few held-out models.

    `posterior_half_width_95`: of the posterior predictive, calibrated by networks that were left out of
    the fit; None where the LUT rests on no other device's.
    """

    half_width_90: Annotated[float, Field(ge=0)] | None
    half_width_95: Annotated[float, Field(ge=0)] | None
    posterior_half_width_95: Annotated[float, Field(ge=0)] | None = None


class OperatorFit(Value):
    """Learned values by which a LUT of operators prices any network (`luts.format.operator_latency`).

    Attributes:
        tiles: Rows and columns of the output that a kernel computes at once, by kind of operator.
        entry_sd: Relative deviation of single operators from others alike.
        kind_sd: Relative deviation of all operators of a kind from physics.
        shared_sd: Relative deviation that similar operators of a kind share.
        quantile_95: Predictive standard deviations that a 95 % interval reaches.
        basis: Origin of `quantile_95`: conformal over held-out families, or `posterior` where networks were few.
        extrapolated_sd: Predictive standard deviation above which held-out networks mostly missed 10 %.
    """

    tiles: Annotated[dict[Name, tuple[Tile, Tile]], Field(max_length=256)]
    entry_sd: Annotated[float, Field(gt=0)]
    kind_sd: Annotated[float, Field(gt=0)]
    shared_sd: Annotated[float, Field(gt=0)]
    quantile_95: Annotated[float, Field(gt=0, le=1e3)]
    basis: Literal["conformal", "posterior"]
    extrapolated_sd: Annotated[float, Field(ge=0)]


class TransferSource(Value):
    """Another LUT's entries, stored in the LUT that was learned from them so that it can be recomputed alone.

    `digest` is sha256 of its lut.json, or a published table's own. `entry_ms` are in the order of the keys of
    the LUT that stores them, None for those that the source lacks; `entry_se` are their standard errors,
    empty where the source has none.
    """

    name: Text
    digest: Sha256
    measured: Literal["measured", "simulated", "published"]
    base_ms: Ms
    transfer_ms_per_mib: Ms
    entry_ms: Annotated[tuple[Ms | None, ...], Field(min_length=1, max_length=MAX_ENTRIES)]
    entry_se: Annotated[tuple[Ms | None, ...], Field(max_length=MAX_ENTRIES)] = ()

    def priced(self, keys: Sequence[str]) -> tuple[dict[str, float], dict[str, float]]:
        """Return the entries that it has of the storing LUT's keys, and their standard errors, by key."""

        def known(values: Sequence[float | None]) -> dict[str, float]:
            return {key: value for key, value in zip(keys, values, strict=True) if value is not None}

        return known(self.entry_ms), known(self.entry_se or [None] * len(keys))


class UnitSegments(Value):
    """One unit of a class of devices: a digest of its serial, and the (batch, segment) that ran on it."""

    unit: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{12}$")]
    sessions: Annotated[tuple[tuple[Count, Count], ...], Field(max_length=MAX_MODELS)]


class UnitVariation(Value):
    """Relative standard deviations between units of a device class; None where they can't be estimated.

    `reference` is of the reference's milliseconds, `ratio` of models' ratios to it in addition to load
    variance.
    """

    units: Annotated[int, Field(ge=1, le=4096)]
    reference: Annotated[float, Field(ge=0)] | None
    ratio: Annotated[float, Field(ge=0)] | None


class LutInputs(Value):
    """Subject and conditions of a LUT's measurement: all of lut.json that does not follow from samples.

    Attributes:
        failures: Planned models that could not be exported or run, with the reason.
        caveats: Reasons not to measure that the user overrode, and a fair thermal state that did not pass.
        qos: Quality of service of the timing thread.
        keep_warm: Whether a load kept the processor warm between runs.
        fixed_performance: Whether Android's mode of fixed clocks was on; false also where unknown, as in
            older LUTs.
        sustained_performance: Android's mode for long work.
        cores: Lists of cores that threads could run on (`4-8`).
        reference_usage: Use of the reference alone, besides time: `memory_mib` and `energy_mj` (a call) with
            the ends of their intervals, `memory_peak`; as far as the device reports it.
        input_buffers: Place of Core ML inputs (`iosurface` or `copied`).
        units: Units of a class of devices that share the measurement; empty for a single device.
        sources: Other LUTs that it was learned from.

    Conditions (`caveats` to `cores`, `input_buffers`) list all values of kept batches.
    """

    device: DeviceInfo
    versions: Versions
    space: Name
    space_hash: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8,64}$")]
    variant: Name
    policy: Annotated[
        dict[Annotated[str, StringConstraints(pattern=r"^[!-~]{1,64}$")], bool | int | float | Text],
        Field(max_length=64),
    ]
    reference_id: ModelId
    created: IsoDate
    measured: Literal["measured", "simulated"]
    failures: Annotated[
        dict[ModelId, Annotated[str, Field(max_length=MAX_REASON)]], Field(max_length=MAX_MODELS)
    ] = Field(default_factory=dict)
    caveats: Annotated[tuple[Name, ...], Field(max_length=16)] = ()
    qos: Annotated[tuple[Text, ...], Field(max_length=16)] = ()
    keep_warm: Literal["on", "off", "both"] | None = None
    fixed_performance: bool = False
    sustained_performance: Literal["on", "off", "both"] | None = None
    cores: Annotated[tuple[Text, ...], Field(max_length=64)] = ()
    reference_usage: Annotated[
        dict[Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,64}$")], float], Field(max_length=16)
    ] = Field(default_factory=dict)
    input_buffers: Annotated[tuple[Name, ...], Field(max_length=16)] = ()
    units: Annotated[tuple[UnitSegments, ...], Field(max_length=4096)] = ()
    sources: Annotated[tuple[TransferSource, ...], Field(max_length=MAX_SOURCES)] = ()


class LutMeta(LutInputs):
    """lut.json without its digests.

    `noise_floor` is the robust spread of A/A log differences, `load_sd` the pooled load-to-load standard
    deviation of one load's log latency, `misfit_sd` the relative misfit of additivity found by the joint fit.
    `dropped_sources` are those that the measurements do not support: by how much (natural logarithm) the
    measurements are likelier without them; less than 0 where they are hardly likelier with them.
    """

    format_version: Literal[1] = 1
    reference_ms: PositiveMs
    reference_ci_low: PositiveMs
    reference_ci_high: PositiveMs
    noise_floor: Annotated[float, Field(ge=0)]
    load_sd: Annotated[float, Field(ge=0)]
    misfit_sd: Annotated[float, Field(ge=0)]
    base_ms: Ms
    transfer_ms_per_mib: Ms
    prior: Annotated[tuple[KindPrior, ...], Field(max_length=256)]
    heldout_error: HeldoutError | None
    conformal: Conformal
    operators: OperatorFit | None = None
    unit_spread: UnitVariation | None = None
    dropped_sources: Annotated[dict[Text, float], Field(max_length=MAX_SOURCES)] = Field(default_factory=dict)


class Digests(Value):
    """sha256 of a LUT's other three files."""

    entries: Sha256
    models: Sha256
    samples: Sha256


class LutFile(LutMeta):
    """lut.json: `sha256` of the other three files, `digest` of its own canonical JSON without that field."""

    sha256: Digests
    digest: Sha256
