"""Cut fragments out of XNNPACK graphs, and splice networks from them."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from executorch.backends.xnnpack.serialization import xnnpack_graph_schema as schema
from executorch.backends.xnnpack.serialization.xnnpack_graph_schema import XNNDatatype, XNNTensorValue
from executorch.backends.xnnpack.utils.xnnpack_constants import (
    UINT64_MAX,
    XNN_INVALID_VALUE_ID,
    XNN_VALUE_FLAG_EXTERNAL_INPUT,
    XNN_VALUE_FLAG_EXTERNAL_OUTPUT,
)
from torch import Tensor

from orchestrator.export.lower.xnnpack import RecordedGraph
from orchestrator.export.reuse.fragment import (
    INPUT,
    MAX_LITERAL_BYTES,
    NO_HANDLE,
    SKIP,
    Fragment,
    GraphValue,
    Node,
    ReusableUnit,
    Weight,
    owners,
)


class ReuseError(Exception):
    """A graph can't be cut, or fragments do not fit together; the network is lowered whole."""


@dataclass(frozen=True)
class Argument:
    """A constant that the program passes to the delegate: its bytes, its sizes, whether it is a parameter."""

    data: bytes
    sizes: tuple[int, ...]
    is_parameter: bool


@dataclass(frozen=True)
class Spliced:
    """A graph (`XNNGraph`), its constants by sha256 in order of definition, the program's arguments to it."""

    graph: Any
    constants: Mapping[str, bytes]
    arguments: tuple[Argument, ...]


def splice(units: Sequence[tuple[ReusableUnit, Fragment]], tensors: Mapping[str, Tensor]) -> Spliced:
    """Return the graph of a network, from its tensors by name as it is lowered (BN folded).

    Raises:
        ReuseError: A tensor is missing or of another shape, or a fragment is out of place.
    """
    builder = _Builder(tensors, *_arguments(units, tensors))
    for unit, fragment in units:
        builder.append(unit, fragment)
    return builder.finish()


def _arguments(
    units: Sequence[tuple[ReusableUnit, Fragment]], tensors: Mapping[str, Tensor]
) -> tuple[list[Argument], list[Argument]]:
    """Return parameters, then lifted scalars, each in the order of the network."""
    parameters, lifted = [], []
    for unit, fragment in units:
        for value in fragment.values:
            if value.role == "parameter":
                parameters.append(Argument(_bytes(unit, value, tensors), value.sizes, True))
            elif value.role == "lifted":
                lifted.append(Argument(bytes.fromhex(value.literal), value.sizes, False))
    return parameters, lifted


def _bytes(unit: ReusableUnit, value: GraphValue, tensors: Mapping[str, Tensor]) -> bytes:
    weight = value.weight
    tensor = tensors.get(f"{unit.path}.{weight.name}") if weight is not None else None
    if weight is None or tensor is None or sorted(weight.permutation) != list(range(tensor.dim())):
        raise ReuseError("a fragment names a tensor that the network lacks")
    ordered = tensor.detach().permute(weight.permutation).contiguous()
    if ordered.numel() != math.prod(value.dims):
        raise ReuseError("a fragment has a tensor of another shape")
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

    def __post_init__(self) -> None:
        """Assign numbers to the program's arguments: parameters, lifted scalars, the input, the output."""
        self.input_id = len(self.parameters) + len(self.lifted)
        self.argument_ids = {
            "parameter": itertools.count(),
            "lifted": itertools.count(len(self.parameters)),
            "input": itertools.repeat(self.input_id),
        }

    def append(self, unit: ReusableUnit, fragment: Fragment) -> None:
        """Append a fragment."""
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

    def _define(self, unit: ReusableUnit, value: GraphValue) -> None:
        number = len(self.values)
        external, flags, buffer = XNN_INVALID_VALUE_ID, 0, 0
        if value.role == "constant":
            buffer = self._constant(_bytes(unit, value, self.tensors))
        elif value.role == "output":
            external, flags = self.input_id + 1, XNN_VALUE_FLAG_EXTERNAL_OUTPUT
            self.outputs.append(number)
        elif value.role != "computed":
            external, flags = next(self.argument_ids[value.role]), XNN_VALUE_FLAG_EXTERNAL_INPUT
            self.inputs.append(number)
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
            raise ReuseError(f"no operator {node.kind} with these fields")
        fields: dict[str, Any] = {}
        for name, value in node.fields.items():
            if not name.endswith("_id") or value == XNN_INVALID_VALUE_ID:
                fields[name] = list(value) if isinstance(value, tuple) else value
                continue
            number = numbers.get(value) if isinstance(value, int) else None
            if number is None:
                raise ReuseError("a fragment refers to a value that is not there")
            fields[name] = number
        handle = NO_HANDLE if node.handle == NO_HANDLE else node.handle + self.handles
        return schema.XNode(xnode_union=kind(**fields), debug_handle=handle)

    def finish(self) -> Spliced:
        """Return the graph of all fragments."""
        if len(self.outputs) != 1 or self.outputs != [self.entry]:
            raise ReuseError("the last fragment does not give the program's output")
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


