"""What operators have to do on paper, and how far they are from what a machine reaches."""

import json

import pytest
import torch
from torch import nn

from orchestrator.breakdown.attribution import Operator, Roof, by_tracer, part_times
from orchestrator.breakdown.tracing import operator_costs
from orchestrator.export.lower.executorch import lower_to_executorch
from orchestrator.export.lower.kinds import part_of
from orchestrator.export.lower.xnnpack import recorded_graphs


class Everything(nn.Module):
    """One operator of each sort whose cost is not its size alone."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 5, 2, 2, groups=8)
        self.linear = nn.Linear(8, 6)

    def forward(self, x):
        y = self.depthwise(self.conv(x)).flatten(2).transpose(1, 2)
        scores = torch.bmm(y, y.transpose(1, 2)).softmax(-1)
        return self.linear(torch.bmm(scores, y))


def test_macs_and_bytes_of_each_operator():
    """4 channels at 8 x 8 to 8, by 5 x 5 to 4 x 4, 16 tokens: by hand, weights and biases of 4 bytes included."""
    with recorded_graphs() as graphs:
        lower_to_executorch(Everything().eval(), (torch.randn(1, 4, 8, 8),))
    (recorded,) = graphs
    names = [type(node.xnode_union).__name__ for node in recorded.graph.xnodes]
    costs = dict(zip(names, operator_costs(recorded.graph), strict=True))
    products = [c for n, c in zip(names, operator_costs(recorded.graph), strict=True) if "Matrix" in n]
    assert costs["XNNConv2d"] == (64 * 8 * 4 * 9, 4 * (4 * 64 + 8 * 64 + 8 * 4 * 9 + 8))
    assert costs["XNNDepthwiseConv2d"] == (16 * 8 * 25, 4 * (8 * 64 + 8 * 16 + 8 * 25 + 8))
    assert costs["XNNFullyConnected"] == (16 * 8 * 6, 4 * (16 * 8 + 16 * 6 + 8 * 6 + 6))
    assert [macs for macs, _ in products] == [16 * 16 * 8, 16 * 16 * 8]
    assert products[1][1] == 4 * (16 * 16 + 2 * 16 * 8)
    assert costs["XNNSoftmax"] == (0, 4 * 2 * 16 * 16)


ROOF = Roof(gmacs_s=50.0, gbytes_s=10.0)


def test_an_operator_is_bound_by_what_takes_longer():
    """A million MACs take 0.02 ms at 50 G/s, 400 kB 0.04 ms at 10 G/s."""
    product = Operator("a", "attention", "product", 0.05, macs=1_000_000, data_bytes=100_000)
    softmax = Operator("b", "attention", "softmax", 0.08, macs=0, data_bytes=400_000)
    assert ROOF.ms(product) == pytest.approx(0.02)
    assert ROOF.ms(softmax) == pytest.approx(0.04)
    assert (ROOF.memory_bound(product), ROOF.memory_bound(softmax)) == (False, True)


def test_parts_of_a_kind_add_up():
    operators = [
        Operator("a", "attention", "projection", 0.05, 1_000_000, 100_000),
        Operator("b", "attention", "projection", 0.03, 500_000, 200_000),
        Operator("c", "attention", "softmax", 0.08, 0, 400_000),
        Operator("d", "mlp", "projection", 0.1, 2_000_000, 100_000),
        Operator("e", "attention", "reshape", 0.02),
    ]
    found = by_tracer(0.4, operators, ROOF)
    rows = {(row.kind, row.part): row for row in found.parts}
    assert list(rows) == [
        ("attention", "projection"),
        ("attention", "softmax"),
        ("attention", "reshape"),
        ("mlp", "projection"),
    ]
    projections = rows["attention", "projection"]
    assert (projections.operators, projections.macs, projections.data_bytes) == (2, 1_500_000, 300_000)
    assert projections.ms == pytest.approx(0.08)
    assert projections.roof_ms == pytest.approx(0.02 + 0.02)
    assert projections.memory_bound_ms == pytest.approx(0.03)
    inside = sum(row.ms for row in found.parts if row.kind == "attention")
    assert inside == pytest.approx(found.shares["attention"].ms)
    written = json.loads(json.dumps(found.to_dict()))
    assert written["roof"] == {"gmacs_s": 50.0, "gbytes_s": 10.0}
    assert len(written["operators"]) == 5
    assert written["parts"][1]["part"] == "softmax"


def test_without_a_roof_there_are_no_parts():
    assert by_tracer(1.0, [Operator("a", "mlp", "projection", 0.5)]).parts == ()
    assert part_times([], ROOF) == ()


def test_what_an_operation_does_inside_of_attention():
    attention = [("", "Net"), ("blocks.0.attn", "Attention")]
    norm = [*attention, ("blocks.0.attn.norm", "LinearLayerNorm")]
    assert part_of("XNNSoftmax", attention) == part_of("aten._softmax.default", attention) == "softmax"
    assert part_of("XNNBatchMatrixMultiply", attention) == "product"
    assert part_of("XNNFullyConnected", attention) == part_of("XNNConv2d", attention) == "projection"
    assert (
        part_of("XNNStaticTranspose", attention) == part_of("aten.view_copy.default", attention) == "reshape"
    )
    assert part_of("XNNMultiply", attention) == "elementwise"
    assert part_of("XNNMultiply", attention, "activation") == "activation"
    assert part_of("XNNFullyConnected", norm) == part_of("XNNSubtract", norm) == "normalisation"
