"""Operators of an XNNPACK program as XNNPACK runs them, read from the .pte.

There are the calls of a method (`ExecutionPlan`) and a graph for each delegate (`XNNGraph`), which may also be the
dataclasses of ExecuTorch that the tables of the file come from. XNNPACK chooses kernels in its
src/operators/convolution-nhwc.c, and fuses clamps in src/subgraph.c (`has_clamp`).
"""

from __future__ import annotations

import functools
import itertools
import math
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luts.format.errors import InvalidArtifactError
from luts.format.operators import KINDS, PRODUCTS, Operator
from orchestrator.agent.flatbuffer import XNNPACK_SCHEMA, FlatBuffer, open_program, part_of, read_schema
from orchestrator.export.lower.kinds import base_name

if TYPE_CHECKING:
    from torch import Tensor, nn

MAX_PROGRAM_BYTES = 1 << 30
"""Largest .pte that is read, as of an agent."""

MAX_OPERATORS = 100_000
"""Most operators of a program; networks of timm have up to a few thousand."""

MAX_RANK = 64
"""Most dimensions of a tensor, as of PyTorch."""

DEPTHWISE_TAPS = 25
"""XNNPACK has depthwise kernels up to this many taps; above, it multiplies matrices of one column."""

_CLAMPED = ("gemm", "conv", "grouped", "depthwise", "avgpooling", "maxpooling", "clamp")
"""Beginnings of the kinds that clamp their own output."""

_READ = ("input_id", *(f"input{number}_id" for number in range(1, 6)), "filter_id", "bias_id")
_SCALAR_TYPES = {
    "FLOAT": "fp32", "HALF": "fp16", "BFLOAT16": "bf16", "DOUBLE": "fp64", "BYTE": "uint8", "CHAR": "int8",
    "SHORT": "int16", "INT": "int32", "LONG": "int64", "BOOL": "bool",
}  # fmt: skip


def graph_tensors(graph: Any) -> dict[int, Any]:
    """Return the tensors of a delegate's graph by their ids, quantised ones without their scales."""
    inner = (value.xvalue_union for value in graph.xvalues)
    return {tensor.id_out: tensor for tensor in (getattr(value, "tensor_value", value) for value in inner)}


def graph_nodes(graph: Any) -> Iterator[tuple[Any, list[Any], Any]]:
    """Yield each node of a delegate's graph with the tensors that it reads, weights included, and writes."""
    tensors = graph_tensors(graph)
    for node in (each.xnode_union for each in graph.xnodes):
        written = node.output_id if hasattr(node, "output_id") else node.output_value_id
        yield (
            node,
            [tensors[own] for name in _READ if (own := getattr(node, name, None)) in tensors],
            tensors[written],
        )


def product(sizes: Iterable[int]) -> int:
    """Return a product; raises ValueError for more sizes than a tensor has, which would take minutes."""
    few = list(itertools.islice(sizes, MAX_RANK + 1))
    if len(few) > MAX_RANK:
        raise ValueError(f"more than {MAX_RANK} dimensions")
    return math.prod(few)


def count(tensor: Any) -> int:
    """Return the number of elements of a delegate's tensor."""
    return product(tensor.dims)


def element_type(tensor: Any) -> str:
    """Return the type of a delegate's tensor as a key has it."""
    return re.sub("xnn_datatype_(q[cdbp]?|p)?", "", tensor.datatype.name)


def delegate_operators(graph: Any) -> list[Operator]:
    """Return a delegate's border and its operators in order, without clamps that XNNPACK fuses into producers."""
    tensors, nodes = graph_tensors(graph), list(graph_nodes(graph))
    crossing = [count(tensors[own]) for own in (*graph.input_ids, *graph.output_ids)]
    found = [Operator.build("border", {"n": sum(crossing), "tensors": len(crossing)})]
    readers = Counter(x.id_out for _, read, _ in nodes for x in read) + Counter(graph.output_ids)
    clamping: set[int] = set()
    for (node, read, output), limits in zip(
        nodes, (each.output_min_max for each in graph.xnodes), strict=True
    ):
        if type(node).__name__ == "XNNClamp" and node.input_id in clamping and readers[node.input_id] == 1:
            clamping.add(node.output_id)
            continue
        found += node_operators(node, read, output)
        if limits is not None and not found[-1].kind.startswith(_CLAMPED):
            found.append(_operator("clamp", output, n=count(output)))
        if found[-1].kind.startswith(_CLAMPED):
            clamping.add(output.id_out)
    return found


