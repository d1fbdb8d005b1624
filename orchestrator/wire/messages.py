"""Requests and replies as values. protocol/schemas/ is generated from these models and tested against them.

Requests refuse unknown fields; replies ignore them, so that an agent may tell more than a client knows.
What a schema can't say (indices in range, equal lengths, total sizes) PROTOCOL.md says and the agent checks.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

PROTOCOL_VERSION = 1
MAX_HANDLES = 256
MAX_VISITS = 200_000
MAX_WARMUP = 1_000
MAX_TENSORS = 64
MAX_OPERATIONS = 8_192

Count = Annotated[int, Field(ge=0, le=2**53 - 1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", min_length=64, max_length=64)]
Name = Annotated[str, Field(min_length=1, max_length=64)]
Text = Annotated[str, Field(max_length=256)]
DType = Literal["float32", "float16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool"]
OptionValue = Annotated[bool | int | str, Field(union_mode="smart")]
PayloadBytes = Annotated[int, Field(ge=0, le=1 << 30)]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", protected_namespaces=())


class _Request(BaseModel):
    """Every request: its id and, where the op carries none, a payload that is absent or 0."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    id: Count
    payload: Annotated[int, Field(ge=0, le=0)] = 0


class TensorSpec(_Value):
    """Element type and shape of one input or output; bytes are little-endian, row-major."""

    dtype: DType
    shape: Annotated[list[Annotated[int, Field(ge=0, le=2**31 - 1)]], Field(max_length=8)]


class HelloRequest(_Request):
    op: Literal["hello"]
    protocol: Annotated[int, Field(ge=1, le=1_000_000)]
    token: Annotated[str, Field(min_length=1, max_length=256)]


class HaveRequest(_Request):
    op: Literal["have"]
    sha256: Sha256


class PutRequest(_Request):
    op: Literal["put"]
    sha256: Sha256
    payload: Annotated[int, Field(ge=1, le=1 << 30)]


class LoadRequest(_Request):
    op: Literal["load"]
    sha256: Sha256
    runtime: Name
    options: Annotated[dict[str, OptionValue], Field(max_length=32)] = {}


class UnloadRequest(_Request):
    op: Literal["unload"]
    handle: Count


class CheckRequest(_Request):
    op: Literal["check"]
    handle: Count
    inputs: Annotated[list[TensorSpec], Field(max_length=MAX_TENSORS)]
    payload: PayloadBytes = 0


class RunRequest(_Request):
    """`order[r][v]` is the index into `handles` of the model that round r visits at position v."""

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


class StateRequest(_Request):
    op: Literal["state"]


class ByeRequest(_Request):
    op: Literal["bye"]


Request = (
    HelloRequest
    | HaveRequest
    | PutRequest
    | LoadRequest
    | UnloadRequest
    | CheckRequest
    | RunRequest
    | StateRequest
    | ByeRequest
)


class AgentInfo(_Value):
    name: Name
    version: Name


class DeviceInfo(_Value):
    """What the device is; null where it does not tell. `simulated`: the agent runs on another than it names."""

    model: Text
    os: Text
    os_build: Text | None
    soc: Text | None
    cores: Annotated[int, Field(ge=1, le=4096)]
    memory_bytes: Count
    simulated: bool = False


class OptionInfo(_Value):
    """One load option: its type, its default, and its range (`int`) or choices (`str`)."""

    type: Literal["bool", "int", "str"]
    default: OptionValue
    min: int | None = None
    max: int | None = None
    choices: Annotated[list[Text], Field(max_length=64)] | None = None


class RuntimeInfo(_Value):
    version: Text
    backends: Annotated[list[Text], Field(max_length=64)]
    options: dict[str, OptionInfo]


class _Reply(_Value):
    id: Count


class HelloReply(_Reply):
    protocol: Count
    agent: AgentInfo
    device: DeviceInfo
    runtimes: dict[str, RuntimeInfo]


class HaveReply(_Reply):
    present: bool


class PutReply(_Reply):
    bytes: Count


