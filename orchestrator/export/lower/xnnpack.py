"""ExecuTorch's partitioner and passes for XNNPACK without their repeated work: the same programs, in less time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from executorch.backends.xnnpack import xnnpack_preprocess
from executorch.backends.xnnpack._passes import XNNPACKPassManager
from executorch.backends.xnnpack._passes.channels_last_tagged_reshape_pass import (
    ChannelsLastTaggedReshapePass,
)
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir.dialects._ops import ops
from torch.export import ExportedProgram
from torch.fx import Node

ChannelsLastTaggedReshapePass.memory_sensitive_ops_nchw.add(ops.edge.aten._softmax.default)
"""XNNPACK's softmax is over the last dimension in memory, which after a convolution is that of the channels:
ExecuTorch 1.5 lowers it there as it is, and MobileViTv2's attention is wrong."""

_ONLY_FOR = {
    "ConvertToUpsampleBilinear2d": "index", "ConvertToSDPAPass": "softmax", "FuseBatchNormPass": "batch_norm",
    "DecomposeBatchNorm": "batch_norm", "DecomposeConcatenate": "cat", "RemoveGetItemPass": "aten.max",
    "InsertPadQDQPass": "pad", "PReLUReshapePass": "prelu",
}  # fmt: skip
"""Passes of ExecuTorch and parts of the names of operators without which they change nothing."""


class NeededPasses(XNNPACKPassManager):  # type: ignore[misc]
    """The backend's passes without those that change nothing: each would trace the whole program once more."""

    def __init__(self, exported_program: ExportedProgram, passes: list[Any] | None = None) -> None:
        """Choose among the passes, by default all, for a program."""
        super().__init__(exported_program, passes)
        names = " ".join(str(node.target) for node in exported_program.graph.nodes)
        self.passes: list[Any] = [each for each in self.passes if _ONLY_FOR.get(each.__name__, "") in names]


xnnpack_preprocess.XNNPACKPassManager = NeededPasses


class FastXnnpackPartitioner(XnnpackPartitioner):  # type: ignore[misc]
    """Lets `to_edge_transform_and_lower` decompose once, and drops provenance that its passes would copy.

    The base class names operators to keep whole and a check of each node, for which every operator is traced
    through two more decompositions. If all nodes pass the check, as in all networks here, naming the
    operators is enough.
    """

    def ops_to_not_decompose(self, ep: ExportedProgram) -> tuple[list[Any], Any]:
        """Return the operators to keep whole; no check is needed if all nodes pass it."""
        preserved, supported = super().ops_to_not_decompose(ep)
        nodes = [node for node in ep.graph.nodes if node.op == "call_function" and node.target in preserved]
        if nodes and all(supported(node) for node in nodes):
            return list(dict.fromkeys(node.target for node in nodes)), None
        return preserved, supported

    def partition(self, exported_program: ExportedProgram) -> Any:
        # Each of 17 passes deep-copies the chain of all earlier ones for every node.
        """Partition a program after dropping provenance."""
        for node in exported_program.graph.nodes:
            node.meta.pop("from_node", None)
        return super().partition(exported_program)


@dataclass(frozen=True)
class RecordedGraph:
    """A delegate's graph (`XNNGraph`), and for each operator the path of the module that it was called in.

    The path is None for operators that a pass inserted. There are no paths where operators do not correspond to
    one node each.
    """

    graph: Any
    paths: tuple[str | None, ...]


@contextlib.contextmanager
def recorded_graphs() -> Iterator[list[RecordedGraph]]:
    """Record each graph that the backend serialises in this process, while active.

    ExecuTorch only returns the serialised form, which has lost the modules.
    """
    recorded: list[RecordedGraph] = []
    paths: list[str | None] = []
    get_visitors, serialize = (
        xnnpack_preprocess.get_node_visitors,
        xnnpack_preprocess.serialize_xnnpack_binary,
    )

    def visitors(program: ExportedProgram, *rest: Any) -> Any:
        paths[:] = [_module_path(node) for node in program.graph.nodes if node.op == "call_function"]
        return get_visitors(program, *rest)

    def record(graph: Any, constants: bytearray) -> bytes:
        recorded.append(RecordedGraph(graph, tuple(paths) if len(graph.xnodes) == len(paths) else ()))
        data: bytes = serialize(graph, constants)
        return data

    xnnpack_preprocess.get_node_visitors = visitors
    xnnpack_preprocess.serialize_xnnpack_binary = record
    try:
        yield recorded
    finally:
        xnnpack_preprocess.get_node_visitors = get_visitors
        xnnpack_preprocess.serialize_xnnpack_binary = serialize


def _module_path(node: Node) -> str | None:
    stack = node.meta.get("nn_module_stack")
    return list(stack.values())[-1][0] if stack else None
