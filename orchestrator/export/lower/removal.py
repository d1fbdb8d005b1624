"""A network without one kind of its operations, in the same shapes: the missing latency is that kind's part.

The captured graph is edited, so this works for any network, with or without modules of its own:

- An attention or MLP becomes its input: its residual then adds the input to itself.
- Normalisation, activation and everything else that keeps the shape becomes its input.
- If shapes differ, as in most convolutions, the input is cut to the output's extent and padded with zeros
where it is smaller: the cheapest replacement, but not free, so the part is slightly underestimated.
- A permutation becomes a reshape, which moves no data by itself.
- An addition drops the operand that something else uses too, the shortcut of a residual. If nothing else uses
either operand, as with a gate's product, it stays: otherwise its operand's whole branch would go with it.
- Reshapes, slices, concatenation and padding stay, because shapes need them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.nn import functional

from luts.format.errors import UsageError
from orchestrator.export.lower import quiet
from orchestrator.export.lower import rewrite as spelled
from orchestrator.export.lower.kinds import KINDS, Chain, Kind, base_name, place_of
from orchestrator.export.lower.rewrite import rewritten

_MOVES = ("permute", "transpose", "t", "numpy_t")


@dataclass(frozen=True)
class OperationGroup:
    """Operations that are removed together: those of one attention or MLP or norm, else a single one."""

    kind: Kind
    nodes: tuple[Node, ...]


@dataclass(frozen=True)
class Census:
    """Number of parts of one kind in a network, and how many of them can be removed."""

    parts: int
    removable: int


def capture(module: nn.Module, inputs: Sequence[Tensor], backend: str) -> GraphModule:
    """Return the graph of an eval-mode module as `backend` gets it: BN folded, LayerNorm rewritten for XNNPACK."""
    export = spelled.capture if backend == "xnnpack" else torch.export.export
    with quiet(), torch.no_grad():
        captured = export(rewritten(module, backend), tuple(inputs)).module()
    assert isinstance(captured, GraphModule)
    for node in list(captured.graph.nodes):
        if node.op == "call_module" and not node.users:
            captured.graph.erase_node(node)
    return captured


def without(module: nn.Module, inputs: Sequence[Tensor], kind: str, backend: str) -> nn.Module:
    """Return the network without all operations of a kind that can be removed.

    Raises:
        UsageError: Unknown kind, or the network has nothing of it to remove.
    """
    if kind not in KINDS:
        raise UsageError(
            f"unknown kind of operation {kind[:40]!r}; known: {', '.join(KINDS)}", code="unknown_kind"
        )
    graph_module = capture(module, inputs, backend)
    removed = sum(_remove(group) for group in groups(graph_module) if group.kind == kind)
    if not removed:
        raise UsageError(f"this network has no {kind} that can be removed", code="nothing_to_remove")
    graph_module.graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))
    graph_module.recompile()
    return _AsEval(graph_module)


def census(module: nn.Module, inputs: Sequence[Tensor], backend: str) -> dict[Kind, Census]:
    """Return the parts of a network by kind, without kinds that it lacks."""
    parts = groups(capture(module, inputs, backend))
    return {
        kind: Census(len(own), sum(any(_stand_in(group).values()) for group in own))
        for kind in KINDS
        if (own := [group for group in parts if group.kind == kind])
    }


class _AsEval(nn.Module):
    """A captured graph, which refuses `eval()`, as a module in eval mode."""

    def __init__(self, graph_module: GraphModule):
        super().__init__()
        self.graph_module = graph_module
        self.training = False

    def forward(self, *inputs: Tensor) -> Tensor:
        output: Tensor = self.graph_module(*inputs)
        return output


def groups(graph_module: GraphModule) -> list[OperationGroup]:
    """Return everything the network computes, in groups that are removed together."""
    grouped: dict[tuple[Kind, str], list[Node]] = defaultdict(list)
    for node in _calls(graph_module):
        chain = chain_of(node)
        place = place_of(_name(node), chain)
        single = node.name if not place.region and place.kind != "normalisation" else ""
        path = place.region or single or chain[-1][0] or node.name
        grouped[place.kind, path].append(node)
    return [OperationGroup(kind, tuple(nodes)) for (kind, _), nodes in grouped.items()]


def _name(node: Node) -> str:
    return str(getattr(node.target, "__name__", node.target))


def chain_of(node: Node) -> Chain:
    """Return the modules around a node, the network first; only the network if the node has no information."""
    stack = node.meta.get("nn_module_stack") or {}
    chain = [(path.partition("@")[0], _class_name(kind)) for path, kind in stack.values()]
    return chain or [("", "")]


def _class_name(kind: object) -> str:
    return str(getattr(kind, "__name__", kind)).rpartition(".")[2]


def _calls(graph_module: GraphModule) -> Iterable[Node]:
    return (node for node in graph_module.graph.nodes if node.op == "call_function")


def _remove(group: OperationGroup) -> bool:
    """Remove a group if possible; return whether it was."""
    stand_ins = _stand_in(group)
    inside = set(group.nodes)
    for node, other in stand_ins.items():
        if other is not None:
            with node.graph.inserting_after(max(node, other)):
                replacement = _fitted(other, node)
            node.replace_all_uses_with(replacement, lambda user: user not in inside)
    return any(stand_ins.values())


def _stand_in(group: OperationGroup) -> dict[Node, Node | None]:
    """Return the replacement for each result of a group that others use; None if the group must stay."""
    inside = set(group.nodes)
    results = [node for node in group.nodes if any(user not in inside for user in node.users)]
    return {node: _instead(node, group) for node in results}


def _instead(node: Node, group: OperationGroup) -> Node | None:
    shape = _shape(node)
    if shape is None:
        return None
    inside = set(group.nodes)
    given = [x for part in group.nodes for x in part.all_input_nodes if x not in inside and _is_value(x)]
    given = [x for x in dict.fromkeys(given) if x < node]
    same = [x for x in given if _shape(x) == shape]
    name = base_name(_name(node))
    match group.kind:
        case "elementwise":
            return _latest_operand(node, same)
        case "reshape" if name in _MOVES:
            return given[0] if given else None
        case "reshape":
            return same[0] if same and name not in ("view", "reshape") else None
    if same:
        return same[-1]
    return next((x for x in reversed(given) if len(_shape(x) or ()) == len(shape)), None)


def _latest_operand(node: Node, same: Sequence[Node]) -> Node | None:
    """Return the operand that replaces an operation: the latest, if all others are used elsewhere."""
    if not same:
        return None
    latest = max(same)
    dropped = [x for x in node.all_input_nodes if x is not latest and _is_value(x)]
    return latest if all(len(x.users) > 1 for x in dropped) else None


def _is_value(node: Node) -> bool:
    """Return whether a node is computed from the network's input, and a single tensor; weights are neither."""
    return node.op in ("call_function", "placeholder") and _shape(node) is not None


def _shape(node: Node) -> tuple[int, ...] | None:
    value = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _fitted(node: Node, like: Node) -> Node:
    """Return `node` in the shape of `like`: unchanged, reshaped if it has as many elements, else cut and padded."""
    have, want = _shape(node), _shape(like)
    assert have is not None
    assert want is not None
    if have == want:
        return node
    graph = node.graph
    if base_name(_name(like)) in _MOVES:
        return _noted(graph.call_function(torch.ops.aten.reshape.default, (node, list(want))), like)
    for dim, (size, wanted) in enumerate(zip(have, want, strict=True)):
        if size > wanted:
            with graph.inserting_after(node):
                node = graph.call_function(torch.ops.aten.slice.Tensor, (node, dim, 0, wanted))
    short = [max(wanted - size, 0) for size, wanted in zip(have, want, strict=True)]
    if any(short):
        pads = [side for missing in reversed(short) for side in (0, missing)]
        with graph.inserting_after(node):
            node = graph.call_function(functional.pad, (node, pads))
    return _noted(node, like)


def _noted(node: Node, like: Node) -> Node:
    node.meta["val"] = like.meta["val"]
    return node
