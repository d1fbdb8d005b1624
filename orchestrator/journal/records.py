"""The records of a measurement journal; every record that is read from a file is validated here."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from luts.format.errors import BlocktimeError, InvalidArtifactError, first_problem
from luts.format.schema import MAX_BLOCKS, Ms
from orchestrator.wire.client import RunResult
from orchestrator.wire.messages import MAX_OPERATIONS, DeviceState, InputBuffers, LoadReply, Placement, Warmed


class MeasurementRejectedError(BlocktimeError):
    """The device was never quiet, cool or stable enough for a measurement to count."""


MAX_SLOTS = 256
MAX_ROUNDS = 100_000

ModelId = Annotated[str, Field(pattern=r"^[0-9a-z._-]{1,64}$")]
Index = Annotated[int, Field(ge=0, le=1 << 31)]
Nanoseconds = Annotated[int, Field(ge=0, le=2**53)]
UnitSerial = Annotated[str, Field(max_length=256)]


def _decode_samples(value: object) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    try:
        return np.frombuffer(base64.b64decode(str(value)), dtype="<i8")
    except binascii.Error as error:
        raise ValueError(str(error)) from None


def _encode_samples(samples: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(samples, dtype="<i8").tobytes()).decode()


Samples = Annotated[np.ndarray, BeforeValidator(_decode_samples), PlainSerializer(_encode_samples)]
"""Nanoseconds, int64 [rounds, calls]; in the file the base64 of little-endian int64, round by round."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class _TimedCalls(_Record):
    """A record with timed calls: `order[r][c]` is the slot (or index) of call c in round r, `ns` their times."""

    order: Annotated[list[Annotated[list[Index], Field(max_length=200_000)]], Field(max_length=200_000)]
    ns: Samples

    @model_validator(mode="after")
    def _one_sample_per_call(self) -> Self:
        calls = len(self.order[0]) if self.order else 0
        if self.ns.size != len(self.order) * calls or any(len(row) != calls for row in self.order):
            raise ValueError(f"{self.ns.size} samples for another schedule")
        object.__setattr__(self, "ns", self.ns.reshape(len(self.order), calls))
        return self


_NEUTRAL_POLICY_FIELDS = ("warmup_ms", "self_test", "calls")
"""Fields of a policy that journals of earlier versions lack, and that do not change what their samples mean."""


class Identity(_Record):
    """What must not change between two parts of one measurement.

    Attributes:
        fixed_performance: Whether Android's mode of that name was on; false also if unknown.
        policy: Fields of `orchestrator.plan.plan.Policy`.
        artifacts: SHA-256 of the model files by model id.
    """

    device_model: str
    soc: str
    os: str
    os_build: str
    agent: str
    runtime: str
    variant: str
    plan: str
    fixed_performance: bool = False
    policy: dict[str, int | float]
    artifacts: dict[ModelId, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]]

    def differences(self, other: Identity) -> list[str]:
        """Return one line for each difference, old against new.

        A policy field that the old journal does not have counts only if the new value is set and changes samples.
        """
        lines = []
        for name in type(self).model_fields:
            old, new = getattr(self, name), getattr(other, name)
            if name == "policy":
                new = {
                    key: new.get(key)
                    for key in new
                    if key in old or (new[key] and key not in _NEUTRAL_POLICY_FIELDS)
                }
            if old == new:
                continue
            if isinstance(old, dict):
                changed = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
                lines.append(f"{name} ({', '.join(changed[:3])}{', …' if len(changed) > 3 else ''})")
            else:
                lines.append(f"{name} ({old} is now {new})")
        return lines


class Header(_Record):
    """First record: what is measured, with what, since when."""

    kind: Literal["header"] = "header"
    format: Literal[1] = 1
    identity: Identity
    reference_id: ModelId
    seed: int
    created: str
    simulated: bool


