"""The variants that tools/benchmarks/lowerings.py compares compute what the shipped network computes."""

import pytest
import torch

from orchestrator.export.lower.rewrite import rewritten
from orchestrator.export.lower.source import build_seeded
from search.blocks import parse_keys
from search.networks import build_network
from tools.benchmarks.lowerings import VARIANTS, LoweringVariant

KEYS = (
    "conv(in=3,out=8,k=3,s=2)@16",
    "mvit.shell(c=8,d=16,patch=2)@8",
    "mvit.layer(d=16,heads=2,head_dim=8,ratio=2,patch=2)@8",
    "head.fc(in=8,classes=10)@8",
)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
@torch.no_grad()
def test_a_variant_is_the_same_network_in_other_operations(variant: LoweringVariant) -> None:
    module = build_seeded(lambda: build_network(parse_keys(KEYS)), 0)
    x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = module(x)
    with variant.active():
        torch.testing.assert_close(rewritten(module, "xnnpack")(x), expected, rtol=1e-4, atol=1e-5)
