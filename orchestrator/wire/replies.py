"""Replies as values. protocol/schemas/ is generated from these models and tested against them.

They ignore unknown fields, so that an agent may tell more than a client knows.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.wire.device_state import DeviceState
from orchestrator.wire.fields import (
    MAX_HANDLES,
    MAX_OPERATIONS,
    MAX_TENSORS,
    Count,
    Name,
    OptionValue,
    PayloadBytes,
    TensorSpec,
    Text,
    WireValue,
)
from orchestrator.wire.frames import encode_header


class AgentInfo(WireValue):
    name: Name
    version: Name


class DeviceInfo(WireValue):
    """What the device is; null where it does not tell. `simulated`: the agent runs on another than it names."""

    model: Text
    os: Text
    os_build: Text | None
    soc: Text | None
    cores: Annotated[int, Field(ge=1, le=4096)]
    memory_bytes: Count
    simulated: bool = False


class OptionInfo(WireValue):
    """One load option: its type, its default, and its range (`int`) or choices (`str`)."""

    type: Literal["bool", "int", "str"]
    default: OptionValue
    min: int | None = None
    max: int | None = None
    choices: Annotated[list[Text], Field(max_length=64)] | None = None


class RuntimeInfo(WireValue):
    version: Text
    backends: Annotated[list[Text], Field(max_length=64)]
    options: dict[str, OptionInfo]


class Reply(WireValue):
    id: Count


class HelloReply(Reply):
    """`heartbeat`, `timed_warmup`, `pace`, `keep_warm`: whether it takes `heartbeat_s`, `warmup_ms`, `pace_us`,
    `keep_warm` in a run.

    `heartbeat_ops`: in which other ops it takes `heartbeat_s`.
    """

    protocol: Count
    heartbeat: bool = False
    timed_warmup: bool = False
    heartbeat_ops: list[Name] = Field(default=[], max_length=16)
    pace: bool = False
    keep_warm: bool = False
    agent: AgentInfo
    device: DeviceInfo
    runtimes: dict[str, RuntimeInfo]


class HaveReply(Reply):
    present: bool


class PutReply(Reply):
    bytes: Count


class Delegate(WireValue):
    """A backend that took parts of the program, and how many separate parts (each an entry and an exit)."""

    backend: Text
    count: Count


class PlacedOperation(WireValue):
    """An operation of the program, the unit that runs it, and its share of the runtime's estimated cost."""

    name: Text
    type: Text
    unit: Literal["cpu", "gpu", "neural_engine"]
    cost: Annotated[float, Field(ge=0, le=1)] | None = None


class Placement(WireValue):
    """Operations by the compute unit that the runtime chose for them; each of them where the runtime tells."""

    cpu: Count
    gpu: Count
    neural_engine: Count
    operations: list[PlacedOperation] = Field(default=[], max_length=MAX_OPERATIONS)


InputBuffers = Literal["iosurface", "copied"]


class LoadReply(Reply):
    handle: Count
    load_ns: Count
    options: dict[str, OptionValue]
    inputs: Annotated[list[TensorSpec], Field(max_length=MAX_TENSORS)]
    outputs: Annotated[list[TensorSpec], Field(max_length=MAX_TENSORS)]
    delegates: list[Delegate] | None
    placement: Placement | None
    compile_ns: Count | None = None
    cached: bool | None = None
    input_buffers: InputBuffers | None = None


class PlacementReply(Reply):
    placement: Placement | None


class UnloadReply(Reply):
    pass


class CheckReply(Reply):
    outputs: Annotated[list[TensorSpec], Field(max_length=MAX_TENSORS)]
    payload: PayloadBytes = 0


class TracedOperation(WireValue):
    """An operation of one execution: which call into a delegate it was a part of (null outside), and its time."""

    name: Text
    call: Count | None
    ns: Annotated[float, Field(ge=0, le=1e15)]


class Warmed(WireValue):
    """A warm-up by time: nanoseconds in the models, executions of each, whether latencies had stopped falling."""

    ns: Count
    rounds: Count
    steady: bool


class RunReply(Reply):
    """The payload is rounds x visits big-endian u64 nanoseconds, in the order of the visits.

    `warmed` is None where no warm-up by time was asked for. `operations`, for each handle, is what a
    model loaded with `trace` executed; empty for the others.
    """

    rounds: Count
    visits: Count
    state_before: DeviceState
    state_after: DeviceState
    payload: PayloadBytes
    warmed: Warmed | None = None
    operations: list[Annotated[list[TracedOperation], Field(max_length=MAX_OPERATIONS)]] = Field(
        default=[], max_length=MAX_HANDLES
    )


class RunningReply(Reply):
    """A sign of life before a reply.

    `running`: executions of a run so far, those of the warm-up included; 0 in every other op.
    """

    running: Count


class StateReply(Reply):
    state: DeviceState


class ByeReply(Reply):
    pass


class ErrorBody(WireValue):
    code: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    message: Annotated[str, Field(max_length=4096)]


class ErrorReply(WireValue):
    """`id` is null where the failing request's id could not be read."""

    id: Count | None
    error: ErrorBody


REPLIES: dict[str, type[WireValue]] = {
    "hello": HelloReply,
    "have": HaveReply,
    "put": PutReply,
    "load": LoadReply,
    "placement": PlacementReply,
    "unload": UnloadReply,
    "check": CheckReply,
    "run": RunReply,
    "running": RunningReply,
    "state": StateReply,
    "bye": ByeReply,
    "error": ErrorReply,
}


MAX_MESSAGE = 1000
"""Characters of an error's message that are sent."""


def error_reply(request_id: int | None, code: str, message: str) -> ErrorReply:
    """What a request that failed is answered with; the message in one line, cut short."""
    return ErrorReply(
        id=request_id, error=ErrorBody(code=code, message=" ".join(message.split())[:MAX_MESSAGE])
    )


def reply_frame(reply: Reply | ErrorReply, payload: bytes = b"") -> bytes:
    """A reply as bytes, without those of its own fields that were not set."""
    header = reply.model_dump(include=reply.model_fields_set - {"payload"})
    return encode_header(header, len(payload)) + payload
