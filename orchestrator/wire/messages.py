"""Requests and replies as values; protocol/schemas/ is generated from these models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.wire.frames import encode_header

PROTOCOL_VERSION = 1
MAX_HANDLES = 256
MAX_VISITS = 200_000
MAX_WARMUP = 1_000
MAX_WARMUP_MS = 60_000
MAX_PACE_US = 1_000_000
MAX_HEARTBEAT_S = 600
MAX_TENSORS = 64
MAX_OPERATIONS = 8_192

Count = Annotated[int, Field(ge=0, le=2**53 - 1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", min_length=64, max_length=64)]
Name = Annotated[str, Field(min_length=1, max_length=64)]
Text = Annotated[str, Field(max_length=256)]
DType = Literal["float32", "float16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool"]
OptionValue = Annotated[bool | int | str, Field(union_mode="smart")]
PayloadBytes = Annotated[int, Field(ge=0, le=1 << 30)]


class WireValue(BaseModel):
    """A value in a message; fields that an agent adds are ignored."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", protected_namespaces=())


class TensorSpec(WireValue):
    """Element type and shape of one input or output; bytes are little-endian, row-major."""

    dtype: DType
    shape: Annotated[list[Annotated[int, Field(ge=0, le=2**31 - 1)]], Field(max_length=8)]


class CpuClock(WireValue):
    """Clock of a core, its current limit, and the limit of its hardware."""

    cpu: Count
    mhz: float | None
    max_mhz: float | None
    governor: Text | None
    hardware_max_mhz: float | None = None


class ThermalZone(WireValue):
    """Temperature of a thermal zone."""

    name: Text
    celsius: float


class Battery(WireValue):
    """State of the battery; `charge_uah` is what is left, by its own counter."""

    percent: float
    charging: bool | None
    celsius: float | None
    charge_uah: Count | None = None
    voltage_mv: Count | None = None


Caveat = Literal["debuggable_build", "power_save", "low_battery", "throttled", "background"]


class DeviceState(WireValue):
    """State of the device at a moment; a field is null if the device does not report it.

    `caveats` are reasons not to measure that the agent was asked to ignore, `cores` those that its threads
    may run on (`4-8`).
    """

    uptime_ns: Count
    load_average_1m: float | None
    cpus: list[CpuClock]
    steal_ms: Count | None
    thermal_state: Literal["nominal", "fair", "serious", "critical"] | None
    thermal_headroom: float | None
    thermal_zones: list[ThermalZone]
    throttle_count: Count | None
    battery: Battery | None
    low_power_mode: bool | None
    free_memory_bytes: Count | None
    agent_memory_bytes: Count | None
    agent_peak_memory_bytes: Count | None = None
    qos: Text | None
    foreground: bool | None
    keep_warm: bool | None = None
    sustained_performance: bool | None = None
    cores: Text | None = None
    caveats: list[Caveat] = Field(default=[], max_length=16)


HeartbeatSeconds = Annotated[int, Field(ge=0, le=MAX_HEARTBEAT_S)]
"""Requested interval of heartbeats; 0: none."""


class Request(BaseModel):
    """Every request has an id, and no payload unless the operation defines one."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    id: Count
    payload: Annotated[int, Field(ge=0, le=0)] = 0
    op: str


class HelloRequest(Request):
    """First request of a connection: protocol version and token."""

    op: Literal["hello"]
    protocol: Annotated[int, Field(ge=1, le=1_000_000)]
    token: Annotated[str, Field(min_length=1, max_length=256)]


class HaveRequest(Request):
    """Whether the store has a model."""

    op: Literal["have"]
    sha256: Sha256


class PutRequest(Request):
    """Store a model; the payload is its file."""

    op: Literal["put"]
    sha256: Sha256
    payload: Annotated[int, Field(ge=1, le=1 << 30)]


class LoadRequest(Request):
    """Load a stored model; `placement`: whether the reply contains it."""

    op: Literal["load"]
    sha256: Sha256
    runtime: Name
    options: Annotated[dict[str, OptionValue], Field(max_length=32)] = {}
    placement: bool = True
    heartbeat_s: HeartbeatSeconds = 0


class PlacementRequest(Request):
    """Report the compute units of a loaded model's operations."""

    op: Literal["placement"]
    handle: Count
    heartbeat_s: HeartbeatSeconds = 0


