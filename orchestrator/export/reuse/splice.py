"""Put a network's XNNPACK graph together from fragments, numbered as ExecuTorch numbers it."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from executorch.backends.xnnpack.serialization import xnnpack_graph_schema as schema
from executorch.backends.xnnpack.utils.xnnpack_constants import (
    UINT64_MAX,
    XNN_INVALID_VALUE_ID,
    XNN_VALUE_FLAG_EXTERNAL_INPUT,
    XNN_VALUE_FLAG_EXTERNAL_OUTPUT,
)
from torch import Tensor

from orchestrator.export.reuse.fragment import INPUT, NO_HANDLE, SKIP, Fragment, Node, Value
from orchestrator.export.reuse.units import Unit


class SpliceError(Exception):
    """The fragments do not fit together; the network is lowered whole."""


@dataclass(frozen=True)
class Argument:
    """A constant that the program hands to the delegate: its bytes, its sizes, whether it is a parameter."""

    data: bytes
    sizes: tuple[int, ...]
    is_parameter: bool


@dataclass(frozen=True)
class Spliced:
    """A graph (`XNNGraph`), its constants by sha256 in order of definition, the program's arguments to it."""

    graph: Any
    constants: Mapping[str, bytes]
    arguments: tuple[Argument, ...]


def splice(units: Sequence[tuple[Unit, Fragment]], tensors: Mapping[str, Tensor]) -> Spliced:
    """The graph of a network.

    Args:
        units: From the network's input to its output.
        tensors: Of the network as it is lowered (BN folded), by name.

    Raises:
        SpliceError: a tensor is missing or of another shape, or a fragment is out of place.
    """
    builder = _Builder(tensors, *_arguments(units, tensors))
    for unit, fragment in units:
        builder.append(unit, fragment)
    return builder.finish()


def _arguments(
    units: Sequence[tuple[Unit, Fragment]], tensors: Mapping[str, Tensor]
) -> tuple[list[Argument], list[Argument]]:
    """Parameters, then lifted scalars, each in the order of the network."""
    parameters, lifted = [], []
    for unit, fragment in units:
        for value in fragment.values:
            if value.role == "parameter":
                parameters.append(Argument(_bytes(unit, value, tensors), value.sizes, True))
            elif value.role == "lifted":
                lifted.append(Argument(bytes.fromhex(value.literal), value.sizes, False))
    return parameters, lifted


def _bytes(unit: Unit, value: Value, tensors: Mapping[str, Tensor]) -> bytes:
    weight = value.weight
    tensor = tensors.get(f"{unit.path}.{weight.name}") if weight is not None else None
    if weight is None or tensor is None or sorted(weight.permutation) != list(range(tensor.dim())):
        raise SpliceError("a fragment names a tensor that the network lacks")
    ordered = tensor.detach().permute(weight.permutation).contiguous()
    if ordered.numel() != math.prod(value.dims):
        raise SpliceError("a fragment has a tensor of another shape")
    return ordered.numpy().tobytes()


@dataclass
class _Builder:
    tensors: Mapping[str, Tensor]
    parameters: list[Argument]
    lifted: list[Argument]
    nodes: list[Any] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    constants: dict[str, bytes] = field(default_factory=dict)
    offsets: list[Any] = field(default_factory=lambda: [schema.ConstantDataOffset(0, 0)])
    handles: int = 0
    entry: int | None = None
    skip: int | None = None
    parameters_seen: int = 0
    lifted_seen: int = 0

    def append(self, unit: Unit, fragment: Fragment) -> None:
        """Add a fragment after those that are there."""
        if unit.part == "before":
            self.skip = self.entry
        base = len(self.values)
        numbers: dict[int, int | None] = {INPUT: self.entry, SKIP: self.skip}
        numbers |= {number: base + number for number in range(len(fragment.values))}
        for value in fragment.values:
            self._define(unit, value)
        self.nodes.extend(self._node(node, numbers) for node in fragment.nodes)
        self.handles += fragment.handles
        self.entry = numbers.get(fragment.output)

    def _define(self, unit: Unit, value: Value) -> None:
        number = len(self.values)
        external, flags, buffer = XNN_INVALID_VALUE_ID, 0, 0
        count = len(self.parameters) + len(self.lifted)
        if value.role == "constant":
            buffer = self._constant(_bytes(unit, value, self.tensors))
        elif value.role == "output":
            external, flags = count + 1, XNN_VALUE_FLAG_EXTERNAL_OUTPUT
            self.outputs.append(number)
        elif value.role != "computed":
            flags = XNN_VALUE_FLAG_EXTERNAL_INPUT
            self.inputs.append(number)
            if value.role == "input":
                external = count
            elif value.role == "parameter":
                external, self.parameters_seen = self.parameters_seen, self.parameters_seen + 1
            else:
                external = len(self.parameters) + self.lifted_seen
                self.lifted_seen += 1
        tensor = schema.XNNTensorValue(
            datatype=schema.XNNDatatype.xnn_datatype_fp32,
            num_dims=len(value.dims),
            dims=list(value.dims),
            constant_buffer_idx=buffer,
            external_id=external,
            flags=flags,
            id_out=number,
        )
        self.values.append(schema.XValue(xvalue_union=tensor))

    def _constant(self, data: bytes) -> int:
        key = hashlib.sha256(data).hexdigest()
        self.constants[key] = data
        self.offsets.append(schema.ConstantDataOffset(offset=UINT64_MAX, size=len(data), named_key=key))
        return len(self.offsets) - 1

    def _node(self, node: Node, numbers: Mapping[int, int | None]) -> Any:
        kind: Any = getattr(schema, node.kind, None)
        if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)) or {
            f.name for f in dataclasses.fields(kind)
        } != set(node.fields):
            raise SpliceError(f"no operator {node.kind} with these fields")
        fields: dict[str, Any] = {}
        for name, value in node.fields.items():
            if not name.endswith("_id") or value == XNN_INVALID_VALUE_ID:
                fields[name] = list(value) if isinstance(value, tuple) else value
                continue
            number = numbers.get(value) if isinstance(value, int) else None
            if number is None:
                raise SpliceError("a fragment refers to a value that is not there")
            fields[name] = number
        handle = NO_HANDLE if node.handle == NO_HANDLE else node.handle + self.handles
        return schema.XNode(xnode_union=kind(**fields), debug_handle=handle)

    def finish(self) -> Spliced:
        """The graph, once all fragments are in."""
        if len(self.outputs) != 1 or self.outputs != [self.entry]:
            raise SpliceError("the last fragment does not give the program's output")
        arguments = (*self.parameters, *self.lifted)
        graph = schema.XNNGraph(
            version="0",
            xnodes=self.nodes,
            xvalues=self.values,
            num_externs=len(arguments) + 2,
            input_ids=self.inputs,
            output_ids=self.outputs,
            constant_data=self.offsets,
        )
        return Spliced(graph, self.constants, arguments)