def node_operators(node: Any, read: Sequence[Any], output: Any) -> list[Operator]:
    """Return what a node of a delegate's graph becomes: one operator, or a copy for each concatenated input."""
    name = base_name(type(node).__name__).removeprefix("static")
    if name in ("conv", "depthwiseconv", "convtranspose"):
        return [_convolution(node, read, output)]
    if name in ("concatenate", "copy"):
        axis = getattr(node, "axis", 0)
        return [_operator("copy", output, n=count(x), run=product(x.dims[axis:])) for x in read]
    if name in KINDS and KINDS[name].sizes == "n":
        return [
            _binary(name, read[0], read[1], output)
            if len(read) == 2
            else _operator(name, output, n=count(output))
        ]
    return [_shaped(name, node, read, output)]


def _operator(kind: str, typed: Any, **sizes: int) -> Operator:
    return Operator.build(kind, sizes, element_type(typed))


def _shaped(name: str, node: Any, read: Sequence[Any], output: Any) -> Operator:
    n, last = count(output), output.dims[-1] if output.dims else 1
    match name:
        case "fullyconnected":
            kind = "gemm" if read[1].constant_buffer_idx else "gemm_dynamic"
            return _operator(kind, read[1], m=n // max(1, last), k=count(read[1]) // max(1, last), n=last)
        case "batchmatrixmultiply":
            *batch, m, k = read[0].dims
            return _operator("bmm", output, b=product(batch), m=m, k=k, n=last)
        case "softmax":
            return _operator(name, output, m=n // max(1, last), n=last)
        case "globalavgpooling":
            return _operator(name, output, m=count(read[0]) // max(1, n), c=n)
        case "resizebilinear":
            return _operator(name, output, pixels=product(read[0].dims[1:3]), **_map(output))
        case "transpose":
            return _transpose(node.perm, read[0].dims, output)
        case "slice":
            cut = [axis for axis, size in enumerate(output.dims) if size != read[0].dims[axis]]
            return _operator(name, output, n=n, run=product(output.dims[max(cut, default=0) :]))
        case "prelu" | "constantpad":
            return _operator(name, output, n=n, run=count(read[1]) if name == "prelu" else last)
        case "avgpooling" | "maxpooling" | "argmaxpooling":
            window = _window(node, "pooling", "pooling" if name == "argmaxpooling" else "stride")
            return _operator(name, output, **_map(output), **window)
    return _operator("other", output, n=n)


def _map(tensor: Any) -> dict[str, int]:
    return dict(zip(("b", "h", "w", "c"), tensor.dims, strict=True))


def _window(node: Any, taps: str, strides: str) -> dict[str, int]:
    """Return taps, strides and dilations of a convolution or pool; those of average pools are written as 0."""
    fields = {"k": taps, "s": strides, "d": "dilation"}
    sides = {"h": "height", "w": "width"}
    return {
        a + b: max(1, getattr(node, f"{f}_{side}", 1)) for a, f in fields.items() for b, side in sides.items()
    }


def _convolution(node: Any, read: Sequence[Any], output: Any) -> Operator:
    transposed, (x, weights) = type(node).__name__ == "XNNConvTranspose2d", read[:2]
    sizes = _map(x if transposed else output) | _window(node, "kernel", "subsampling")
    sizes |= {"in": node.group_input_channels, "out": node.group_output_channels, "groups": node.groups}
    kind = "conv_transpose" if transposed else "grouped" if node.groups > 1 else "conv"
    padded = node.padding_top or node.padding_left or node.padding_bottom or node.padding_right
    if not transposed and sizes["in"] == sizes["out"] == 1:
        kind = "depthwise" if sizes["kh"] * sizes["kw"] <= DEPTHWISE_TAPS else "depthwise_large"
    elif kind == "conv" and not padded and {sizes[name] for name in ("kh", "kw", "sh", "sw")} == {1}:
        pixels = count(output) // max(1, sizes["out"])
        return _operator("gemm", weights, m=pixels, k=sizes["in"], n=sizes["out"])
    return _operator(kind, weights, **sizes)


def _binary(kind: str, one: Any, two: Any, output: Any) -> Operator:
    """Return an element-wise operator of two inputs; `run` elements of both follow each other in memory."""
    n, run = count(output), 1
    if kind == "multiply" and one is two:
        kind = "square"
    if count(one) == count(two) == n:
        return _operator(kind, output, n=n)
    for a, b in zip(reversed(one.dims), reversed(two.dims), strict=False):
        if a != b:
            break
        run *= a
    return _operator(f"{kind}_broadcast", output, n=n, other=min(count(one), count(two)), run=run)


def _transpose(perm: Sequence[int], dims: Sequence[int], output: Any) -> Operator:
    """Return a transpose without dimensions of 1 and without the last ones that stay, of `run` elements."""
    before, after = [axis for axis, size in enumerate(dims) if size != 1], [a for a in perm if dims[a] != 1]
    run = 1
    while after and after[-1] == before[-1]:
        run *= dims[after.pop()]
        before.pop()
    if not after:
        return _operator("copy", output, n=run, run=run)
    return _operator(
        "transpose", output, n=count(output), run=run, rows=dims[before[-1]], cols=dims[after[-1]]
    )


_REDUCED = re.compile(
    r"sum|mean|prod|var|any|all|a?max|a?min|arg.*|cumsum|_(log_)?softmax|linalg_vector_norm"
)
"""Portable operators along dimensions, whose cost depends on how far apart the elements are in memory."""


def _portable(plan: Any, call: Any) -> Operator:
    """Return an operator outside the delegates; the last argument of a call is what it returns."""
    name = plan.operators[call.op_index].name.rpartition("::")[2].lower()
    returned = dict(_tensors(plan, call.args[-1]))
    given = [x for own in call.args for number, x in _tensors(plan, own) if number not in returned]
    read, written = (sum(product(x.sizes) for x in xs) for xs in (given, returned.values()))
    numbers, sizes = _numbers(plan, call), {}
    if given and given[0].sizes:
        sizes["run"] = given[0].sizes[given[0].dim_order[-1]]
        if _REDUCED.fullmatch(name):
            sizes["stride"] = _nearest(given[0], numbers)
    if name.startswith("index"):
        lists = (own for own in call.args if type(plan.values[own].val).__name__ == "OptionalTensorList")
        sizes["indices"] = sum(len(_tensors(plan, own)) for own in lists)
    if "pool" in name:
        sizes["taps"] = product(numbers)
    if f"portable.{name}" in PRODUCTS and len(given) > 1:
        sizes["taps"] = product(given[1].sizes[1:]) if name == "convolution" else given[-2].sizes[-1]
    dtype = next((_SCALAR_TYPES[x.scalar_type.name] for x in returned.values()), "fp32")
    known = {size: max(1, value) for size, value in sizes.items()}
    return Operator.build(f"portable.{name}", {"in": read, "out": written, **known}, dtype)


def _tensors(plan: Any, number: int) -> list[tuple[int, Any]]:
    """Return a value's tensors with their numbers: itself, those of a list, or none."""
    value = plan.values[number].val
    items = [number] if type(value).__name__ == "Tensor" else []
    if type(value).__name__ in ("TensorList", "OptionalTensorList"):
        items = [item for item in value.items if item >= 0]
    return [(item, plan.values[item].val) for item in items]


def _numbers(plan: Any, call: Any) -> list[int]:
    """Return a call's first list of whole numbers, which are values themselves, or its first whole number."""
    values = [plan.values[own].val for own in call.args]
    lists = [value.items for value in values if type(value).__name__ == "IntList" and value.items]
    if lists:
        return [plan.values[item].val.int_val for item in lists[0]]
    return [value.int_val for value in values if type(value).__name__ == "Int"][:1]


def _nearest(tensor: Any, dims: Sequence[int]) -> int:
    """Return the distance in memory of neighbours along the innermost of some dimensions."""
    order, wanted = list(tensor.dim_order), {dim % len(tensor.sizes) for dim in dims}
    last = max((place for place, dim in enumerate(order) if dim in wanted), default=len(order))
    return product(tensor.sizes[dim] for dim in order[last + 1 :])


def lower_with_operators(
    module: nn.Module, inputs: Sequence[Tensor], **options: Any
) -> tuple[bytes, tuple[Operator, ...]]:
    """Lower an eval-mode module for XNNPACK, and return the .pte and its operators.

    `options` are those of `lower_to_executorch`. Raises BlocktimeError as that does.
    """
    from orchestrator.export.lower.executorch import lower_to_executorch

    data = lower_to_executorch(module, inputs, **options).data
    return data, _operators(data, *open_program(data))


def read_operators(path: Path) -> tuple[Operator, ...]:
    """Return the operators of a .pte for XNNPACK.

    Raises:
        InvalidArtifactError: it can't be read, is damaged or too large, or is not for XNNPACK alone.
    """
    try:
        if path.stat().st_size > MAX_PROGRAM_BYTES:
            raise ValueError(f"it has more than {MAX_PROGRAM_BYTES >> 30} GiB")
        data = path.read_bytes()
        program, plan = open_program(data)
        backends = {delegate.id for delegate in plan.delegates}
        if backends != {"XnnpackBackend"}:
            raise ValueError(f"it is for {', '.join(sorted(backends)) or 'no backend'}, not for XNNPACK")
        if any(getattr(plan.values[number].val, "shape_dynamism", 0) for number in plan.inputs):
            raise ValueError("its inputs have dynamic shapes, export it for one size")
        return _operators(data, program, plan)
    except (
        InvalidArtifactError,
        OSError,
        struct.error,
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
    ) as error:
        raise InvalidArtifactError(
            f"{path}: no operators can be read ({error}); export it for XNNPACK (again)",
            code="unreadable_program",
        ) from error


def _operators(data: bytes, program: Any, plan: Any) -> tuple[Operator, ...]:
    """Return the operators of a method in order. Raises InvalidArtifactError: more than `MAX_OPERATORS`."""
    of_delegate, found = _delegate_reader(data, program, plan), list[Operator]()
    for call in (instruction.instr_args for chain in plan.chains for instruction in chain.instructions):
        if type(call).__name__ == "DelegateCall":
            found += of_delegate(call)
        elif type(call).__name__ == "KernelCall":
            found.append(_portable(plan, call))
        if len(found) > MAX_OPERATORS:
            raise InvalidArtifactError(f"more than {MAX_OPERATORS} operators", code="unreadable_program")
    return tuple(found)


def _delegate_reader(data: bytes, program: Any, plan: Any) -> Callable[[Any], Sequence[Operator]]:
    """Return a function from a call of a delegate to its operators; each payload is read once."""
    base = struct.unpack_from("<Q", data, 24)[0] if data[8:12] == b"eh00" else 0

    @functools.cache
    def of_payload(in_segment: bool, index: int) -> list[Operator]:
        if in_segment:
            segment = program.segments[index]
            payload = part_of(data, base + segment.offset, segment.size)
        else:
            payload = program.backend_delegate_data[index].data
        if bytes(payload[4:8]) != b"XH00":
            raise ValueError("a delegate has no header of XNNPACK")
        part = part_of(payload, *struct.unpack_from("<II", payload, 10))
        return delegate_operators(
            FlatBuffer(part, read_schema(XNNPACK_SCHEMA), program.buffer.left).table("XNNGraph")
        )

    def of_call(call: Any) -> list[Operator]:
        where = plan.delegates[call.delegate_index].processed
        return of_payload(where.location.name == "SEGMENT", where.index)

    return of_call