class UnloadRequest(Request):
    """Free a loaded model."""

    op: Literal["unload"]
    handle: Count


class CheckRequest(Request):
    """Execute a model once with the inputs in the payload."""

    op: Literal["check"]
    handle: Count
    inputs: Annotated[list[TensorSpec], Field(max_length=MAX_TENSORS)]
    payload: PayloadBytes = 0


class RunRequest(Request):
    """Time a schedule: `order[r][c]` is the index into `handles` of the model of call c in round r.

    `warmup_ms`: longest warm-up until latencies stop falling; 0: none. `pace_us`: least time between the
    starts of two calls; 0: none. `keep_warm`: whether the processor is kept busy before calls; if not set, as
    the agent's user has it.
    """

    op: Literal["run"]
    handles: Annotated[list[Count], Field(min_length=1, max_length=MAX_HANDLES)]
    order: Annotated[
        list[
            Annotated[
                list[Annotated[int, Field(ge=0, lt=MAX_HANDLES)]], Field(min_length=1, max_length=MAX_VISITS)
            ]
        ],
        Field(min_length=1, max_length=MAX_VISITS),
    ]
    warmup: Annotated[int, Field(ge=0, le=MAX_WARMUP)]
    heartbeat_s: HeartbeatSeconds = 0
    warmup_ms: Annotated[int, Field(ge=0, le=MAX_WARMUP_MS)] = 0
    pace_us: Annotated[int, Field(ge=0, le=MAX_PACE_US)] = 0
    keep_warm: bool = False


class StateRequest(Request):
    """Report the device's state."""

    op: Literal["state"]


class ByeRequest(Request):
    """End the connection."""

    op: Literal["bye"]


REQUESTS: dict[str, type[Request]] = {
    kind.__name__.removesuffix("Request").lower(): kind for kind in Request.__subclasses__()
}


def request_id_of(header: dict[str, Any]) -> int | None:
    """Return the id for the reply to a header; None if it has no valid one."""
    request_id = header.get("id")
    return request_id if type(request_id) is int and 0 <= request_id < 2**53 else None


class AgentInfo(WireValue):
    """Name and version of an agent."""

    name: Name
    version: Name


class DeviceInfo(WireValue):
    """What the device is; null if unknown. `simulated`: the agent runs on another device than it names."""

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
    """Version, backends and load options of a runtime."""

    version: Text
    backends: Annotated[list[Text], Field(max_length=64)]
    options: dict[str, OptionInfo]


class Reply(WireValue):
    """Every reply has the id of its request."""

    id: Count


class HelloReply(Reply):
    """What an agent and its device are and support.

    `heartbeat`, `timed_warmup`, `pace`, `keep_warm`: whether a run may have `heartbeat_s`, `warmup_ms`,
    `pace_us`, `keep_warm`. `heartbeat_ops`: other operations that may have `heartbeat_s`.
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
    """Whether the store has the model."""

    present: bool


class PutReply(Reply):
    """Number of bytes that were stored."""

    bytes: Count


class Delegate(WireValue):
    """A backend that took parts of the program, and how many separate parts (each an entry and an exit)."""

    backend: Text
    count: Count


class PlacedOperation(WireValue):
    """An operation of the program, the unit that runs it, and its fraction of the runtime's estimated cost."""

    name: Text
    type: Text
    unit: Literal["cpu", "gpu", "neural_engine"]
    cost: Annotated[float, Field(ge=0, le=1)] | None = None


class Placement(WireValue):
    """Operations by the compute unit that the runtime chose, and each of them if the runtime reports it."""

    cpu: Count
    gpu: Count
    neural_engine: Count
    operations: list[PlacedOperation] = Field(default=[], max_length=MAX_OPERATIONS)


