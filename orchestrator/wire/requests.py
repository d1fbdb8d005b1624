"""Requests as values. protocol/schemas/ is generated from these models and tested against them.

They refuse unknown fields. What a schema can't say (indices in range, equal lengths, total sizes) PROTOCOL.md says
and the agent checks.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.wire.fields import (
    MAX_HANDLES,
    MAX_HEARTBEAT_S,
    MAX_PACE_US,
    MAX_TENSORS,
    MAX_VISITS,
    MAX_WARMUP,
    MAX_WARMUP_MS,
    Count,
    Name,
    OptionValue,
    PayloadBytes,
    Sha256,
    TensorSpec,
)

HeartbeatSeconds = Annotated[int, Field(ge=0, le=MAX_HEARTBEAT_S)]
"""How often a sign of life is asked for; 0: never."""


class Request(BaseModel):
    """Every request: its id and, where the op carries none, a payload that is absent or 0."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    id: Count
    payload: Annotated[int, Field(ge=0, le=0)] = 0


class HelloRequest(Request):
    op: Literal["hello"]
    protocol: Annotated[int, Field(ge=1, le=1_000_000)]
    token: Annotated[str, Field(min_length=1, max_length=256)]


class HaveRequest(Request):
    op: Literal["have"]
    sha256: Sha256


class PutRequest(Request):
    op: Literal["put"]
    sha256: Sha256
    payload: Annotated[int, Field(ge=1, le=1 << 30)]


class LoadRequest(Request):
    """`placement`: whether the reply is to have it."""

    op: Literal["load"]
    sha256: Sha256
    runtime: Name
    options: Annotated[dict[str, OptionValue], Field(max_length=32)] = {}
    placement: bool = True
    heartbeat_s: HeartbeatSeconds = 0


class PlacementRequest(Request):
    op: Literal["placement"]
    handle: Count
    heartbeat_s: HeartbeatSeconds = 0


class UnloadRequest(Request):
    op: Literal["unload"]
    handle: Count


class CheckRequest(Request):
    op: Literal["check"]
    handle: Count
    inputs: Annotated[list[TensorSpec], Field(max_length=MAX_TENSORS)]
    payload: PayloadBytes = 0


class RunRequest(Request):
    """`order[r][v]` is the index into `handles` of the model that round r visits at position v.

    `warmup_ms`: the most time for warming up until latencies stop falling; 0: none. `pace_us`: a visit begins no
    sooner than that after the one before; 0: at once. `keep_warm`: the processor is kept busy before visits; where
    that is not set, as the agent's user has it.
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
    op: Literal["state"]


class ByeRequest(Request):
    op: Literal["bye"]


REQUESTS: dict[str, type[Request]] = {
    "hello": HelloRequest,
    "have": HaveRequest,
    "put": PutRequest,
    "load": LoadRequest,
    "placement": PlacementRequest,
    "unload": UnloadRequest,
    "check": CheckRequest,
    "run": RunRequest,
    "state": StateRequest,
    "bye": ByeRequest,
}


def request_id_of(header: dict[str, Any]) -> int | None:
    """The id that a header's reply is to carry; None where it has no valid one."""
    request_id = header.get("id")
    return request_id if type(request_id) is int and 0 <= request_id < 2**53 else None
