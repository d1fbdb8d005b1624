"""ExecuTorch's XNNPACK partitioner without its repeated work: the same partitions, in less time."""

from __future__ import annotations

from typing import Any

from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from torch.export import ExportedProgram


class FastXnnpackPartitioner(XnnpackPartitioner):  # type: ignore[misc]
    """Lets `to_edge_transform_and_lower` decompose once, and drops provenance that its passes would copy.

    The base class names operators to keep whole and a check of each node, for which every operator is traced
    through two more decompositions. Where all nodes pass the check, as in all networks here, naming the
    operators is enough.
    """

    def ops_to_not_decompose(self, ep: ExportedProgram) -> tuple[list[Any], Any]:
        kept, supported = super().ops_to_not_decompose(ep)
        nodes = [node for node in ep.graph.nodes if node.op == "call_function" and node.target in kept]
        if nodes and all(supported(node) for node in nodes):
            return list(dict.fromkeys(node.target for node in nodes)), None
        return kept, supported

    def partition(self, exported_program: ExportedProgram) -> Any:
        # Each of 17 passes deep-copies the chain of all earlier ones for every node.
        for node in exported_program.graph.nodes:
            node.meta.pop("from_node", None)
        return super().partition(exported_program)
