"""Blocks of heads and stretched maps through both exporters: one delegate, and what PyTorch computes."""

import pytest
import torch

from orchestrator.export.lower.coreml import convert_to_mlpackage
from orchestrator.export.lower.executorch import lower_to_executorch
from orchestrator.export.lower.parity import check_parity, run_pte_isolated
from search.blocks import parse_key
from search.networks import build_network, module_of
from tests.support.block_checks import seeded

KEYS = (
    "ssd.predict(in=16,boxes=6,classes=3)@4",
    "deeplab.lite(in=16,classes=3,mid=32)@5",
    "deeplab.aspp(in=16,classes=3,mid=16,rate=2)@7",
    "mvit.stretched(c=16,d=24,patch=2)@7",
)
DETECTOR = (
    "conv(in=3,out=8,k=3,s=2)@16",
    "ssd.predict(in=8,boxes=6,classes=3)@8",
    "mbconv(in=8,out=16,k=3,e=1,s=2)@8",
    "ssd.predict(in=16,boxes=6,classes=3)@4",
    "ssd.extra(in=16,out=32)@4",
    "ssd.predict(in=32,boxes=6,classes=3)@2",
)


@pytest.mark.parametrize("key", KEYS)
def test_blocks_convert_to_core_ml_and_compute_the_same(key, tmp_path):
    spec = parse_key(key)
    module = seeded(module_of(spec).eval())
    x = torch.randn(spec.input_shape, generator=torch.Generator().manual_seed(0))
    program = convert_to_mlpackage(module, (x,), tmp_path / "m.mlpackage", "fp32")
    assert program.computed is not None, "an operator that the evaluation does not know"
    check_parity(program.computed, module, (x,))


@pytest.mark.parametrize(
    "keys", [DETECTOR, *(pytest.param((key,), marks=pytest.mark.slow) for key in KEYS[1:])]
)
def test_networks_lower_to_one_delegate_and_compute_the_same(keys):
    blocks = [parse_key(key) for key in keys]
    module = seeded((build_network(blocks) if len(blocks) > 1 else module_of(blocks[0])).eval())
    x = torch.randn(blocks[0].input_shape, generator=torch.Generator().manual_seed(0))
    lowered = lower_to_executorch(module, (x,))
    assert (lowered.delegates, lowered.operators) == (1, ())
    check_parity(run_pte_isolated(lowered.data, (x,)), module, (x,))
