"""MobileViT against timm's, and its space."""

import random
from dataclasses import replace

import pytest
import timm
import torch

from luts.format.errors import UsageError
from orchestrator.export.lower.source import build_seeded
from search.networks import build_network
from search.spaces import get_arch, get_space
from search.supernet.model.supernet import Supernet

PAPER_PARAMS = {"xxs": 1.3e6, "xs": 2.3e6, "s": 5.6e6}
"""Mehta & Rastegari 2022, figure 6."""


@pytest.mark.parametrize(
    ("size", "resolution"), [("xxs", 320), ("xs", 192), ("s", 256), ("xxs", 160), ("xs", 288)]
)
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


def test_published_networks_are_members():
    space = get_space("mobilevit")
    params = [space.sample(random.Random(seed)).params() for seed in range(200)]
    assert min(params) < get_arch("mobilevit-xs").params() < max(params)
    for size in PAPER_PARAMS:
        space.check(get_arch(f"mobilevit-{size}"))


def test_unsupported_resolution_is_refused():
    arch = get_arch("mobilevit-xs").with_resolution(224)
    with pytest.raises(
        UsageError, match=r"^mobilevit: resolution 224 is not one of \[160, 192, 256, 288, 320\]$"
    ):
        arch.blocks()


def test_only_odd_maps_are_resized():
    """The last map has 5, 6, 8, 9 and 10 px at the sampler's sizes."""
    for resolution, side in ((160, 5), (192, 6), (256, 8), (288, 9), (320, 10)):
        keys = get_arch("mobilevit-xxs").with_resolution(resolution).keys()
        stretched = [key for key in keys if key.startswith("mvit.stretched")]
        assert stretched == ([f"mvit.stretched(c=80,d=96,patch=2)@{side}"] if side % 2 else [])
        assert f"mvit.shell(c=64,d=80,patch=2)@{2 * side}" in keys
    odd = get_arch("autovit-xxs-paper").with_resolution(224).keys()
    assert "mvit.shell(c=80,d=80,patch=2)@7" in odd, "AutoViT's block pads"


def test_former_resolutions_keep_their_digest():
    before = "719f73113450"
    space = get_space("mobilevit")
    former = replace(space, resolutions=(192, 256, 320), former_resolutions=())
    assert former.digest != space.digest
    assert former.digest in space.digests
    assert former.digest.startswith(before)


def test_subnet_of_odd_maps_equals_the_supernet():
    supernet = Supernet(get_space("mobilevit").with_classes(10))
    arch = get_arch("mobilevit-xxs").with_classes(10).with_resolution(160)
    x = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    network = supernet.extract(arch).train()
    with torch.no_grad():
        torch.testing.assert_close(supernet(x, arch), network(x), rtol=1e-4, atol=1e-4)