class BatchRecord(_Record):
    """Models that were loaded together; a batch that was interrupted continues in another segment.

    Attributes:
        slots: Model of each slot.
        copies: For each slot, 1 for the second load of the reference, else 0.
        load_ns: Load time of each slot; `compile_ns`, `cached` and `input_buffers` are those of PROTOCOL.md's
            `load`, None if the runtime does not report them.
        state_before: State of the device before the loads, only in sustained runs.
        unit: Serial of the fleet's unit that ran this segment; empty for a single device.
    """

    kind: Literal["batch"] = "batch"
    batch: Index
    segment: Annotated[int, Field(ge=0, le=1000)]
    pass_index: Index
    group: Index
    attempt: Index
    slots: Annotated[list[ModelId], Field(min_length=1, max_length=MAX_SLOTS)]
    copies: Annotated[list[Annotated[int, Field(ge=0, le=1)]], Field(max_length=MAX_SLOTS)]
    load_ns: Annotated[list[Nanoseconds], Field(max_length=MAX_SLOTS)]
    compile_ns: Annotated[list[Nanoseconds | None], Field(max_length=MAX_SLOTS)] = []
    cached: Annotated[list[bool | None], Field(max_length=MAX_SLOTS)] = []
    input_buffers: Annotated[list[InputBuffers | None], Field(max_length=MAX_SLOTS)] = []
    state_before: DeviceState | None = None
    unit: UnitSerial = ""

    @model_validator(mode="after")
    def _slots_agree(self) -> Self:
        if len(self.copies) != len(self.slots):
            raise ValueError(f"{len(self.copies)} copies for {len(self.slots)} slots")
        return self

    def with_loads(self, loads: Sequence[LoadReply]) -> Self:
        """Return the batch once each of its slots is loaded."""
        names = ("load_ns", "compile_ns", "cached", "input_buffers")
        return self.model_copy(update={name: [getattr(load, name) for load in loads] for name in names})


class RoundsRecord(_TimedCalls):
    """Some rounds of a batch; `order` holds slots.

    Attributes:
        first_round: Number of the first of the rounds in the batch.
        settle_runs: Of a slot's calls in a row, so many at the start are not samples.
        warmed: How the run was warmed up by time; None if it was not.
        rejected: Why the rounds do not count (they are repeated); empty if they count.
    """

    kind: Literal["chunk"] = "chunk"
    batch: Index
    segment: Annotated[int, Field(ge=0, le=1000)]
    first_round: Annotated[int, Field(ge=0, le=MAX_ROUNDS)]
    settle_runs: Annotated[int, Field(ge=0, le=100)]
    state_before: DeviceState
    state_after: DeviceState
    warmed: Warmed | None = None
    rejected: Annotated[str, Field(max_length=4096)] = ""

    @classmethod
    def from_run(
        cls,
        batch: BatchRecord,
        first_round: int,
        settle_runs: int,
        order: Sequence[Sequence[int]],
        result: RunResult,
        rejected: str = "",
    ) -> Self:
        """Return the record of a run of a batch's rounds."""
        return cls(
            batch=batch.batch,
            segment=batch.segment,
            first_round=first_round,
            settle_runs=settle_runs,
            order=[list(calls) for calls in order],
            ns=result.samples,
            state_before=result.state_before,
            state_after=result.state_after,
            warmed=result.warmed,
            rejected=rejected,
        )

    def timed_calls(self) -> list[int]:
        """Return the positions of the calls in a round that are samples: the last of `settle_runs + 1` in a row."""
        return list(range(self.settle_runs, len(self.order[0]), self.settle_runs + 1))


class EndRecord(_Record):
    """A batch is complete: kept, or rejected for `reason`. `aa` is its A/A log difference and interval."""

    kind: Literal["end"] = "end"
    batch: Index
    kept: bool
    reason: str
    aa: list[float]


