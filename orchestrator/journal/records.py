"""What a measurement journal holds, as values; every record read from a file is validated here."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from luts.format.errors import BlocktimeError, InvalidArtifactError, first_problem
from orchestrator.wire.messages import MAX_OPERATIONS, InputBuffers, Warmed


class MeasurementRejectedError(BlocktimeError):
    """The device never was quiet, cool or stable enough for a measurement to count."""


MAX_SLOTS = 256
MAX_ROUNDS = 100_000

ModelId = Annotated[str, Field(pattern=r"^[0-9a-z._-]{1,64}$")]
Index = Annotated[int, Field(ge=0, le=1 << 31)]
Nanoseconds = Annotated[int, Field(ge=0, le=2**53)]
Unit = Annotated[str, Field(max_length=256)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


_HARMLESS = ("warmup_ms", "self_test", "calls")


class Identity(_Record):
    """What must not change between two parts of one measurement; each field is compared by name.

    `fixed_performance`: Android's mode of that name was on; false also where that is not known.
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
        """One line for each thing that differs, old against new.

        What a policy of before did not know yet, it did without; a warm-up and a self-test that are new are no
        difference to its samples.
        """
        lines = []
        for name in type(self).model_fields:
            old, new = getattr(self, name), getattr(other, name)
            if name == "policy":
                new = {key: new.get(key) for key in new if key in old or (new[key] and key not in _HARMLESS)}
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
    """A set of fresh loads side by side; a batch that was cut off goes on in a further segment.

    `slots[i]` is the model of slot i, `copies[i]` 1 for the second load of the reference. `compile_ns`, `cached`
    and `input_buffers` are those of PROTOCOL.md's `load`, None where the runtime does not tell. `state_before`
    is the device's before the loads, of sustained runs alone. `unit` is the serial of the unit of a fleet that
    this segment ran on, empty where there is one device alone.
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
    state_before: dict[str, Any] | None = None
    unit: Unit = ""


class RoundsRecord(_Record):
    """Some rounds of a batch. `order[r][v]` is the slot that round `first_round + r` visits at position v;
    `ns` is the base64 of little-endian int64 nanoseconds, round by round. Of the visits of a slot in a row, the
    first `settle_runs` are not samples. `warmed` is None where the agent does not warm up by time. `rejected` says
    why the chunk does not count; its rounds are visited again.
    """

    kind: Literal["chunk"] = "chunk"
    batch: Index
    segment: Annotated[int, Field(ge=0, le=1000)]
    first_round: Annotated[int, Field(ge=0, le=MAX_ROUNDS)]
    settle_runs: Annotated[int, Field(ge=0, le=100)]
    order: Annotated[list[Annotated[list[Index], Field(max_length=200_000)]], Field(max_length=200_000)]
    ns: str
    state_before: dict[str, Any]
    state_after: dict[str, Any]
    warmed: Warmed | None = None
    rejected: Annotated[str, Field(max_length=4096)] = ""

    def nanoseconds(self) -> np.ndarray:
        """int64 [rounds, visits].

        Raises:
            InvalidArtifactError: the text does not hold that many numbers.
        """
        raw = np.frombuffer(base64.b64decode(self.ns), dtype="<i8")
        visits = len(self.order[0]) if self.order else 0
        if raw.size != len(self.order) * visits or any(len(row) != visits for row in self.order):
            raise InvalidArtifactError(
                f"journal: batch {self.batch} has {raw.size} samples for another schedule"
            )
        return raw.reshape(len(self.order), visits)


class EndRecord(_Record):
    """A batch is complete: kept, or rejected for `reason`. `aa` is its A/A log difference and interval."""

    kind: Literal["end"] = "end"
    batch: Index
    kept: bool
    reason: str
    aa: list[float]


class UsageRecord(_Record):
    """A model alone in the agent, called without a pause before the first batch: states of the device.

    `empty` is that of the first such record, before the agent loaded any model; `before` that before this one was
    loaded, `after` those behind each run of it. `calls` are all of them, those of warming up by number included.
    """

    kind: Literal["usage"] = "usage"
    model: ModelId
    empty: dict[str, Any]
    before: dict[str, Any]
    after: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=100)]
    calls: Annotated[int, Field(ge=1, le=1 << 31)]


class InterferenceRecord(_Record):
    """A part of the self-test: visits to the reference (index 0) and others, of so many loaded models; `unit` as in
    batches.

    `keep_warm` is None where the run did not say whether the processor is kept busy before visits.
    """

    kind: Literal["company"] = "company"
    residents: Annotated[int, Field(ge=1, le=MAX_SLOTS)]
    order: Annotated[list[list[Index]], Field(max_length=MAX_ROUNDS)]
    ns: str
    unit: Unit = ""
    keep_warm: bool | None = None


class DecisionRecord(_Record):
    """What the self-test decided for all batches after it, and why; these take the place of the policy's."""

    kind: Literal["decision"] = "decision"
    settle_runs: Annotated[int, Field(ge=0, le=100)]
    batch_models: Annotated[int, Field(ge=1, le=MAX_SLOTS)]
    keep_warm: bool = False
    reason: Annotated[str, Field(max_length=4096)]


class FailureRecord(_Record):
    """A model that this device's runtime refuses, or that takes the agent down; it is measured no more."""

    kind: Literal["failure"] = "failure"
    model: ModelId
    reason: Annotated[str, Field(max_length=4096)]


ComputeUnit = Literal["cpu", "gpu", "neural_engine"]
PlacedType = tuple[Annotated[str, Field(max_length=256)], ComputeUnit]
"""Type of an operation and the compute unit that runs it."""


class PlacementRecord(_Record):
    """Where the runtime put a model's operations, in program order; written at the model's first load."""

    kind: Literal["placement"] = "placement"
    model: ModelId
    operations: Annotated[list[PlacedType], Field(min_length=1, max_length=MAX_OPERATIONS)]


class ChosenModel(_Record):
    """A network that was chosen while measuring: architecture as JSON, and the digest of its model file."""

    model: ModelId
    arch: Annotated[str, Field(max_length=1 << 16)]
    artifact: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ChoiceRecord(_Record):
    """Networks to measure from `pass_index` on, which nobody had planned: chosen under what was measured before, as
    `reason` says. `half_width` is that of predictions then, relative; None where it was not known."""

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
    | InterferenceRecord
    | UsageRecord
    | DecisionRecord
    | ChoiceRecord
)
_RECORD: TypeAdapter[Record] = TypeAdapter(Annotated[Record, Field(discriminator="kind")])


def parse_record(document: dict[str, Any]) -> Record:
    """Validate one journal record; `InvalidArtifactError` says what is wrong with it."""
    try:
        return _RECORD.validate_python(document)
    except ValidationError as error:
        raise InvalidArtifactError(
            f"journal record does not fit its schema at {first_problem(error)}"
        ) from error


def pack_nanoseconds(samples: np.ndarray) -> str:
    """The text form of `RoundsRecord.ns`."""
    return base64.b64encode(np.ascontiguousarray(samples, dtype="<i8").tobytes()).decode()


def timed_visits(order: Sequence[int], settle_runs: int) -> list[int]:
    """Positions of a round's visits that count: of every `settle_runs + 1` in a row, the last."""
    return list(range(settle_runs, len(order), settle_runs + 1))
