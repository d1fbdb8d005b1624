"""Tensors as bytes on the wire: concatenated, row-major, little-endian."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from orchestrator.wire.fields import TensorSpec


def spec_of(array: np.ndarray) -> TensorSpec:
    """Element type and shape of `array`; pydantic's ValidationError for a type the wire does not carry."""
    return TensorSpec.model_validate({"dtype": array.dtype.name, "shape": list(array.shape)})


def spec_bytes(spec: TensorSpec) -> int:
    """Size of a tensor in bytes, in exact integers (a hostile shape can't overflow)."""
    return math.prod(spec.shape) * np.dtype(spec.dtype).itemsize


def pack(arrays: Sequence[np.ndarray]) -> bytes:
    """The payload for `arrays`."""
    return b"".join(np.ascontiguousarray(a, dtype=a.dtype.newbyteorder("<")).tobytes() for a in arrays)


def unpack(specs: Sequence[TensorSpec], payload: bytes) -> list[np.ndarray]:
    """The arrays that `payload` holds; ValueError where its length is not what `specs` need."""
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
