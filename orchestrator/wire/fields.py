"""What messages are made of: the protocol's limits, types of fields, and values that requests and replies share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

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
    """A value in a message; what an agent tells beside it is ignored."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", protected_namespaces=())


class TensorSpec(WireValue):
    """Element type and shape of one input or output; bytes are little-endian, row-major."""

    dtype: DType
    shape: Annotated[list[Annotated[int, Field(ge=0, le=2**31 - 1)]], Field(max_length=8)]
