"""MobileViT against timm's, and its space."""

import random

import pytest
import timm
import torch

from luts.format.errors import UsageError
from orchestrator.export.lower.weights import build_seeded
from search.networks import build_network
from search.spaces import get_arch, get_space
from search.supernet.model.supernet import Supernet

PAPER_PARAMS = {"xxs": 1.3e6, "xs": 2.3e6, "s": 5.6e6}
"""Mehta & Rastegari 2022, figure 6."""


@pytest.mark.parametrize(("size", "resolution"), [("xxs", 320), ("xs", 192), ("s", 256)])
def test_equals_timm_with_its_weights(size, resolution):
    theirs = build_seeded(lambda: timm.create_model(f"mobilevit_{size}"), 0)
    arch = get_arch(f"mobilevit-{size}").with_resolution(resolution)
    ours = build_network(arch.blocks()).eval()
    assert sum(p.numel() for p in theirs.parameters()) == arch.params()
    assert round(arch.params() / 1e6, 1) == PAPER_PARAMS[size] / 1e6
    weights = theirs.state_dict().values()
    ours.load_state_dict(dict(zip(ours.state_dict(), weights, strict=True)))
    x = ours.example_input()
    with torch.no_grad():
        expected = theirs(x)
        torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    assert expected.std() > 0.01


def test_heads_and_their_channels_shrink_together():
    """A smaller dimension keeps the first channels of every head of query, key and value, not the first heads."""
    supernet = Supernet(get_space("mobilevit").with_classes(10))
    arch = get_arch("mobilevit-xxs").with_classes(10)
    stored = dict(supernet.named_parameters())["slots.transformer1_1.layers.0.qkv.weight"]
    taken = dict(supernet.extract(arch).named_parameters())["6.layers.0.qkv.weight"]
    assert (stored.shape, taken.shape) == ((3 * 144, 144), (3 * 64, 64))
    second_head_of_keys = stored[144 + 36 : 144 + 36 + 16, :64]
    assert torch.equal(taken[64 + 16 : 64 + 32], second_head_of_keys)


def test_the_published_networks_are_members_and_not_the_borders():
    space = get_space("mobilevit")
    params = [space.sample(random.Random(seed)).params() for seed in range(200)]
    assert min(params) < get_arch("mobilevit-xs").params() < max(params)
    for size in PAPER_PARAMS:
        space.check(get_arch(f"mobilevit-{size}"))


def test_a_resolution_with_odd_maps_is_refused_in_one_line():
    arch = get_arch("mobilevit-xs").with_resolution(224)
    with pytest.raises(UsageError, match=r"^mobilevit: resolution 224 is not one of \[192, 256, 320\]$"):
        arch.blocks()
