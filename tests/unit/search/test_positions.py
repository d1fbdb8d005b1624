"""Positions and attention by relative position against their papers' formulas."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from timm.layers.pos_embed_rel import resize_rel_pos_bias_table_simple

from orchestrator.export.lower.source import build_seeded
from search.blocks import check_chain, parse_key, parse_keys
from search.networks import module_of
from search.networks.layers import RelativeBias, split_heads, to_map, to_tokens
from search.networks.positions import FireBias, rope_cosines, rope_sines, rotated

X = torch.randn(2, 16, 6, 6, generator=torch.Generator().manual_seed(1))


def ours(key):
    return build_seeded(lambda: module_of(parse_key(key)), 0)


@torch.no_grad()
@pytest.mark.parametrize(("base", "side"), [(4, 4), (4, 6), (8, 6)])
def test_learned_table_is_interpolated_as_torch_does(base, side):
    module = ours(f"pos.learned(c=16,base={base})@{side}")
    (table,) = module.parameters()
    assert table.shape == (1, 16, base, base)
    expected = table if side == base else F.interpolate(table, (side, side), mode="bicubic")
    x = X[:, :, :side, :side]
    torch.testing.assert_close(module(x), x + expected, rtol=0, atol=0)


def test_sinusoids_by_hand():
    """Of 8 channels four belong to the row, at rates 1 and 10000^(-2 / 4) = 0.01."""
    added = ours("pos.sinusoid(c=8)@6")(torch.zeros(1, 8, 6, 6))[0]
    row, column = 2, 5
    by_row = [math.sin(2), math.cos(2), math.sin(0.02), math.cos(0.02)]
    by_column = [math.sin(5), math.cos(5), math.sin(0.05), math.cos(0.05)]
    assert added[:, row, column].tolist() == pytest.approx(by_row + by_column, abs=1e-6)


@torch.no_grad()
def test_peg_adds_each_channels_neighbourhood():
    module = ours("pos.peg(c=16)@6")
    weight, bias = module.conv.weight, module.conv.bias
    corner = X[0, 3, :2, :2].mul(weight[3, 0, 1:, 1:]).sum() + bias[3] + X[0, 3, 0, 0]
    assert module(X)[0, 3, 0, 0].item() == pytest.approx(corner.item(), rel=1e-5)


def complex_pairs(x, head_dim, side):
    """Channels j and j + head_dim / 2 as one complex number, turned by row (first quarter) and column."""
    half, quarter = head_dim // 2, head_dim // 4
    turned = torch.complex(x[..., :half], x[..., half:]).to(torch.complex128)
    for pixel, t in itertools.product(range(side**2), range(quarter)):
        rate = 100 ** (-4 * t / head_dim)
        row, column = divmod(pixel, side)
        turned[:, pixel, t] *= complex(math.cos(row * rate), math.sin(row * rate))
        turned[:, pixel, quarter + t] *= complex(math.cos(column * rate), math.sin(column * rate))
    return turned


@torch.no_grad()
@pytest.mark.parametrize("heads", [1, 2])
def test_rope_is_the_product_of_complex_numbers(heads):
    """Su et al. 2021, equation 16: the real part of q conj(k) after both are turned."""
    module, head_dim = ours(f"mix.rope(c=16,heads={heads})@6"), 16 // heads
    q, k, v = split_heads(module.qkv(to_tokens(X)), 3, heads)
    q, k = (complex_pairs(part, head_dim, 6) for part in (q, k))
    scores = (q @ k.conj().transpose(1, 2)).real.float() / math.sqrt(head_dim)
    mixed = (scores.softmax(-1) @ v).reshape(2, heads, 36, head_dim).transpose(1, 2).reshape(2, 36, 16)
    torch.testing.assert_close(module(X), to_map(module.proj(mixed), 6), rtol=1e-4, atol=1e-5)


def is_shift_invariant(bias, side):
    """Whether entries (N, N) of pixels depend on the difference of their rows and columns alone."""
    bias = bias.reshape(side, side, side, side)
    same = torch.allclose(bias[1:, :, 1:], bias[:-1, :, :-1], atol=1e-5)
    return same and torch.allclose(bias[:, 1:, :, 1:], bias[:, :-1, :, :-1], atol=1e-5)


def test_scores_of_rope_depend_on_the_difference_of_positions():
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 1, 8, generator=generator).expand(1, 25, 8) for _ in range(2))
    cos, sin = rope_cosines(8, 5), rope_sines(8, 5)
    scores = rotated(q, cos, sin)[0] @ rotated(k, cos, sin)[0].T
    assert is_shift_invariant(scores, 5)
    assert not is_shift_invariant(rotated(q, cos, sin)[0] @ k[0].T, 5)
    assert scores.std() > 0.1


def fire(side, threshold):
    """FIRE with one hidden unit at work: bias = 3 relu(2 x - 0.5) + 1 of the normalised distance x; c = 0.5."""
    bias = FireBias(side, 1)
    with torch.no_grad():
        for parameter in bias.parameters():
            parameter.zero_()
        bias.scale.fill_(0.5)
        bias.threshold.fill_(threshold)
        bias.fc1.weight[7], bias.fc1.bias[7] = 2, -0.5
        bias.fc2.weight[0, 7], bias.fc2.bias[0] = 3, 1
        return bias()[0, 0].reshape(side, side, side, side)


def test_fire_by_hand():
    """Distances are interpolated up to the threshold, or to the diagonal if that is longer."""
    distance = math.log(0.5 * 5 + 1)  # 3 rows and 4 columns apart
    by_threshold = 3 * (2 * distance / math.log(0.5 * 20 + 1) - 0.5) + 1
    by_diagonal = 3 * (2 * distance / math.log(0.5 * 5 * math.sqrt(2) + 1) - 0.5) + 1
    assert fire(6, 20)[1, 5, 4, 1].item() == pytest.approx(by_threshold, rel=1e-4)
    assert fire(6, -2)[1, 5, 4, 1].item() == pytest.approx(by_diagonal, rel=1e-4)
    assert fire(6, 20)[2, 2, 2, 2].item() == 1  # relu of a negative number
    assert is_shift_invariant(fire(6, 20), 6)
    assert torch.equal(fire(6, 20), fire(8, 20)[:6, :6, :6, :6])


@torch.no_grad()
def test_relative_bias_of_the_base_is_swins_in_one_window():
    attention = ours("mix.relative(c=16,heads=2,base=6)@6")
    window = ours("mix.window(c=16,heads=2,w=6)@6")
    attention.bias.table.normal_()
    window.load_state_dict(attention.state_dict())
    torch.testing.assert_close(attention(X), window(X))


@torch.no_grad()
@pytest.mark.parametrize("side", [3, 5])
def test_relative_bias_of_another_side_is_timms(side):
    bias, whole = RelativeBias(side, 2, base=4), RelativeBias(side, 2)
    bias.table.normal_()
    shape = ((2 * side - 1) ** 2, 2)
    whole.table.copy_(resize_rel_pos_bias_table_simple(bias.table, (side, side), shape))
    torch.testing.assert_close(bias(), whole())
    assert all(is_shift_invariant(head, side) for head in bias()[0])


@pytest.mark.parametrize("kind", ["pos.learned(c=16,base=4)", "pos.sinusoid(c=16)", "pos.peg(c=16)"])
def test_a_network_without_positions_is_valid(kind):
    embed, position, head = "embed.patch(in=3,d=16,k=4,s=4)@24", f"{kind}@6", "head.fc(in=16,classes=10)@6"
    assert parse_key(position).removable
    for keys in ((embed, position, head), (embed, head)):
        check_chain(parse_keys(keys))


def test_costs_by_hand():
    assert parse_key("pos.learned(c=16,base=4)@6").params() == 16 * 4 * 4
    assert parse_key("pos.peg(c=16)@6").macs().total == 9 * 16 * 36
    mha = parse_key("mix.mha(c=16,heads=2)@6")
    for key, params in [
        ("mix.rope(c=16,heads=2)@6", 0),
        ("mix.relative(c=16,heads=2,base=4)@6", 7 * 7 * 2),
        ("mix.fire(c=16,heads=2)@6", 2 + 32 + 32 + 32 * 2 + 2),
    ]:
        spec = parse_key(key)
        assert spec.params() == mha.params() + params
        assert spec.macs() == mha.macs()  # rotations and biases are element-wise
        assert spec.complexity == mha.complexity
