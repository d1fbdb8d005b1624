"""Stochastic depth: which blocks are left out, for which images, how often, and that the rest is untouched."""

import random

import pytest
import torch

from search.blocks import group_blocks, parse_key
from search.networks import build_group
from search.networks.mobilevit import unfold_patches
from search.spaces import get_space
from search.supernet.drop_path import DropPath, leaving_out
from search.supernet.supernet import Supernet

SPACE = get_space("autovit-nano").with_classes(10)


def _group(*keys):
    return tuple(parse_key(key) for key in keys)


def test_rates_grow_linearly_over_removable_blocks():
    groups = group_blocks(SPACE.sample(random.Random(0)).blocks())
    images, rate = 20_000, 0.4
    scales = DropPath(rate, "a").draw(groups, images)
    removable = [(i, j) for i, group in enumerate(groups) for j, block in enumerate(group) if block.removable]
    drawn = [(i, j) for i, found in enumerate(scales) for j in found]
    assert drawn == removable[1:], "the first has rate 0"
    for index, (i, j) in enumerate(drawn, 1):
        expected = rate * index / (len(removable) - 1)
        scale = scales[i][j]
        assert scale.unique().tolist() == pytest.approx([0.0, 1 / (1 - expected)])
        assert (scale == 0).float().mean().item() == pytest.approx(expected, abs=0.02)


def test_equal_seeds_draw_equally():
    groups = group_blocks(SPACE.sample(random.Random(0)).blocks())
    first, again, other = (DropPath(0.5, seed).draw(groups, 8) for seed in ("a", "a", "b"))
    same = [torch.equal(a[p], b[p]) for a, b in zip(first, again, strict=True) for p in a]
    assert same
    assert all(same)
    assert any(not torch.equal(a[p], b[p]) for a, b in zip(first, other, strict=True) for p in a)


@torch.no_grad()
def test_an_image_that_leaves_a_block_out_passes_unchanged():
    module = build_group(_group("mbconv(in=16,out=16,k=3,e=2,s=1)@8"))
    module.eval()
    x = torch.randn(3, 16, 8, 8)
    whole = module(x)
    with leaving_out(module, {0: torch.tensor([0.0, 1.0, 2.0])}):
        out = module(x)
    assert torch.equal(out[0], x[0])
    torch.testing.assert_close(out[1], whole[1])
    torch.testing.assert_close(out[2], 2 * whole[2] - x[2])
    assert torch.equal(module(x), whole), "nothing is left behind"


@torch.no_grad()
def test_layers_of_a_mobilevit_block_are_left_out_image_by_image():
    group = _group(
        "mvit.shell(c=8,d=16,patch=2)@8", *["mvit.layer(d=16,heads=2,head_dim=8,ratio=2,patch=2)@8"] * 2
    )
    module = build_group(group).eval()
    x = torch.randn(3, 8, 8, 8)
    whole = module(x)
    with leaving_out(module, {1: torch.tensor([0.0, 1.0, 0.0]), 2: torch.tensor([0.0, 1.0, 1.0])}):
        out = module(x)
    layers, module.layers = module.layers, torch.nn.Sequential()
    torch.testing.assert_close(out[0], module(x)[0])
    torch.testing.assert_close(out[1], whole[1])
    module.layers = layers[1:]
    torch.testing.assert_close(out[2], module(x)[2])


def test_images_follow_each_other_within_each_pixel_position():
    images = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 2, 4, 4)
    assert unfold_patches(images, 2)[:, 0, 0].tolist() == [0, 1, 2] * 4


def test_rate_zero_is_no_drop_path_to_the_bit():
    supernet = Supernet(SPACE)
    arch = SPACE.sample(random.Random(0))
    x = torch.randn(2, 3, 64, 64)
    plain = supernet(x, arch)
    assert torch.equal(supernet(x, arch, DropPath(0.0, "a")), plain)
    assert not torch.equal(supernet(x, arch, DropPath(0.9, "a")), plain)
