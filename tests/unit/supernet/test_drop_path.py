"""Stochastic depth: which blocks are left out, for which images, how often, and that the rest is untouched."""

import random

import pytest
import torch
import torch.nn.functional as F

from search.blocks import group_blocks, parse_key
from search.networks import build_group
from search.networks.layers import attention
from search.networks.mobilevit import unfold_patches
from search.spaces import get_space
from search.supernet.model.supernet import DropPath, Supernet, leaving_out

SPACE = get_space("autovit-nano").with_classes(10)


def _group(*keys):
    return tuple(parse_key(key) for key in keys)


def test_rates_grow_linearly_over_removable_blocks():
    groups = group_blocks(SPACE.sample(random.Random(0)).blocks())
    images, rate = 20_000, 0.4
    scales = DropPath(rate, "a").draw(groups, images)
    removable = [(i, j) for i, group in enumerate(groups) for j, block in enumerate(group) if block.removable]
    drawn = list(dict.fromkeys((i, j) for i, found in enumerate(scales) for j, _ in found))
    assert drawn == removable[1:], "the first has rate 0"
    for index, (i, j) in enumerate(drawn, 1):
        expected = rate * index / (len(removable) - 1)
        branches = [scale for (place, _), scale in scales[i].items() if place == j]
        assert len(branches) == (2 if groups[i][j].kind == "mvit.layer" else 1)
        scale = torch.cat(branches)
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
    with leaving_out(module, {(0, ""): torch.tensor([0.0, 1.0, 2.0])}):
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
    first, second = torch.tensor([0.0, 1.0, 0.0]), torch.tensor([0.0, 1.0, 1.0])
    scales = {(1, "proj"): first, (1, "fc2"): first, (2, "proj"): second, (2, "fc2"): second}
    with leaving_out(module, scales):
        out = module(x)
    layers, module.layers = module.layers, torch.nn.Sequential()
    torch.testing.assert_close(out[0], module(x)[0])
    torch.testing.assert_close(out[1], whole[1])
    module.layers = layers[1:]
    torch.testing.assert_close(out[2], module(x)[2])


@torch.no_grad()
def test_attention_and_mlp_are_left_out_apart():
    (spec,) = _group("mvit.layer(d=16,heads=2,head_dim=8,ratio=2,patch=2)@8")
    layer = build_group((spec,)).eval()
    x = torch.randn(4, 16, 16)
    attended = x + layer.proj(attention(layer.qkv(layer.norm1(x)), 2))
    kept, left = torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.tensor([1.0, 0.0, 2.0, 0.0])
    with leaving_out(layer, {(0, "proj"): kept, (0, "fc2"): left}):
        out = layer(x)
    torch.testing.assert_close(out[0], layer(x)[0])
    torch.testing.assert_close(out[1], attended[1])
    torch.testing.assert_close(out[2], x[2] + 2 * layer.fc2(F.silu(layer.fc1(layer.norm2(x[2])))))
    torch.testing.assert_close(out[3], x[3])


def test_branches_of_a_layer_are_drawn_independently():
    groups = group_blocks(SPACE.sample(random.Random(0)).blocks())
    drawn = DropPath(0.5, "a").draw(groups, 20_000)
    last, place = max((i, j) for i, found in enumerate(drawn) for j, branch in found if branch)
    attention_out, mlp_out = (drawn[last][place, name] == 0 for name in ("proj", "fc2"))
    share = attention_out.float().mean().item()
    assert 0.2 < share < 0.55
    assert mlp_out.float().mean().item() == pytest.approx(share, abs=0.02)
    assert (attention_out & mlp_out).float().mean().item() == pytest.approx(share**2, abs=0.02)


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