def cut(
    recorded: RecordedGraph,
    arguments: Sequence[Argument],
    units: Sequence[ReusableUnit],
    tensors: Mapping[str, Tensor],
) -> dict[ReusableUnit, Fragment]:
    """Return the fragments of a module's units, from the graph of its one delegate and the arguments to that.

    Other parts of the module may be between units. Tensors are those as lowered, different ones in each unit.

    Raises:
        ReuseError: The graph has another form, or a weight of a unit is not found in it.
    """
    spans = _spans(recorded.paths, units)
    graph = _Graph(recorded.graph, arguments)
    weights = {unit.path: _Weights(unit, tensors) for unit in units}
    fragments: dict[ReusableUnit, Fragment] = {}
    skip = XNN_INVALID_VALUE_ID
    for unit in units:
        start, stop = spans[unit]
        entry = graph.entry(start)
        inputs = {} if unit.first else {entry: INPUT}
        if unit.part == "before":
            skip = entry
        elif unit.part == "after":
            inputs[skip] = SKIP
        fragments[unit] = graph.fragment(start, stop, inputs, weights[unit.path], unit.last)
    if any(pool.unused for pool in weights.values()):
        raise ReuseError("a weight of a unit is not in the graph")
    return fragments


def _spans(paths: Sequence[str | None], units: Sequence[ReusableUnit]) -> dict[ReusableUnit, tuple[int, int]]:
    """Return positions of each unit's operators, without gaps."""
    owned = owners(paths, units)
    spans: dict[ReusableUnit, tuple[int, int]] = {}
    for owner, run in itertools.groupby(range(len(paths)), key=owned.__getitem__):
        positions = list(run)
        if owner is None:
            continue
        if owner in spans:
            raise ReuseError("a unit's operators are apart")
        spans[owner] = (positions[0], positions[-1] + 1)
    if list(spans) != list(units):
        raise ReuseError("a unit without operators, or units in another order")
    return spans


class _Weights:
    """Tensors of a unit's module by what the graph says about its constants."""

    def __init__(self, unit: ReusableUnit, tensors: Mapping[str, Tensor]):
        prefix = f"{unit.path}." if unit.path else ""
        own = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        if unit.part in ("before", "after"):
            own = {name: tensor for name, tensor in own.items() if not name.startswith("layers.")}
        self._tensors = own
        self._digests: dict[Weight, str] = {}
        self.unused = {self._digest(self._plain(name)) for name in own}

    def find(self, dims: Sequence[int], digest: str) -> Weight:
        """Return the tensor whose elements have this sha256 in the order of `dims`; ones may vary."""
        lengths = sorted(length for length in dims if length != 1)
        for name, tensor in self._tensors.items():
            if sorted(length for length in tensor.shape if length != 1) != lengths:
                continue
            for permutation in itertools.permutations(range(tensor.dim())):
                weight = Weight(name=name, permutation=permutation)
                if self._digest(weight) == digest:
                    self.unused.discard(self._digest(self._plain(name)))
                    return weight
        raise ReuseError("a constant that is not a weight of its unit")

    def _plain(self, name: str) -> Weight:
        return Weight(name=name, permutation=tuple(range(self._tensors[name].dim())))

    def _digest(self, weight: Weight) -> str:
        if weight not in self._digests:
            tensor = self._tensors[weight.name].detach().permute(weight.permutation)
            self._digests[weight] = hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()
        return self._digests[weight]


