"""Cutting and splicing of a hand-made graph: SiLU by two operators, then a linear layer, then SiLU again."""

import hashlib

import pytest
import torch
from executorch.backends.xnnpack.serialization import xnnpack_graph_schema as schema
from torch import Tensor

from orchestrator.export.lower.xnnpack import RecordedGraph
from orchestrator.export.reuse.fragment import NO_HANDLE, Fragment, ReusableUnit
from orchestrator.export.reuse.splice import ReuseError, Spliced, cut, splice

NONE = (1 << 32) - 1
ENTRY = ReusableUnit("entry", "block", True, False, "0")
MIDDLE = ReusableUnit("middle", "block", False, False, "1")
EXIT = ReusableUnit("exit", "block", False, True, "2")
PATHS = ("0", "0", None, "1.fc", "2", "2")


def weights(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "1.fc.weight": torch.randn(4, 3, generator=generator),
        "1.fc.bias": torch.randn(4, generator=generator),
    }


def value(
    number: int, dims: list[int], constant: int = 0, external: int = NONE, flags: int = 0
) -> schema.XValue:
    return schema.XValue(
        schema.XNNTensorValue(
            schema.XNNDatatype.xnn_datatype_fp32, len(dims), dims, constant, external, flags, number
        )
    )


def graph(tensors: dict[str, Tensor]) -> schema.XNNGraph:
    """Weights stand transposed in the graph, as XNNPACK's convolutions have theirs."""
    constants = [tensors["1.fc.weight"].T.contiguous(), tensors["1.fc.bias"]]
    return schema.XNNGraph(
        version="0",
        xnodes=[
            schema.XNode(schema.XNNSigmoid(0, 1, 0), 1),
            schema.XNode(schema.XNNMultiply(0, 1, 2, 0), 1),
            schema.XNode(schema.XNNStaticReshape(2, [1, 3], 2, 3, 0), NO_HANDLE),
            schema.XNode(schema.XNNFullyConnected(3, 4, 6, 5, 0), 2),
            schema.XNode(schema.XNNSigmoid(5, 7, 0), 3),
            schema.XNode(schema.XNNMultiply(5, 7, 8, 0), 3),
        ],
        xvalues=[
            value(0, [1, 3], external=0, flags=1),
            value(1, [1, 3]),
            value(2, [1, 3]),
            value(3, [1, 3]),
            value(4, [3, 4], constant=1),
            value(5, [1, 4]),
            value(6, [4], constant=2),
            value(7, [1, 4]),
            value(8, [1, 4], external=1, flags=2),
        ],
        num_externs=2,
        input_ids=[0],
        output_ids=[8],
        constant_data=[schema.ConstantDataOffset(0, 0)]
        + [
            schema.ConstantDataOffset(
                (1 << 64) - 1, t.nbytes, hashlib.sha256(t.numpy().tobytes()).hexdigest()
            )
            for t in constants
        ],
    )


def fragments() -> dict[ReusableUnit, Fragment]:
    return cut(RecordedGraph(graph(weights(0)), PATHS), (), (ENTRY, MIDDLE, EXIT), weights(0))


def spliced(units: list[ReusableUnit], tensors: dict[str, Tensor]) -> Spliced:
    known = fragments()
    return splice([(unit, known[unit]) for unit in units], tensors)


@pytest.mark.parametrize("seed", [0, 1])
def test_fragments_make_the_graph_of_any_weights(seed: int) -> None:
    whole = spliced([ENTRY, MIDDLE, EXIT], weights(seed))
    assert whole.graph == graph(weights(seed))
    assert whole.arguments == ()
    assert list(whole.constants) == [c.named_key for c in whole.graph.constant_data[1:]]


def test_inserted_operators_go_with_the_unit_that_follows() -> None:
    assert [len(fragment.nodes) for fragment in fragments().values()] == [2, 2, 2]
    assert [fragment.handles for fragment in fragments().values()] == [1, 1, 1]


def test_units_are_renumbered_where_one_is_left_out() -> None:
    short = spliced([ENTRY, EXIT], {})
    assert [vars(node.xnode_union) for node in short.graph.xnodes[2:]] == [
        {"input_id": 2, "output_id": 3, "flags": 0},
        {"input1_id": 2, "input2_id": 3, "output_id": 4, "flags": 0},
    ]
    assert [node.debug_handle for node in short.graph.xnodes] == [1, 1, 2, 2]
    assert short.graph.output_ids == [4]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ReuseError, match="lacks"):
        spliced([ENTRY, MIDDLE, EXIT], {})
    with pytest.raises(ReuseError, match="another shape"):
        spliced([ENTRY, MIDDLE, EXIT], weights(0) | {"1.fc.bias": torch.zeros(5)})
    with pytest.raises(ReuseError, match="output"):
        spliced([ENTRY, MIDDLE], weights(0))
    with pytest.raises(ReuseError, match="not there"):
        spliced([MIDDLE, EXIT], weights(0))


def test_foreign_constants_and_unused_weights_are_refused() -> None:
    recorded = RecordedGraph(graph(weights(1)), PATHS)
    with pytest.raises(ReuseError, match="not a weight of its unit"):
        cut(recorded, (), (ENTRY, MIDDLE, EXIT), weights(0))
    with pytest.raises(ReuseError, match="not in the graph"):
        cut(recorded, (), (ENTRY, MIDDLE, EXIT), weights(1) | {"2.scale": torch.ones(7)})
