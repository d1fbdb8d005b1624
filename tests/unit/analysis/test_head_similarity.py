"""Attention maps of blocks and the similarity of heads."""

import dataclasses

import pytest
import torch
from torch import nn

from search.analysis import attention_maps, head_similarity
from search.blocks import kinds, parse_key, parse_keys
from search.networks import build_block, build_network

NETWORK = (
    "conv(in=3,out=8,k=3,s=2)@16",
    "mvit.shell(c=8,d=12,patch=2)@8",
    "mvit.layer(d=12,heads=3,head_dim=4,ratio=2,patch=2)@8",
    "mvit.layer(d=12,heads=2,head_dim=6,ratio=1,patch=2)@8",
    "head.fc(in=8,classes=10)@8",
)


def test_identical_heads_have_similarity_one():
    one = torch.rand(2, 1, 5, 7).softmax(3)
    for centred in (False, True):
        found = head_similarity(one.expand(2, 3, 5, 7), centred=centred)
        assert found.mean == pytest.approx(1)
        assert found.maximum == pytest.approx(1)


def test_heads_that_look_at_different_tokens_are_orthogonal():
    tokens = torch.eye(4)
    maps = torch.stack([tokens, tokens.roll(1, 1), tokens.roll(2, 1)])[None]
    found = head_similarity(maps)
    assert (found.mean, found.maximum) == (0, 0)


def test_two_heads_alike_and_one_apart():
    """By hand: of the pairs 12, 13, 23 one has cosine 1; heads 1 and 2 have each other, head 3 nobody."""
    tokens = torch.eye(4)
    maps = torch.stack([tokens, tokens, tokens.roll(1, 1)])[None]
    found = head_similarity(maps)
    assert found.mean == pytest.approx(1 / 3)
    assert found.maximum == pytest.approx(2 / 3)


def test_centred_similarity_ignores_what_all_maps_share():
    """Two nearly uniform maps are alike to a cosine, and say nothing of each other once centred."""
    uniform, tokens = torch.full((4, 4), 0.25), torch.eye(4)
    maps = torch.stack([0.9 * uniform + 0.1 * tokens, 0.9 * uniform + 0.1 * tokens.roll(1, 1)])[None]
    assert head_similarity(maps).maximum > 0.95
    assert head_similarity(maps, centred=True).maximum == pytest.approx(-1 / 3, abs=1e-5)


def test_one_head_is_refused():
    with pytest.raises(ValueError, match="two heads"):
        head_similarity(torch.rand(1, 1, 4, 4))


def test_maps_are_those_that_the_formula_gives():
    """softmax(q k^T / sqrt(d)) of each head, written out, for the first layer of a MobileViT block."""
    network = build_network(parse_keys(NETWORK)).eval()
    seen = {}
    layer = network[1].layers[0]
    layer.qkv.register_forward_hook(lambda _m, _i, output: seen.update(qkv=output))
    first, second = attention_maps(network, parse_keys(NETWORK), torch.randn(2, 3, 16, 16))
    assert (first.index, first.key, second.index) == (2, NETWORK[2], 3)
    assert second.maps.shape == (4 * 2, 2, 16, 16)
    q, k, _ = seen["qkv"].reshape(8, 16, 3, 3, 4).permute(2, 0, 3, 1, 4)
    expected = torch.einsum("bhnd,bhmd->bhnm", q, k).div(2).softmax(3)
    torch.testing.assert_close(first.maps, expected)


WITH_HEADS = [
    name for name, kind in kinds().items() if "heads" in {field.name for field in dataclasses.fields(kind)}
]


@pytest.mark.parametrize("kind", WITH_HEADS)
def test_of_two_inputs_each_keeps_the_maps_that_it_has_alone(kind):
    """Of every block with heads: batch and heads, which share a dimension, aren't mixed up."""
    spec = parse_key(kinds()[kind].examples[-1])
    network = nn.Sequential(build_block(spec)[0]).eval()
    together = torch.randn(2 * spec.input_shape[0], *spec.input_shape[1:])
    found = attention_maps(network, (spec,), together)
    for alone, part in enumerate(together.chunk(2)):
        mine = attention_maps(network, (spec,), part)
        assert len(mine) == len(found)
        for ours, both in zip(mine, found, strict=True):
            assert ours.maps.sum(3).allclose(torch.ones(1))
            torch.testing.assert_close(ours.maps, both.maps.chunk(2)[alone])
