"""Heads' similarity, importance of channels, and EfficientViT's ablations, by hand and against the loss itself."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from orchestrator.export import ExportSpec
from orchestrator.export.lower.executorch import lower_to_executorch
from orchestrator.export.lower.parity import check_parity, run_pte
from orchestrator.export.lower.source import build_module, build_seeded
from search.blocks import kinds, parse_key, parse_keys
from search.networks import build_block, build_network
from search.spaces import get_arch, list_published
from tests.support.block_checks import check_kind
from tests.support.slow import mostly_slow
from tools.studies import efficientvit_ablations
from tools.studies.efficientvit_ablations import ABLATIONS, ablated
from tools.studies.heads import (
    attention_maps,
    head_similarity,
    relative_to_block,
    remaining_fractions,
    taylor_importance,
)

NETWORK = parse_keys(
    (
        "conv(in=3,out=16,k=3,s=4)@28",
        "evit.cga(c=16,heads=2,qk=4,v=8,kernels=33,window=7)@7",
        "evit.ffn(c=16,ratio=2)@7",
        "head.bnfc(in=16,classes=10)@7",
    )
)


def test_similarity_of_heads_by_hand():
    """Two of three heads have an equal, whose cosine is 1."""
    tokens = torch.eye(4)
    similarity = head_similarity(torch.stack([tokens, tokens, tokens.roll(1, 1)])[None])
    assert similarity == pytest.approx(2 / 3)


def test_centred_similarity_ignores_the_uniform_part():
    uniform, tokens = torch.full((4, 4), 0.25), torch.eye(4)
    maps = torch.stack([0.9 * uniform + 0.1 * tokens, 0.9 * uniform + 0.1 * tokens.roll(1, 1)])[None]
    assert head_similarity(maps) > 0.95
    assert head_similarity(maps, centred=True) == pytest.approx(-1 / 3, abs=1e-5)


def test_maps_of_batch_and_heads_are_kept_apart():
    spec = parse_key("evit.cga(c=16,heads=2,qk=4,v=8,kernels=53,window=7)@7")
    network = nn.Sequential(build_block(spec)[0]).eval()
    images = torch.randn(2, *spec.input_shape[1:])
    (together,) = attention_maps(network, images)
    assert together.shape == (2, 2, 49, 49)
    for number in range(2):
        (alone,) = attention_maps(network, images[number : number + 1])
        torch.testing.assert_close(alone[0], together[number])


def test_importance_is_the_slope_of_the_loss():
    torch.manual_seed(0)
    network = build_network(NETWORK).double().eval()
    images, labels = torch.randn(8, 3, 28, 28).double(), torch.arange(8)
    found = taylor_importance(network, NETWORK, [(images, labels)])
    layers = {
        (1, "q"): network[1].heads[0].q.bn,
        (1, "v"): network[1].heads[0].v.bn,
        (2, "ffn"): network[2].feed.expand.bn,
    }

    def loss(layer, channel, scale):
        with torch.no_grad():
            kept = layer.weight[channel].clone(), layer.bias[channel].clone()
            layer.weight[channel] *= scale
            layer.bias[channel] *= scale
            value = F.cross_entropy(network(images), labels).item()
            layer.weight[channel], layer.bias[channel] = kept
        return value

    for place, layer in layers.items():
        slope = (loss(layer, 2, 1 + 1e-4) - loss(layer, 2, 1 - 1e-4)) / 2e-4
        assert found[place][2].item() == pytest.approx(abs(slope), rel=1e-3, abs=1e-9)


def test_remaining_fractions_and_relative_importance_by_hand():
    found = {
        (3, "q"): torch.tensor([1.0, 3.0]),
        (3, "v"): torch.tensor([8.0, 4.0]),
        (5, "ffn"): torch.tensor([5.0, 2.0, 0.5, 0.5]),
    }
    assert relative_to_block(found) == {(3, "q"): 0.5, (3, "v"): 1.5, (5, "ffn"): 1}
    assert remaining_fractions(found, 0.5) == {(3, "q"): 0.5, (3, "v"): 1, (5, "ffn"): 0.25}


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


M4 = ((128, 1), (256, 2), (384, 3))
"""Width and attentions of each stage."""


def test_parameters_of_other_layouts_by_hand():
    """An FFN block is a depthwise 3x3 and two 1x1 convolutions with BN; a query grows to a head's split."""
    base = get_arch("efficientvit-m4").params()
    ffns = sum((4 * c**2 + 6 * c + 11 * c) * depth for c, depth in M4)
    added = {"no-sandwich": -ffns, "no-ffns": -2 * ffns, "ffns-3": 4 * ffns, "ffns-4": 6 * ffns}
    wider = ((c, c // 4 - 16, depth) for c, depth in M4)
    added["equal-qkv"] = sum(
        (4 * (2 * more * (c // 4) + 4 * more) + more * (49 + 25 + 9 + 9 + 4 * 2)) * depth
        for c, more, depth in wider
    )
    for name, parameters in added.items():
        assert list_published()[f"efficientvit-m4-{name}"].params() == base + parameters, name


def test_without_the_sandwich_one_network_follows_each_attention():
    kinds_of = [block.kind for block in list_published()["efficientvit-m4-no-sandwich"].blocks()]
    assert kinds_of[:8] == [
        *("evit.stem", "evit.cga", "evit.ffn"),
        *("evit.ffn", "evit.merge", "evit.ffn", "evit.cga", "evit.ffn"),
    ]


def test_parameters_of_m4_by_hand():
    """A query has 16 channels, 4 heads, kernels 7, 5, 3, 3 and BN; an interaction is a depthwise 3x3 with BN."""
    base = get_arch("efficientvit-m4").params()
    queries = 6 * 16 * (49 + 25 + 9 + 9 + 4 * 2)
    interactions = 11 * (128 * (2 + 1) + 256 * (1 + 4 + 1) + 384 * (1 + 6))
    every_head_sees_all = sum(3 * c * (2 * 16 + c // 4) * depth for c, depth in M4)
    removed = {"no-query-conv": queries, "no-interaction": interactions, "mhsa": -every_head_sees_all}
    for name in ABLATIONS:
        assert list_published()[f"efficientvit-m4-{name}"].params() == base - removed.get(name, 0), name


@pytest.mark.parametrize("name", mostly_slow(ABLATIONS, kept=["layernorm"]))
def test_each_exports_as_one_delegate(name):
    keys = [block.key for block, whole in zip(ablated(SMALL, name), SMALL, strict=True) if block != whole]
    module, inputs = build_module(ExportSpec(tuple(keys)))
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
