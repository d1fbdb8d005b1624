"""Token mixers, and layers that merge or prune tokens, against timm's and their papers' formulas."""

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
from timm.models.vision_transformer import Block

from orchestrator.export.lower.source import build_seeded
from search.blocks import parse_key, parse_keys
from search.networks import build_network, module_of
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
def test_multi_head_attention_is_that_of_vit():
    theirs = build_seeded(lambda: VitAttention(C, num_heads=4, qkv_bias=True), 0)
    check_equal(copied(f"mix.mha(c={C},heads=4)@{SIDE}", theirs), as_map(theirs(tokens(X))))


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


@torch.no_grad()
def test_spatial_reduction_attention_is_pvts():
    theirs = build_seeded(lambda: PvtAttention(C, num_heads=2, sr_ratio=2), 0)
    module = copied(f"mix.sr(c={C},heads=2,s=2)@{SIDE}", theirs)
    check_equal(module, as_map(theirs(tokens(X), [SIDE, SIDE])))


@torch.no_grad()
def test_separable_attention_is_mobilevitv2s():
    theirs = build_seeded(lambda: LinearSelfAttention(C), 0)
    module = copied(f"mix.separable(c={C})@{SIDE}", theirs, [("qkv_proj", "qkv"), ("out_proj", "out")])
    check_equal(module, theirs(X.flatten(2)[:, :, None]).reshape(X.shape))


@torch.no_grad()
def test_additive_attention_is_swiftformers():
    theirs = build_seeded(lambda: EfficientAdditiveAttention(C, C, 1), 0)
    check_equal(copied(f"mix.additive(c={C})@{SIDE}", theirs, [("w_g", "score.weight")]), theirs(X))


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


def test_pool_mixer_is_poolformers():
    check_equal(ours(f"mix.pool(c={C},k=3)@{SIDE}"), Pooling(3)(X))


@pytest.mark.parametrize("side", [7, 8])
def test_fourier_filter_is_gfnets_formula_by_fft(side):
    """Rao et al. 2021, equation 4; odd maps have no frequency that is its own conjugate at the end."""
    module = ours(f"mix.fourier(c={C})@{side}")
    x = X[:, :, :side, :side]
    weight = torch.complex(module.real, module.imag).transpose(1, 2)
    expected = torch.fft.irfft2(torch.fft.rfft2(x, norm="ortho") * weight, s=(side, side), norm="ortho")
    torch.testing.assert_close(module(x), expected, rtol=1e-5, atol=1e-6)
    assert expected.std() > 1e-3


@torch.no_grad()
def test_token_mlp_is_mixers():
    theirs = build_seeded(lambda: MixerBlock(C, SIDE**2), 0).mlp_tokens
    hidden = theirs.fc1.out_features
    module = copied(f"mix.mlp(c={C},hidden={hidden})@{SIDE}", theirs)
    check_equal(module, theirs(X.flatten(2)).reshape(X.shape))


D, HEADS, N = 16, 2, 17
X_VIT = torch.randn(1, N, D, generator=torch.Generator().manual_seed(3))


def layer(key):
    return build_seeded(lambda: module_of(parse_key(key)), 0)


def attention_of(module, x, sizes=None):
    """Keys (heads, n, head_dim), softmax scores (heads, n, n) and the tokens after attention (n, d)."""
    q, k, v = module.qkv(module.norm1(x)).reshape(-1, 3, HEADS, D // HEADS).permute(1, 2, 0, 3)
    logits = q @ k.transpose(1, 2) / (D // HEADS) ** 0.5
    if sizes is not None:
        logits = logits + sizes.log()
    scores = logits.softmax(-1)
    return k, scores, x + module.proj((scores @ v).transpose(0, 1).reshape(-1, D))


def merged(x, keys, sizes, count):
    """Bolya et al. 2023, section 3: likeliest pairs of alternate tokens, joined by the mean over their pixels."""
    metric = F.normalize(keys.mean(0), dim=-1)
    odd = list(range(1, len(x), 2))
    best = {}
    for place in range(2, len(x), 2):
        likeness = [float(metric[place] @ metric[other]) for other in odd]
        best[place] = (max(likeness), odd[likeness.index(max(likeness))])
    gone = sorted(best, key=lambda place: -best[place][0])[:count]
    sums, total = {}, {}
    for other in odd:
        group = [other, *(place for place in gone if best[place][1] == other)]
        sums[other] = sum(sizes[place] * x[place] for place in group)
        total[other] = sum(sizes[place] for place in group)
    stay = [place for place in range(0, len(x), 2) if place not in gone]
    tokens = [x[place] for place in stay] + [sums[other] / total[other] for other in odd]
    return torch.stack(tokens), torch.stack(
        [sizes[place] for place in stay] + [total[other] for other in odd]
    )


def mlp(module, x):
    return x + module.fc2(F.gelu(module.fc1(module.norm2(x))))


@torch.no_grad()
def test_the_plain_layer_is_that_of_vit():
    theirs = build_seeded(lambda: Block(D, HEADS, mlp_ratio=4, qkv_bias=True), 0)
    ours = layer(f"vit.layer(d={D},heads={HEADS},ratio=4,n={N})@4")
    state = {
        name.replace("attn.", "").replace("mlp.", ""): value for name, value in theirs.state_dict().items()
    }
    ours.load_state_dict(state)
    torch.testing.assert_close(ours(X_VIT), theirs(X_VIT), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_merging_twice_weights_tokens_by_pixels():
    sizes, expected = torch.ones(N), X_VIT[0]
    tokens, own_sizes = X_VIT, None
    for count, n in ((5, N), (3, N - 5)):
        module = layer(f"vit.tome(d={D},heads={HEADS},ratio=2,n={n},r={count})@4")
        keys, _, attended = attention_of(module, expected, sizes)
        joined, sizes = merged(attended, keys, sizes, count)
        expected = mlp(module, joined)
        tokens, own_sizes = module.step(tokens, own_sizes)
        torch.testing.assert_close(tokens[0], expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(own_sizes[0, :, 0], sizes)
    assert sizes.sum() == N
    assert sizes.max() > 1


@torch.no_grad()
def test_pruning_fuses_the_least_attended_tokens():
    """Liang et al. 2022, section 3.2: the fused token is the sum of the others by their attention."""
    kept = 9
    module = layer(f"vit.evit(d={D},heads={HEADS},ratio=2,n={N},k={kept})@4")
    _, scores, attended = attention_of(module, X_VIT[0])
    weight = scores[:, 0].mean(0)
    order = sorted(range(1, N), key=lambda place: -weight[place])
    fused = sum(weight[place] * attended[place] for place in order[kept:])
    expected = mlp(module, torch.stack([attended[place] for place in (0, *order[:kept])] + [fused]))
    torch.testing.assert_close(module(X_VIT)[0], expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_images_of_a_batch_do_not_meet():
    keys = (
        "conv(in=3,out=16,k=3,s=1)@4",
        "vit.shell(d=16)@4",
        "vit.tome(d=16,heads=2,ratio=2,n=17,r=4)@4",
        "vit.evit(d=16,heads=2,ratio=2,n=13,k=7)@4",
        "head.fc(in=16,classes=10)@1",
    )
    network = build_seeded(lambda: build_network(parse_keys(keys)), 0)
    images = network.example_input(3)
    alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(network(images), alone, rtol=1e-5, atol=1e-5)