class UsageRecord(_Record):
    """A model alone in the agent, called without a pause before the first batch; states of the device.

    Attributes:
        empty: State before the agent loaded any model (of the first such record).
        before: State before this model was loaded.
        after: States after each run of the model.
        calls: Number of all calls, including the warm-up.
    """

    kind: Literal["usage"] = "usage"
    model: ModelId
    empty: DeviceState
    before: DeviceState
    after: Annotated[list[DeviceState], Field(min_length=1, max_length=100)]
    calls: Annotated[int, Field(ge=1, le=1 << 31)]


class InterferenceRecord(_TimedCalls):
    """A part of the interference self-test: calls of the reference (index 0) and of other models.

    Attributes:
        residents: Number of loaded models.
        unit: As in `BatchRecord`.
        keep_warm: Whether the processor was kept busy before calls; None if the run did not say.
    """

    kind: Literal["company"] = "company"
    residents: Annotated[int, Field(ge=1, le=MAX_SLOTS)]
    unit: UnitSerial = ""
    keep_warm: bool | None = None


class DecisionRecord(_Record):
    """What the self-test decided, and why; replaces the policy's values in all later batches."""

    kind: Literal["decision"] = "decision"
    settle_runs: Annotated[int, Field(ge=0, le=100)]
    batch_models: Annotated[int, Field(ge=1, le=MAX_SLOTS)]
    keep_warm: bool = False
    reason: Annotated[str, Field(max_length=4096)]


class FailureRecord(_Record):
    """A model that this device's runtime refuses, or that crashes the agent; excluded from then on."""

    kind: Literal["failure"] = "failure"
    model: ModelId
    reason: Annotated[str, Field(max_length=4096)]


ComputeUnit = Literal["cpu", "gpu", "neural_engine"]
PlacedType = tuple[Annotated[str, Field(max_length=256)], ComputeUnit]
"""Type of an operation and the compute unit that runs it."""


class PlacementRecord(_Record):
    """Compute units of a model's operations, in program order; written at the model's first load."""

    kind: Literal["placement"] = "placement"
    model: ModelId
    operations: Annotated[list[PlacedType], Field(min_length=1, max_length=MAX_OPERATIONS)]

    @classmethod
    def of(cls, model: str, placement: Placement | None) -> Self | None:
        """Return the record of a model's placement; None if the runtime does not report its operations."""
        if placement is None or not placement.operations:
            return None
        placed = [(operation.type, operation.unit) for operation in placement.operations]
        return cls(model=model, operations=placed)


class TraceRecord(_Record):
    """Milliseconds of a program's operators, in their order in the plan, by the runtime's event tracer."""

    kind: Literal["trace"] = "trace"
    model: ModelId
    operator_ms: Annotated[list[Ms], Field(min_length=1, max_length=MAX_BLOCKS)]


class ChosenModel(_Record):
    """A network that was chosen while measuring: architecture as JSON, and the digest of its model file."""

    model: ModelId
    arch: Annotated[str, Field(max_length=1 << 16)]
    artifact: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ChoiceRecord(_Record):
    """Networks that were added to the plan while measuring, from pass `pass_index` on, and why.

    `half_width` is the relative half-width of predictions before the choice; None if unknown.
    """

    kind: Literal["choice"] = "choice"
    pass_index: Index
    models: Annotated[list[ChosenModel], Field(min_length=1, max_length=MAX_SLOTS)]
    half_width: Annotated[float, Field(ge=0)] | None = None
    reason: Annotated[str, Field(max_length=4096)]


Record = (
    Header
    | BatchRecord
    | RoundsRecord
    | EndRecord
    | FailureRecord
    | PlacementRecord
    | TraceRecord
    | InterferenceRecord
    | UsageRecord
    | DecisionRecord
    | ChoiceRecord
)
_RECORD: TypeAdapter[Record] = TypeAdapter(Annotated[Record, Field(discriminator="kind")])


def parse_record(document: dict[str, Any]) -> Record:
    """Return a validated record; raises InvalidArtifactError, which names the first problem."""
    try:
        return _RECORD.validate_python(document)
    except ValidationError as error:
        raise InvalidArtifactError(
            f"invalid journal record: {first_problem(error)}", code="invalid_journal"
        ) from error