class Delegate(_Value):
    """A backend that took parts of the program, and how many separate parts (each an entry and an exit)."""

    backend: Text
    count: Count


class PlacedOperation(_Value):
    """An operation of the program, the unit that runs it, and its share of the runtime's estimated cost."""

    name: Text
    type: Text
    unit: Literal["cpu", "gpu", "neural_engine"]
    cost: Annotated[float, Field(ge=0, le=1)] | None = None


class Placement(_Value):
    """Operations by the compute unit that the runtime chose for them; each of them where the runtime tells."""

    cpu: Count
    gpu: Count
    neural_engine: Count
    operations: Annotated[list[PlacedOperation], Field(max_length=MAX_OPERATIONS)] = []


class LoadReply(_Reply):
    handle: Count
    load_ns: Count
    options: dict[str, OptionValue]
    inputs: Annotated[list[TensorSpec], Field(max_length=MAX_TENSORS)]
    outputs: Annotated[list[TensorSpec], Field(max_length=MAX_TENSORS)]
    delegates: list[Delegate] | None
    placement: Placement | None
    compile_ns: Count | None = None
    cached: bool | None = None


class UnloadReply(_Reply):
    pass


class CheckReply(_Reply):
    outputs: Annotated[list[TensorSpec], Field(max_length=MAX_TENSORS)]
    payload: PayloadBytes = 0


class CpuClock(_Value):
    cpu: Count
    mhz: float | None
    max_mhz: float | None
    governor: Text | None


class ThermalZone(_Value):
    name: Text
    celsius: float


class Battery(_Value):
    percent: float
    charging: bool | None
    celsius: float | None


Caveat = Literal["debuggable_build", "power_save", "low_battery", "throttled", "background"]


class DeviceState(_Value):
    """A moment of the device. A field is null where the device does not tell; nothing is guessed.

    `caveats` are reasons not to measure that the agent was told to ignore.
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
    qos: Text | None
    foreground: bool | None
    keep_warm: bool | None = None
    caveats: Annotated[list[Caveat], Field(max_length=16)] = []


class TracedOperation(_Value):
    """An operation of one execution: which call into a delegate it was a part of (null outside), and its time."""

    name: Text
    call: Count | None
    ns: Annotated[float, Field(ge=0, le=1e15)]


class RunReply(_Reply):
    """The payload is rounds x visits big-endian u64 nanoseconds, in the order of the visits.

    `operations`, for each handle, is what a model loaded with `trace` executed; empty for the others.
    """

    rounds: Count
    visits: Count
    state_before: DeviceState
    state_after: DeviceState
    payload: PayloadBytes
    operations: Annotated[
        list[Annotated[list[TracedOperation], Field(max_length=MAX_OPERATIONS)]],
        Field(max_length=MAX_HANDLES),
    ] = []


class StateReply(_Reply):
    state: DeviceState


class ByeReply(_Reply):
    pass


class ErrorBody(_Value):
    code: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    message: Annotated[str, Field(max_length=4096)]


class ErrorReply(_Value):
    """`id` is null where the failing request's id could not be read."""

    id: Count | None
    error: ErrorBody


REQUESTS: dict[str, type[_Request]] = {
    "hello": HelloRequest,
    "have": HaveRequest,
    "put": PutRequest,
    "load": LoadRequest,
    "unload": UnloadRequest,
    "check": CheckRequest,
    "run": RunRequest,
    "state": StateRequest,
    "bye": ByeRequest,
}
REPLIES: dict[str, type[_Value]] = {
    "hello": HelloReply,
    "have": HaveReply,
    "put": PutReply,
    "load": LoadReply,
    "unload": UnloadReply,
    "check": CheckReply,
    "run": RunReply,
    "state": StateReply,
    "bye": ByeReply,
    "error": ErrorReply,
}


def wire_schema(model: type[BaseModel], title: str) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of `model`, as stored under protocol/schemas/."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **model.model_json_schema(mode="validation"),
        "title": title,
    }
