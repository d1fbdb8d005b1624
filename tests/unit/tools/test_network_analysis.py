"""Similarity of heads and importance of channels, against hand-computed figures and the loss itself."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from search.blocks import parse_key, parse_keys
from search.networks import build_block, build_network
from tools.studies.network_analysis import (
    ChannelImportance,
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
    """Two equal heads and one apart: of three pairs one has cosine 1, and two heads have an equal."""
    tokens = torch.eye(4)
    similarity = head_similarity(torch.stack([tokens, tokens, tokens.roll(1, 1)])[None])
    assert similarity == pytest.approx((1 / 3, 2 / 3))


def test_centred_similarity_ignores_the_uniform_part():
    uniform, tokens = torch.full((4, 4), 0.25), torch.eye(4)
    maps = torch.stack([0.9 * uniform + 0.1 * tokens, 0.9 * uniform + 0.1 * tokens.roll(1, 1)])[None]
    assert head_similarity(maps).maximum > 0.95
    assert head_similarity(maps, centred=True).maximum == pytest.approx(-1 / 3, abs=1e-5)


def test_maps_of_batch_and_heads_are_kept_apart():
    spec = parse_key("evit.cga(c=16,heads=2,qk=4,v=8,kernels=53,window=7)@7")
    network = nn.Sequential(build_block(spec)[0]).eval()
    images = torch.randn(2, *spec.input_shape[1:])
    (together,) = attention_maps(network, (spec,), images)
    assert together.maps.shape == (2, 2, 49, 49)
    for number in range(2):
        (alone,) = attention_maps(network, (spec,), images[number : number + 1])
        torch.testing.assert_close(alone.maps[0], together.maps[number])


def test_importance_is_the_slope_of_the_loss():
    torch.manual_seed(0)
    network = build_network(NETWORK).double().eval()
    images, labels = torch.randn(8, 3, 28, 28).double(), torch.arange(8)
    found = {
        (each.index, each.role): each.values
        for each in taylor_importance(network, NETWORK, [(images, labels)])
    }
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
    found = [
        ChannelImportance(3, "q", torch.tensor([1.0, 3.0])),
        ChannelImportance(3, "v", torch.tensor([8.0, 4.0])),
        ChannelImportance(5, "ffn", torch.tensor([5.0, 2.0, 0.5, 0.5])),
    ]
    assert relative_to_block(found) == {(3, "q"): 0.5, (3, "v"): 1.5, (5, "ffn"): 1}
    assert remaining_fractions(found, 0.5) == {(3, "q"): 0.5, (3, "v"): 1, (5, "ffn"): 0.25}
