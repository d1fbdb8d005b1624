"""Blocks of the published networks on XNNPACK: small chains that hold every kind of them but ESPNetv2's.

Of that one the strided unit: its trunk holds four, each with all that the other blocks do.
"""

import pytest
import torch

from orchestrator.export import ExportSpec
from orchestrator.export.lower.executorch import lower_to_executorch
from orchestrator.export.lower.parity import check_parity, run_pte
from orchestrator.export.lower.source import build_module, build_seeded
from search.blocks import parse_keys
from search.networks.efficient_cnns import StridedEesp
from search.networks.mobile_former import MobileFormer
from search.spaces import list_published
from tests.support.slow import mostly_slow

CHAINS = {
    "mobilevitv3": (
        "conv(in=3,out=8,k=3,s=2)@32",
        "mbconv(in=8,out=16,k=3,e=2,s=2)@16",
        "mvit.v3(c=16,d=24,patch=2)@8",
        "mvit.layer(d=24,heads=2,head_dim=12,ratio=2,patch=2)@8",
        "head.conv(in=16,classes=10,mid=32)@8",
    ),
    "shufflenet": (
        "shufflenet.stem(in=3,out=8)@16",
        "shufflenet.unit(in=8,out=16,s=2)@4",
        "shufflenet.unit(in=16,out=16,s=1)@2",
        "head.shufflenet(in=16,classes=10,mid=32)@2",
    ),
    "tokens": (
        "t2t.performer(in=3,e=16,k=7,s=4)@32",
        "t2t.embed(in=16,d=24,k=3,s=2)@8",
        "t2t.layer(d=24,heads=2,ratio=2)@4",
        "localvit.layer(d=24,heads=2,ratio=4,r=24)@4",
        "ceit.encoder(d=24,heads=2,ratio=4,depth=2,classes=10)@4",
        "ceit.layer(d=24,heads=2,ratio=4)@4",
    ),
    "cvt": (
        "embed.overlap(in=3,d=16,k=7,s=4)@32",
        "cvt.layer(d=16,heads=2,ratio=2)@8",
        "cvt.tokens(d=16)@8",
        "cvt.token_layer(d=16,heads=2,ratio=2)@8",
        "head.token(in=16,classes=10)@8",
    ),
    "patches": (
        "ceit.stem(in=3,out=8)@32",
        "tokens.embed(in=8,d=24,k=4,s=4)@8",
        "head.token(in=24,classes=10)@2",
    ),
}


def test_the_chains_hold_every_other_kind():
    here = {block.kind for keys in CHAINS.values() for block in parse_keys(keys)}
    networks = [network for network in list_published().values() if "Liu et al." not in network.source]
    published = {block.kind for network in networks for block in network.blocks()}
    assert published - here == {"espnet.trunk", "espnet.eesp", "head.espnet"}


@pytest.mark.parametrize("chain", mostly_slow(CHAINS, kept=["cvt"]))
def test_a_chain_is_one_delegate_and_computes_what_pytorch_computes(chain):
    module, inputs = build_module(ExportSpec(CHAINS[chain]))
    lowered = lower_to_executorch(module, inputs)
    assert (lowered.delegates, lowered.operators) == (1, ())
    check_parity(run_pte(lowered.data, inputs), module, inputs, tolerance=1e-5)


def test_espnets_strided_unit_is_one_delegate_and_computes_what_pytorch_computes():
    module = build_seeded(lambda: StridedEesp(16, 32, 4, 3), 0)
    generator = torch.Generator().manual_seed(0)
    inputs = (torch.randn(1, 16, 8, 8, generator=generator), torch.randn(1, 3, 4, 4, generator=generator))
    lowered = lower_to_executorch(module, inputs)
    assert (lowered.delegates, lowered.operators) == (1, ())
    check_parity(run_pte(lowered.data, inputs), module, inputs, tolerance=1e-5)


@pytest.mark.slow
def test_mobile_former_is_one_delegate_and_computes_what_pytorch_computes():
    blocks = [(3, 16, 2), (3, 16, 1), (3, 24, 1)]
    module = build_seeded(lambda: MobileFormer(8, blocks, (4, 32), 32, 10), 0)
    inputs = (torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)),)
    lowered = lower_to_executorch(module, inputs)
    assert (lowered.delegates, lowered.operators) == (1, ())
    check_parity(run_pte(lowered.data, inputs), module, inputs, tolerance=1e-5)
