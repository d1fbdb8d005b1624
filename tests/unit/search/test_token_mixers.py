"""Token mixers against timm's and their papers' formulas."""

import pytest
import torch
import torch.nn.functional as F
from timm.models.metaformer import Pooling
from timm.models.mlp_mixer import MixerBlock
from timm.models.mobilevit import LinearSelfAttention
from timm.models.pvt_v2 import Attention as PvtAttention
from timm.models.swiftformer import EfficientAdditiveAttention
from timm.models.swin_transformer import WindowAttention, window_partition, window_reverse
from timm.models.vision_transformer import Attention as VitAttention

from orchestrator.export.lower.source import build_seeded
from search.blocks import parse_key
from search.networks import module_of
from search.networks.layers import fuse_for_inference

C, SIDE = 16, 8
X = torch.randn(2, C, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def tokens(x):
    return x.flatten(2).transpose(1, 2)


def as_map(x):
    return x.transpose(1, 2).reshape(X.shape)


def ours(key):
    return build_seeded(lambda: module_of(parse_key(key)), 0)


def copied(key, theirs, rename=()):
    """Our module with the weights of theirs, tensor by tensor under the renamed names."""
    module = ours(key)
    state = {}
    for name, value in theirs.state_dict().items():
        for old, new in rename:
            name = name.replace(old, new)
        state[name] = value
        if (
            name.startswith("qkv.") and value.ndim in (1, 4) and len(value) == 1 + 2 * C
        ):  # MobileViTv2's: q, k, v
            kind = name.removeprefix("qkv.")
            state |= {f"qkv.{part}.{kind}": each for part, each in enumerate(value.split((1, C, C)))}
    module.load_state_dict(
        {name: state[name].reshape(own.shape) for name, own in module.state_dict().items()}
    )
    return module


def check_equal(module, expected):
    with torch.no_grad():
        given = module(X)
    torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    assert expected.std() > 1e-3


@torch.no_grad()
def test_window_attention_is_swins():
    theirs = build_seeded(lambda: WindowAttention(C, num_heads=2, window_size=4), 0)
    theirs.relative_position_bias_table.normal_(generator=torch.Generator().manual_seed(2))
    windows = window_partition(X.permute(0, 2, 3, 1), (4, 4)).reshape(-1, 16, C)
    expected = window_reverse(theirs(windows).reshape(-1, 4, 4, C), (4, 4), SIDE, SIDE).permute(0, 3, 1, 2)
    rename = [("relative_position_bias_table", "bias.table")]
    module = copied(f"mix.window(c={C},heads=2,w=4)@{SIDE}", theirs, rename)
    check_equal(module, expected)
    constant = fuse_for_inference(module)
    check_equal(constant, expected)
    assert "bias.table" not in dict(constant.named_parameters())


TIMMS = {
    "mix.mha(c=16,heads=4)@8": (
        lambda: VitAttention(C, num_heads=4, qkv_bias=True),
        lambda theirs: as_map(theirs(tokens(X))),
    ),
    "mix.sr(c=16,heads=2,s=2)@8": (
        lambda: PvtAttention(C, num_heads=2, sr_ratio=2),
        lambda theirs: as_map(theirs(tokens(X), [SIDE, SIDE])),
    ),
    "mix.separable(c=16)@8": (
        lambda: LinearSelfAttention(C),
        lambda theirs: theirs(X.flatten(2)[:, :, None]).reshape(X.shape),
    ),
    "mix.additive(c=16)@8": (lambda: EfficientAdditiveAttention(C, C, 1), lambda theirs: theirs(X)),
    "mix.pool(c=16,k=3)@8": (lambda: Pooling(3), lambda theirs: theirs(X)),
    "mix.mlp(c=16,hidden=8)@8": (
        lambda: MixerBlock(C, SIDE**2).mlp_tokens,
        lambda theirs: theirs(X.flatten(2)).reshape(X.shape),
    ),
}
"""timm's module, and its output as a map, by our key."""


@pytest.mark.parametrize("key", TIMMS)
@torch.no_grad()
def test_mixer_is_timms(key):
    make, output = TIMMS[key]
    theirs = build_seeded(make, 0)
    rename = [("qkv_proj", "qkv"), ("out_proj", "out"), ("w_g", "score.weight")]
    check_equal(copied(key, theirs, rename), output(theirs))


@torch.no_grad()
def test_linear_attention_is_the_papers_equation():
    """Katharopoulos et al. 2020, equation 4 with the similarity of equation 7, one query at a time."""
    module = ours(f"mix.linear(c={C},heads=2)@{SIDE}")
    mixed = torch.zeros(2, SIDE**2, C)
    for image, qkv in enumerate(module.qkv(tokens(X))):
        for head in (slice(0, 8), slice(8, 16)):
            q, k, v = (part[:, head] for part in qkv.split(C, dim=1))
            for i in range(SIDE**2):
                similar = (F.elu(q[i]) + 1) @ (F.elu(k) + 1).T
                mixed[image, i, head] = similar @ v / similar.sum()
    check_equal(module, as_map(module.proj(mixed)))


@pytest.mark.parametrize("side", [7, 8])
def test_fourier_filter_is_gfnets_formula_by_fft(side):
    """Rao et al. 2021, equation 4; odd maps have no frequency that is its own conjugate at the end."""
    module = ours(f"mix.fourier(c={C})@{side}")
    x = X[:, :, :side, :side]
    weight = torch.complex(module.real, module.imag).transpose(1, 2)
    expected = torch.fft.irfft2(torch.fft.rfft2(x, norm="ortho") * weight, s=(side, side), norm="ortho")
    torch.testing.assert_close(module(x), expected, rtol=1e-5, atol=1e-6)
    assert expected.std() > 1e-3
