"""The plug-in of EfficientViT's ablations: costs, modules, export and the names it adds."""

import pytest
import torch
from torch import nn

from orchestrator.export import ExportSpec
from orchestrator.export.lower.executorch import lower_to_executorch
from orchestrator.export.lower.parity import check_parity, run_pte
from orchestrator.export.lower.source import build_module, build_seeded
from search.blocks import kinds, parse_key, parse_keys
from search.networks import build_block, build_network
from search.spaces import get_arch, list_published
from tests.support.block_checks import check_kind
from tools.studies import efficientvit_ablations
from tools.studies.efficientvit_ablations import ABLATIONS, ablated

SMALL = parse_keys(
    (
        "evit.stem(in=3,out=16)@64",
        "evit.ffn(c=16,ratio=2)@4",
        "evit.cga(c=16,heads=2,qk=4,v=8,kernels=53,window=7)@4",
        "evit.merge(in=16,out=24)@4",
        "head.bnfc(in=24,classes=10)@2",
    )
)
KINDS = [name for name, kind in kinds().items() if kind.__module__ == efficientvit_ablations.__name__]


@pytest.mark.parametrize("kind", KINDS)
def test_costs_of_every_kind_are_those_of_its_module(kind):
    check_kind(kinds()[kind])


def test_parameters_of_m4_by_hand():
    """A query has 16 channels, 4 heads, kernels 7, 5, 3, 3 and BN; an interaction is a depthwise 3x3 with BN."""
    base = get_arch("efficientvit-m4").params()
    queries = 6 * 16 * (49 + 25 + 9 + 9 + 4 * 2)
    interactions = 11 * (128 * (2 + 1) + 256 * (1 + 4 + 1) + 384 * (1 + 6))
    removed = {"no-query-conv": queries, "no-interaction": interactions}
    for name in ABLATIONS:
        assert list_published()[f"efficientvit-m4-{name}"].params() == base - removed.get(name, 0), name


@pytest.mark.parametrize("name", ABLATIONS)
def test_each_exports_as_one_delegate(name):
    module, inputs = build_module(ExportSpec(tuple(block.key for block in ablated(SMALL, name))))
    lowered = lower_to_executorch(module, inputs)
    assert (lowered.delegates, lowered.operators) == (1, ())
    check_parity(run_pte(lowered.data, inputs), module, inputs, tolerance=1e-4)


def test_layers_are_exchanged():
    hardswish, layernorm = (build_network(ablated(SMALL, name)) for name in ("hardswish", "layernorm"))
    assert sum(isinstance(module, nn.Hardswish) for module in hardswish.modules()) == 3 + 1 + 1 + 1
    assert not any(isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d) for module in layernorm.modules())


def test_without_the_cascade_a_head_sees_its_own_split():
    spec = parse_key("evit.group(c=16,heads=2,qk=4,v=8,kernels=53,window=7)@4")
    module = build_seeded(lambda: build_block(spec)[0], 0)
    seen = []
    module.heads[1].register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    x = torch.randn(1, 16, 4, 4)
    module(x)
    assert torch.equal(seen[0], x[:, 8:])