class _Graph:
    def __init__(self, graph: Any, arguments: Sequence[Argument]):
        self._nodes: list[Any] = graph.xnodes
        self._constants = graph.constant_data
        self._arguments = arguments
        self._values = {}
        for value in graph.xvalues:
            tensor = value.xvalue_union
            if type(tensor) is not XNNTensorValue or tensor.datatype != XNNDatatype.xnn_datatype_fp32:
                raise ReuseError("a value is not a plain fp32 tensor")
            self._values[tensor.id_out] = tensor

    def entry(self, start: int) -> int:
        """Return the value that the operators from `start` take: of the one before, else the program's input."""
        if start:
            return _output(self._nodes[start - 1])
        for value in self._values.values():
            if value.flags & XNN_VALUE_FLAG_EXTERNAL_INPUT and value.external_id == len(self._arguments):
                return int(value.id_out)
        raise ReuseError("a program without an input")

    def fragment(
        self, start: int, stop: int, inputs: Mapping[int, int], weights: _Weights, last: bool
    ) -> Fragment:
        nodes = self._nodes[start:stop]
        if any(node.output_min_max is not None for node in nodes):
            raise ReuseError("an operator with a fused clamp")
        produced = {_output(node) for node in nodes}
        used = {value for node in nodes for value in _references(node)}
        local = sorted(used - inputs.keys())
        values = tuple(self._value(identity, identity in produced, weights, last) for identity in local)
        numbers = {identity: number for number, identity in enumerate(local)} | dict(inputs)
        before = self._last_handle(0, start)
        return Fragment(
            nodes=tuple(_node(node, numbers, before) for node in nodes),
            values=values,
            output=numbers[_output(nodes[-1])],
            handles=self._last_handle(start, stop) - before,
        )

    def _last_handle(self, start: int, stop: int) -> int:
        handles = [n.debug_handle for n in self._nodes[start:stop] if n.debug_handle != NO_HANDLE]
        return max(handles, default=0)

    def _value(self, identity: int, produced: bool, weights: _Weights, last: bool) -> GraphValue:
        value = self._values[identity]
        dims = tuple(value.dims)
        if produced:
            is_output = last and bool(value.flags & XNN_VALUE_FLAG_EXTERNAL_OUTPUT)
            return GraphValue(role="output" if is_output else "computed", dims=dims)
        if value.constant_buffer_idx:
            key = self._constants[value.constant_buffer_idx].named_key
            return GraphValue(role="constant", dims=dims, weight=weights.find(dims, key))
        if not value.flags & XNN_VALUE_FLAG_EXTERNAL_INPUT:
            raise ReuseError("a value of another unit")
        if value.external_id == len(self._arguments):
            return GraphValue(role="input", dims=dims)
        argument = self._arguments[value.external_id]
        if argument.is_parameter:
            weight = weights.find(dims, hashlib.sha256(argument.data).hexdigest())
            return GraphValue(role="parameter", dims=dims, sizes=argument.sizes, weight=weight)
        if len(argument.data) > MAX_LITERAL_BYTES:
            raise ReuseError("a large constant that is not a weight")
        return GraphValue(role="lifted", dims=dims, sizes=argument.sizes, literal=argument.data.hex())


def _output(node: Any) -> int:
    output: int | None = getattr(node.xnode_union, "output_id", None)
    if output is None:
        raise ReuseError("an operator without one output")
    return output


def _references(node: Any) -> list[int]:
    fields = vars(node.xnode_union).items()
    return [value for name, value in fields if name.endswith("_id") and value != XNN_INVALID_VALUE_ID]


def _node(node: Any, numbers: Mapping[int, int], before: int) -> Node:
    fields = {
        name: numbers[value] if name.endswith("_id") and value != XNN_INVALID_VALUE_ID else value
        for name, value in asdict(node.xnode_union).items()
    }
    handle = NO_HANDLE if node.debug_handle == NO_HANDLE else node.debug_handle - before
    return Node(kind=type(node.xnode_union).__name__, fields=fields, handle=handle)
