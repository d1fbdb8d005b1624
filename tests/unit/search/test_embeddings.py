"""Embeddings against timm's modules and sums over patches."""

import pytest
import torch
import torch.nn.functional as F
from timm.layers import PatchEmbed
from timm.models.pvt_v2 import OverlapPatchEmbed

from orchestrator.export.lower.source import build_seeded
from search.blocks import parse_key
from search.networks import module_of

X = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(1))


def ours(key):
    return build_seeded(lambda: module_of(parse_key(key)), 0)


@torch.no_grad()
def test_patches_side_by_side_are_timms():
    theirs = PatchEmbed(24, 4, 3, 16, flatten=False)
    module = ours("embed.patch(in=3,d=16,k=4,s=4)@24")
    theirs.proj.load_state_dict(module.project.state_dict())
    torch.testing.assert_close(module(X), theirs(X))


@torch.no_grad()
def test_overlapping_patches_are_pvts_on_a_map_that_is_padded_by_one_pixel_less():
    theirs = OverlapPatchEmbed(7, 4, 3, 16)
    module = ours("embed.overlap(in=3,d=16,k=7,s=4)@24")
    theirs.proj.load_state_dict(module.project.state_dict())
    theirs.norm.load_state_dict(module.norm.state_dict())
    theirs.proj.padding = (2, 2)
    torch.testing.assert_close(module(X), theirs(X).permute(0, 3, 1, 2))
    assert module(X).shape[2:] == (6, 6)


@torch.no_grad()
def test_large_patches_are_resized_bilinearly():
    """At twice the side a pixel is 3/4 of the nearest one and 1/4 of the next along each axis; edges repeat."""
    module = ours("embed.cross(in=3,d=16,s=4)@24")
    weight, bias = module.large.weight.flatten(1), module.large.bias
    patches = F.unfold(X, 8, stride=8)
    large = (weight @ patches + bias[:, None]).reshape(2, 8, 3, 3)
    small = (module.small.weight.flatten(1) @ F.unfold(X, 4, stride=4)).reshape(2, 8, 6, 6)
    y = module(X)
    torch.testing.assert_close(y[:, :8], small + module.small.bias[:, None, None], rtol=1e-4, atol=1e-5)
    by_hand = torch.zeros(6, 3)
    for row, (near, far) in enumerate([(0, 0), (0, 1), (1, 0), (1, 2), (2, 1), (2, 2)]):
        by_hand[row, near] += 0.75
        by_hand[row, far] += 0.25
    expected = torch.einsum("ri,cj,bdij->bdrc", by_hand, by_hand, large)
    torch.testing.assert_close(y[:, 8:], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("key", "macs", "params"),
    [
        ("embed.patch(in=3,d=16,k=4,s=4)@24", 48 * 16 * 36, 48 * 16 + 16),
        ("embed.overlap(in=3,d=16,k=7,s=4)@24", 147 * 16 * 36, 147 * 16 + 16 + 32),
        ("embed.cross(in=3,d=16,s=4)@24", 48 * 8 * 36 + 192 * 8 * 9, 48 * 8 + 192 * 8 + 16),
    ],
)
def test_costs_by_hand(key, macs, params):
    spec = parse_key(key)
    assert (spec.macs().total, spec.params()) == (macs, params)
    assert (spec.out_channels, spec.out_resolution) == (16, 6)
