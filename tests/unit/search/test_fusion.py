"""Fused for deployment, a network computes what it did, with no BN left beside a convolution or a linear layer."""

import pytest
import torch
from torch import nn

from orchestrator.export.lower.source import build_seeded
from search.blocks import kinds, parse_key
from search.networks import build_block, build_network
from search.networks.layers import Constant, WeightValue, fuse_for_inference
from search.spaces import get_arch

BN = (nn.BatchNorm1d, nn.BatchNorm2d)
BN_OF_JOINED_MAPS = {"deeplab.aspp", "deeplab.lite", "espnet.eesp", "espnet.trunk"}
"""Kinds that normalise what several convolutions give together: no single one could take it in."""


@pytest.mark.parametrize("kind", sorted(kinds()))
def test_every_kind_of_block_computes_the_same(kind):
    spec = parse_key(kinds()[kind].examples[-1])
    module = build_seeded(lambda: build_block(spec)[0], 0)
    _, x = build_block(spec)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    fused = fuse_for_inference(module)
    with torch.no_grad():
        expected = module(x)
        torch.testing.assert_close(fused(x), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    assert any(isinstance(part, BN) for part in fused.modules()) == (kind in BN_OF_JOINED_MAPS)
    assert not any(isinstance(part, WeightValue) and type(part) is not Constant for part in fused.modules())
    after = module.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_whole_network_computes_the_same():
    network = build_seeded(lambda: build_network(get_arch("autovit-xxs-paper").blocks()), 0)
    x = network.example_input()
    with torch.no_grad():
        expected = network(x)
        fused = fuse_for_inference(network)(x)
    torch.testing.assert_close(fused, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_norm_before_a_linear_layer_by_hand():
    """2 (x - 3) / sqrt(4) + 1, times 5, plus 7: 5 x - 3."""
    norm = nn.BatchNorm1d(1, eps=0)
    linear = nn.Linear(1, 1)
    with torch.no_grad():
        for tensor, value in [
            (norm.weight, 2),
            (norm.bias, 1),
            (norm.running_mean, 3),
            (norm.running_var, 4),
            (linear.weight, 5),
            (linear.bias, 7),
        ]:
            tensor.fill_(value)
    fused = fuse_for_inference(nn.Sequential(norm, linear).eval())
    assert fused(torch.tensor([[2.0]])).item() == pytest.approx(7)
    assert fused[1].weight.item() == pytest.approx(5)


def test_subclasses_of_batchnorm_are_left_alone():
    class Activated(nn.BatchNorm2d):
        def forward(self, input):  # noqa: A002
            return super().forward(input).relu()

    module = nn.Sequential(nn.Conv2d(3, 4, 1), Activated(4)).eval()
    assert type(fuse_for_inference(module)[1]) is Activated


def test_norm_without_a_neighbour_stays():
    module = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4)).eval()
    assert type(fuse_for_inference(module)[1]) is nn.BatchNorm2d
