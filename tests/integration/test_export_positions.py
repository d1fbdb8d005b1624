"""Embeddings, positions and relative attention in XNNPACK: one delegate, tables as constants, PyTorch's output."""

import pytest

from orchestrator.export.artifacts.spec import ExportSpec
from orchestrator.export.lower.executorch import lower_to_executorch
from orchestrator.export.lower.parity import check_parity, run_pte
from orchestrator.export.lower.rewrite import capture, rewritten
from orchestrator.export.lower.source import build_module

EMBEDDINGS = (
    "embed.patch(in=3,d=16,k=4,s=4)@24",
    "embed.overlap(in=3,d=16,k=7,s=4)@24",
    "embed.cross(in=3,d=16,s=4)@24",
)
PLAIN = "mix.mha(c=16,heads=2)@6"
BLOCKS = {
    "pos.learned(c=16,base=8)@6": {"add"},
    "pos.sinusoid(c=16)@6": {"add"},
    "pos.peg(c=16)@6": {"add", "conv2d"},
    "mix.rope(c=16,heads=2)@6": {"add", "cat"},
    "mix.fire(c=16,heads=2)@6": {"add"},
    "mix.relative(c=16,heads=2,base=8)@6": {"add"},
}
"""Operators that each adds to those of plain attention."""


def operators(module, inputs):
    nodes = capture(rewritten(module, "xnnpack"), inputs).graph.nodes
    return {node.target._schema.name.removeprefix("aten::") for node in nodes if node.op == "call_function"}


@pytest.mark.parametrize("keys", [(key,) for key in EMBEDDINGS] + [(EMBEDDINGS[0], key) for key in BLOCKS])
def test_networks_lower_to_one_delegate_and_compute_the_same(keys):
    module, inputs = build_module(ExportSpec((*keys, "head.fc(in=16,classes=10)@6")))
    lowered = lower_to_executorch(module, inputs)
    assert (lowered.delegates, lowered.operators) == (1, ())
    check_parity(run_pte(lowered.data, inputs), module, inputs, tolerance=1e-5)


@pytest.mark.parametrize("key", BLOCKS)
def test_tables_are_constants(key):
    """No gather, interpolation, sine or MLP runs in the exported program."""
    attention = operators(*build_module(ExportSpec((PLAIN,)))) if key.startswith("mix") else set()
    assert operators(*build_module(ExportSpec((key,)))) - attention == BLOCKS[key]