InputBuffers = Literal["iosurface", "copied"]


class LoadReply(Reply):
    """A loaded model: its handle, load time, inputs, outputs, delegates and placement."""

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
    """Compute units of a loaded model's operations."""

    placement: Placement | None


class UnloadReply(Reply):
    """The model is freed."""


class CheckReply(Reply):
    """Specs of the outputs; the payload has their values."""

    outputs: Annotated[list[TensorSpec], Field(max_length=MAX_TENSORS)]
    payload: PayloadBytes = 0


class TracedOperation(WireValue):
    """An operation of one execution: the delegate call that it was part of (null outside), and its time."""

    name: Text
    call: Count | None
    ns: Annotated[float, Field(ge=0, le=1e15)]


class Warmed(WireValue):
    """A warm-up by time: nanoseconds in the models, executions of each, whether latencies had stopped falling."""

    ns: Count
    rounds: Count
    steady: bool


class RunReply(Reply):
    """Result of a run; the payload is rounds x calls big-endian u64 nanoseconds, in the order of the calls.

    `warmed` is None without a warm-up by time. `operations` has, for each handle, what a model loaded with
    `trace` executed; empty for the others.
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
    """A heartbeat before a reply.

    `running`: executions so far.
    """

    running: Count


class StateReply(Reply):
    """The device's state."""

    state: DeviceState


class ByeReply(Reply):
    """The agent closes the connection."""


class ErrorBody(WireValue):
    """Code and message of an error."""

    code: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    message: Annotated[str, Field(max_length=4096)]


class ErrorReply(WireValue):
    """The answer to a request that failed; `id` is null if the request's id could not be read."""

    id: Count | None
    error: ErrorBody


_REPLY_TYPES: list[type[WireValue]] = [*Reply.__subclasses__(), ErrorReply]
REPLIES = {kind.__name__.removesuffix("Reply").lower(): kind for kind in _REPLY_TYPES}


MAX_MESSAGE = 1000
"""Characters of an error's message that are sent."""


def error_reply(request_id: int | None, code: str, message: str) -> ErrorReply:
    """Return the answer to a request that failed; the message is cut to one line."""
    return ErrorReply(
        id=request_id, error=ErrorBody(code=code, message=" ".join(message.split())[:MAX_MESSAGE])
    )


def reply_frame(reply: Reply | ErrorReply, payload: bytes = b"") -> bytes:
    """Return a reply as bytes, without fields that were not set."""
    header = reply.model_dump(include=reply.model_fields_set - {"payload"})
    return encode_header(header, len(payload)) + payload


def spec_of(array: np.ndarray) -> TensorSpec:
    """Return the element type and shape of `array`; raises ValidationError for an unsupported type."""
    return TensorSpec.model_validate({"dtype": array.dtype.name, "shape": list(array.shape)})


def spec_bytes(spec: TensorSpec) -> int:
    """Return the size of a tensor in bytes, in exact integers (a hostile shape can't overflow)."""
    return math.prod(spec.shape) * np.dtype(spec.dtype).itemsize


def pack(arrays: Sequence[np.ndarray]) -> bytes:
    """Return the payload for `arrays`."""
    return b"".join(np.ascontiguousarray(a, dtype=a.dtype.newbyteorder("<")).tobytes() for a in arrays)


def unpack(specs: Sequence[TensorSpec], payload: bytes) -> list[np.ndarray]:
    """Return the arrays in `payload`; raises ValueError if its length does not fit `specs`."""
    sizes = [spec_bytes(spec) for spec in specs]
    if sum(sizes) != len(payload):
        raise ValueError(f"the tensors need {sum(sizes)} bytes of payload, got {len(payload)}")
    arrays, offset = [], 0
    for spec, size in zip(specs, sizes, strict=True):
        wire_dtype = np.dtype(spec.dtype).newbyteorder("<")
        raw = np.frombuffer(payload, wire_dtype, count=math.prod(spec.shape), offset=offset)
        arrays.append(raw.reshape(spec.shape).astype(spec.dtype))
        offset += size
    return arrays
