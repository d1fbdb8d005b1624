"""What an operator of an XNNPACK graph has to do on paper: multiply-accumulates, and bytes read and written."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_BYTES = {"fp16": 2.0, "bf16": 2.0, "qint8": 1.0, "quint8": 1.0, "qcint8": 1.0, "qdint8": 1.0, "qcint4": 0.5}
"""Of an element by the end of its datatype's name; all others have 4."""

_READ = ("input_id", *(f"input{number}_id" for number in range(1, 6)), "filter_id", "bias_id")


@dataclass(frozen=True)
class Cost:
    """Of one execution. Bytes are those of activations and weights, each counted once however often it is read."""

    macs: int
    data_bytes: int


def costs_of(graph: Any) -> Iterator[Cost]:
    """Of each node of an `XNNGraph`, in order."""
    values = {}
    for value in graph.xvalues:
        inner = value.xvalue_union
        tensor = getattr(inner, "tensor_value", inner)
        values[tensor.id_out] = tensor
    for node in graph.xnodes:
        yield _cost(node.xnode_union, values)


def _cost(node: Any, values: Mapping[int, Any]) -> Cost:
    output = values[node.output_id]
    read = {getattr(node, name) for name in _READ if hasattr(node, name)} & values.keys()
    if type(node).__name__ == "XNNStaticSlice":
        return Cost(0, 2 * _bytes(output))
    data = _bytes(output) + sum(_bytes(values[identifier]) for identifier in read)
    return Cost(_macs(node, output, values), data)


def _macs(node: Any, output: Any, values: Mapping[int, Any]) -> int:
    name = type(node).__name__
    if name == "XNNBatchMatrixMultiply":
        return _elements(output) * int(values[node.input1_id].dims[-1])
    if not hasattr(node, "filter_id"):
        return 0
    weights = _elements(values[node.filter_id])
    if name == "XNNConvTranspose2d":
        return _elements(values[node.input1_id]) * weights // int(node.groups * node.group_input_channels)
    channels = output.dims[-1] if name == "XNNFullyConnected" else node.groups * node.group_output_channels
    return _elements(output) * weights // int(channels)


def _elements(tensor: Any) -> int:
    return int(math.prod(tensor.dims))


def _bytes(tensor: Any) -> int:
    datatype = tensor.datatype.name.removeprefix("xnn_datatype_")
    return int(_elements(tensor) * _BYTES.get(datatype, 4.0))
