"""Mixers of neighbourhoods, windows and stripes, and gMLP and Performer: against timm and loops over pixels."""

import functools
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from timm.layers import GatedMlp
from timm.models.maxxvit import grid_partition, grid_reverse
from timm.models.mlp_mixer import SpatialGatingUnit
from timm.models.swin_transformer import SwinTransformerBlock, WindowAttention
from timm.models.volo import OutlookAttention as VoloAttention

from orchestrator.export.lower.source import build_seeded
from search.blocks import parse_key
from search.blocks.metaformer import MIXERS, MixerSetting
from search.networks import module_of
from search.networks.layers import fuse_for_inference, positive_features
from tests.support.errors import raises

C, SIDE = 16, 8
X = torch.randn(2, C, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def ours(key, theirs=None, rename=()):
    """Our module, with the weights of theirs under the renamed names."""
    module = build_seeded(lambda: module_of(parse_key(key)), 0)
    if theirs is not None:
        state = dict(theirs.named_parameters())
        for old, new in rename:
            state = {name.replace(old, new): value for name, value in state.items()}
        module.load_state_dict(
            {name: state[name].reshape(own.shape) for name, own in module.state_dict().items()}
        )
    return module


def check_equal(module, expected, x=X):
    assert expected.std() > 1e-3
    for each in (module, fuse_for_inference(module)):
        torch.testing.assert_close(each(x), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def heads_of(x, heads):
    """(B, C, H, W) as (B, heads, head_dim, H, W)."""
    return x.unflatten(1, (heads, -1))


TABLE = ("relative_position_bias_table", "bias.table")


@torch.no_grad()
def test_shifted_windows_are_swins():
    block = build_seeded(
        lambda: SwinTransformerBlock(C, (SIDE, SIDE), num_heads=2, window_size=4, shift_size=2), 0
    )
    block.attn.relative_position_bias_table.normal_(generator=torch.Generator().manual_seed(2))
    module = ours(f"mix.shifted(c={C},heads=2,w=4)@{SIDE}", block.attn, [TABLE])
    check_equal(module, block._attn(X.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


@torch.no_grad()
def test_grid_attention_is_maxvits_partition():
    theirs = build_seeded(lambda: WindowAttention(C, num_heads=2, window_size=4), 0)
    theirs.relative_position_bias_table.normal_(generator=torch.Generator().manual_seed(2))
    grid = grid_partition(X.permute(0, 2, 3, 1), (4, 4)).reshape(-1, 16, C)
    expected = grid_reverse(theirs(grid).reshape(-1, 4, 4, C), (4, 4), (SIDE, SIDE)).permute(0, 3, 1, 2)
    check_equal(ours(f"mix.grid(c={C},heads=2,w=4)@{SIDE}", theirs, [TABLE]), expected)


@torch.no_grad()
def test_outlook_attention_is_volos():
    theirs = build_seeded(lambda: VoloAttention(C, num_heads=2), 0)
    expected = theirs(X.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    check_equal(ours(f"mix.outlook(c={C},heads=2,k=3)@{SIDE}", theirs), expected)


@torch.no_grad()
def test_spatial_gating_is_timms():
    unit = functools.partial(SpatialGatingUnit, seq_len=SIDE**2)
    theirs = build_seeded(lambda: GatedMlp(C, 2 * C, gate_layer=unit), 0)
    expected = theirs(X.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(X.shape)
    rename = [("gate.proj", "mix"), ("gate.norm", "norm")]
    check_equal(ours(f"mix.gmlp(c={C},hidden={C})@{SIDE}", theirs, rename), expected)


@torch.no_grad()
def test_spatial_shift_is_the_papers_assignment():
    """Yu et al. 2022, algorithm 1: x[1:] = x[:-1] and so on for each quarter of the channels."""
    module = ours(f"mix.shift(c={C})@{SIDE}")
    x = F.gelu(module.fc1(X))
    shifted = x.clone()
    shifted[:, :4, 1:] = x[:, :4, :-1]
    shifted[:, 4:8, :-1] = x[:, 4:8, 1:]
    shifted[:, 8:12, :, 1:] = x[:, 8:12, :, :-1]
    shifted[:, 12:, :, :-1] = x[:, 12:, :, 1:]
    check_equal(module, module.fc2(shifted))


@torch.no_grad()
def test_axial_shifts_are_whole_pixels_along_either_axis():
    """Lian et al. 2022, figure 3: of groups g = -2 ... 2, pixel i takes the value of pixel i + g, else zero."""
    module = ours(f"mix.axial(c={C})@{SIDE}").eval()
    x = module.fc1(X)
    total = torch.zeros_like(X)
    for axis, linear in zip((2, 3), module.along, strict=True):
        shifted = torch.zeros_like(x)
        for channel in range(C):
            by = channel // 4 - 2  # sixteen channels: groups of four, the fifth is empty
            for place in range(SIDE):
                if 0 <= place + by < SIDE:
                    shifted[:, channel].select(axis - 1, place)[:] = x[:, channel].select(
                        axis - 1, place + by
                    )
        total += linear(shifted)
    check_equal(module, module.fc2(total))


@torch.no_grad()
def test_shunted_heads_see_two_rates_one_query_at_a_time():
    module = ours(f"mix.shunted(c={C},heads=4,s=4)@{SIDE}")
    mixed = torch.zeros(2, C, SIDE, SIDE)
    for half, rate in enumerate((4, 2)):
        reduced = module.sr[half](X)
        tokens = F.gelu(F.layer_norm(reduced.permute(0, 2, 3, 1), (C,), *module.norm[half].parameters()))
        k, v = module.kv[half](tokens).permute(0, 3, 1, 2).split(C // 2, 1)
        v = (v + module.local[half](v)).flatten(2)
        q = module.q[half](X.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).flatten(2)
        assert k.shape[2] == SIDE // rate
        for head in range(2):
            own = slice(4 * head, 4 * head + 4)
            weights = (torch.einsum("bdn,bdm->bnm", q[:, own], k.flatten(2)[:, own]) / 2).softmax(-1)
            out = torch.einsum("bnm,bdm->bdn", weights, v[:, own])
            mixed[:, half * C // 2 + 4 * head :][:, :4] = out.unflatten(2, (SIDE, SIDE))
    check_equal(module, module.proj(mixed.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


@torch.no_grad()
def test_focal_windows_see_their_pixels_and_all_windows_pooled():
    """Yang et al. 2021, section 3.2, one query at a time: 2 heads, windows of 2 px, 16 of them."""
    module = ours(f"mix.focal(c={C},heads=2,w=2)@{SIDE}")
    for table in (module.bias.table, module.far_bias.table):
        table.copy_(torch.randn(table.shape, generator=torch.Generator().manual_seed(2)))
    bias, far_bias = module.bias()[0], module.far_bias()[0]
    pixels = X.permute(0, 2, 3, 1)
    cells = pixels.unflatten(1, (4, 2)).unflatten(3, (4, 2))  # image, row, y, column, x, channel
    pooled = torch.einsum("brycxd,yx->brcd", cells, module.pool.weight.view(2, 2)) + module.pool.bias
    near, far = (module.qkv(each).split(C, -1) for each in (pixels, pooled))
    mixed = torch.zeros_like(pixels)
    for head, row, column in itertools.product(range(2), range(SIDE), range(SIDE)):
        own = slice(8 * head, 8 * head + 8)
        top, left = row // 2 * 2, column // 2 * 2
        k, v = (
            torch.cat((near[i][:, top : top + 2, left : left + 2].flatten(1, 2), far[i].flatten(1, 2)), 1)
            for i in (1, 2)
        )
        inside, window = 2 * (row - top) + column - left, 4 * (row // 2) + column // 2
        scores = torch.einsum("bd,bmd->bm", near[0][:, row, column, own], k[..., own]) / 8**0.5
        scores += torch.cat((bias[head, inside], far_bias[head, window]))
        mixed[:, row, column, own] = torch.einsum("bm,bmd->bd", scores.softmax(-1), v[..., own])
    check_equal(module, module.proj(mixed).permute(0, 3, 1, 2))


@torch.no_grad()
def test_linformer_is_the_papers_equation():
    """softmax(Q (E K)^T / sqrt(d)) F V of each head."""
    module = ours(f"mix.linformer(c={C},heads=2,k=6)@{SIDE}")
    tokens = X.flatten(2).transpose(1, 2)
    q = module.q(tokens)
    k, v = (layer(X).flatten(2).transpose(1, 2) for layer in (module.k, module.v))
    fewer_k, fewer_v = (
        layer.weight @ part + layer.bias[:, None]
        for layer, part in ((module.fewer_k, k), (module.fewer_v, v))
    )
    assert fewer_k.shape == (2, 6, C)
    heads = [
        (q[..., own] @ fewer_k[..., own].mT / math.sqrt(8)).softmax(-1) @ fewer_v[..., own]
        for own in (slice(0, 8), slice(8, 16))
    ]
    check_equal(module, module.proj(torch.cat(heads, -1)).transpose(1, 2).reshape(X.shape))


@torch.no_grad()
def test_cross_stripes_one_head_and_stripe_at_a_time():
    """Stripes of two rows for the first two heads, of two columns for the others."""
    module = ours(f"mix.cross(c={C},heads=4,w=2)@{SIDE}")
    mixed = torch.zeros(2, 4, 4, SIDE, SIDE)
    for half, linear in enumerate(module.qkv):
        qkv = torch.einsum("bchw,oc->bohw", X, linear.weight) + linear.bias[:, None, None]
        q, k, v = qkv.unflatten(1, (3, 2, 4)).unbind(1)
        for start in range(0, SIDE, 2):
            stripe = (
                (..., slice(start, start + 2), slice(None)) if half == 0 else (..., slice(start, start + 2))
            )
            a, b, c = (part[stripe].flatten(3) for part in (q, k, v))
            weights = (torch.einsum("bhdn,bhdm->bhnm", a, b) / 2).softmax(-1)
            out = torch.einsum("bhnm,bhdm->bhdn", weights, c)
            mixed[:, 2 * half : 2 * half + 2][stripe] = out.reshape(q[stripe].shape)
    projected = torch.einsum("bchw,oc->bohw", mixed.flatten(1, 2), module.proj.weight)
    check_equal(module, projected + module.proj.bias[:, None, None])


@pytest.mark.parametrize("kernel", [3, 5])
@torch.no_grad()
def test_neighbours_one_pixel_at_a_time(kernel):
    module = ours(f"mix.neighbour(c={C},heads=2,k={kernel})@{SIDE}")
    module.bias.table.normal_(generator=torch.Generator().manual_seed(2))
    q, k, v = (heads_of(layer(X), 2) for layer in (module.q, module.k, module.v))
    mixed = torch.zeros_like(q)
    first = [min(max(place - kernel // 2, 0), SIDE - kernel) for place in range(SIDE)]
    for row in range(SIDE):
        for column in range(SIDE):
            top, left = first[row], first[column]
            near = (..., slice(top, top + kernel), slice(left, left + kernel))
            offsets = [
                (top + dy - row + kernel - 1) * (2 * kernel - 1) + left + dx - column + kernel - 1
                for dy in range(kernel)
                for dx in range(kernel)
            ]
            scores = torch.einsum("bhd,bhdn->bhn", q[..., row, column], k[near].flatten(3)) / math.sqrt(8)
            weights = (scores + module.bias.table[offsets].T).softmax(-1)
            mixed[..., row, column] = torch.einsum("bhn,bhdn->bhd", weights, v[near].flatten(3))
    projected = torch.einsum("bchw,oc->bohw", mixed.flatten(1, 2), module.proj.weight)
    check_equal(module, projected + module.proj.bias[:, None, None])


@torch.no_grad()
def test_performer_is_the_papers_equation():
    """Choromanski et al. 2021, equations 4 and 5, one query at a time."""
    module = ours(f"mix.performer(c={C},heads=2,m=4)@{SIDE}")
    weights = module.features.value

    def features(x):
        x = x / 8**0.25
        return (x @ weights.T - x.square().sum(-1, keepdim=True) / 2).exp() / 2

    mixed = torch.zeros(2, SIDE**2, C)
    for image, qkv in enumerate(module.qkv(X.flatten(2).transpose(1, 2))):
        for head in (slice(0, 8), slice(8, 16)):
            q, k, v = (part[:, head] for part in qkv.split(C, dim=1))
            for i in range(SIDE**2):
                similar = features(q[i]) @ features(k).T
                mixed[image, i, head] = similar @ v / similar.sum()
    check_equal(module, module.proj(mixed).transpose(1, 2).reshape(X.shape))


def test_positive_features_estimate_the_exponential():
    """Over many draws of orthogonal features, the product of two tends to exp(q k)."""
    generator = torch.Generator().manual_seed(3)
    q, k = 0.3 * torch.randn(2, 1, 4, 8, generator=generator)
    halves, total = torch.full((1, 8), 0.5), torch.zeros(4, 4)
    for _ in range(4000):
        weights = torch.nn.init.orthogonal_(torch.empty(8, 8), generator=generator)
        weights = weights * torch.randn(8, 8, generator=generator).norm(dim=1, keepdim=True)
        total += (positive_features(q, weights, halves) @ positive_features(k, weights, halves).mT)[0]
    torch.testing.assert_close(total / 4000, (q @ k.mT).exp()[0], rtol=0.06, atol=0.02)


N, D = 256, 64
HAND = {
    "axial": 4 * N * D**2,
    "shunted": 4 * N * D**2 + 5 * N * D**2 // 4 + 45 * N * D // 8 + 5 * N**2 * D // 4,
    "linformer": 4 * N * D**2 + 4 * N * (N // 4) * D,
    "shift": 2 * N * D**2,
    "shifted": 4 * N * D**2 + 2 * 64 * N * D,
    "grid": 4 * N * D**2 + 2 * 64 * N * D,
    "focal": 4 * N * D**2 + 2 * 64 * N * D + N * D + 3 * 4 * D**2 + 2 * N * 4 * D,
    "cross": 4 * N * D**2 + 2 * 2 * N * 16 * D,
    "outlook": 2 * N * D**2 + N * D * 2 * 81 + 3 * 81 * N * D,
    "neighbour": 4 * N * D**2 + 2 * 9 * N * D + 2 * 81 * N * D,
    "gmlp": 3 * N * D * D + N**2 * D,
    "performer": 4 * N * D**2 + 4 * N * D * 32 + N * (2 * D + 2 * 2 * 32),
}
"""MACs by the formulas that `complexity` prints: 16 px, 2 heads, windows of 8, stripes of 2 px, reduction 2."""


@pytest.mark.parametrize("name", HAND)
def test_complexity_by_hand(name):
    assert MIXERS[name](MixerSetting(16, D, 2, 8)).macs().total == HAND[name]


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("mix.shift(c=6)@4", "shifts need a multiple of 4 channels and a map of 2 px or more"),
        ("mix.shifted(c=8,heads=2,w=4)@4", "shifted windows must be smaller than the map"),
        ("mix.grid(c=8,heads=2,w=4)@6", "windows of 4 px do not tile 6 px; use a multiple of 4"),
        ("mix.axial(c=4)@4", "axial shifts need 5 channels or more"),
        ("mix.shunted(c=8,heads=1,s=2)@4", "halves need an even number of heads and an even s"),
        ("mix.cross(c=9,heads=3,w=2)@4", "half of the heads need an even number of them"),
        ("mix.cross(c=8,heads=2,w=3)@4", "stripes of 3 px do not tile 4 px; use a multiple of 3"),
        ("mix.neighbour(c=8,heads=2,k=4)@8", "neighbourhoods need an odd k of at most 8"),
        ("mix.neighbour(c=8,heads=2,k=5)@4", "neighbourhoods need an odd k of at most 4"),
        ("mix.outlook(c=8,heads=3,k=3)@4", "3 heads do not divide 8 channels; change one of them"),
    ],
)
def test_impossible_mixer_is_refused_in_one_line(key, problem):
    with raises("invalid_block_parameter") as refused:
        parse_key(key)
    assert str(refused.value) == f"{key}: {problem}"
