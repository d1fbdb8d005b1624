"""ViT's layers against timm's; merging, pruning, T2T-ViT, LocalViT and CeiT against their papers' formulas."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block

from orchestrator.export.lower.source import build_seeded
from search.blocks import parse_key, parse_keys
from search.networks import build_network, module_of
from search.networks.network import build_group
from search.networks.transformers import SoftSplit, sinusoids

EXACT: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}


def drawn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def seeded_module(key, seed=1):
    return build_seeded(lambda: module_of(parse_key(key)), seed)


def test_soft_split_is_unfold():
    x = drawn(2, 3, 17, 17)
    expected = F.unfold(x, 7, padding=2, stride=4).transpose(1, 2)
    assert torch.equal(SoftSplit(3, 7, 4, 2)(x), expected)


def test_performer_is_attention_of_random_features():
    """Written with the N x N matrix that the method never makes; weights so small that features matter."""
    step = seeded_module("t2t.performer(in=4,e=8,k=3,s=2)@9")
    with torch.no_grad():
        step.kqv.weight *= 0.2
        tokens = drawn(2, 25, 36)
        keys, queries, values = step.kqv(step.norm1(tokens)).split(8, -1)
        mapped = [
            (x @ step.features.T - x.square().sum(-1, keepdim=True) / 2).exp() / math.sqrt(4)
            for x in (queries, keys)
        ]
        scores = mapped[0] @ mapped[1].transpose(1, 2)
        attended = (scores / (scores.sum(-1, keepdim=True) + 1e-8)) @ values
        torch.testing.assert_close(step.attend(tokens), values + step.proj(attended), **EXACT)
    torch.testing.assert_close(step.features @ step.features.T, 4 * torch.eye(4), rtol=0, atol=1e-5)


def test_embedding_is_soft_split_and_linear_layer():
    embed = seeded_module("t2t.embed(in=4,d=12,k=3,s=2)@7")
    x = drawn(2, 4, 7, 7)
    with torch.no_grad():
        split = F.unfold(x, 3, padding=1, stride=2).transpose(1, 2)
        project = embed.get_submodule("project")
        tokens = F.linear(split, project.get_parameter("weight").flatten(1), project.get_parameter("bias"))
        expected = torch.cat((embed.class_token.expand(2, -1, -1), tokens), 1) + sinusoids(17, 12)
        torch.testing.assert_close(embed(x), expected, **EXACT)


def test_positions_are_sinusoids():
    table = sinusoids(5, 6)[0]
    for position in range(5):
        for channel in range(6):
            angle = position / 10000 ** (2 * (channel // 2) / 6)
            expected = math.cos(angle) if channel % 2 else math.sin(angle)
            assert abs(table[position, channel].item() - expected) < 1e-6


def test_resolutions_of_the_steps():
    """56, 28 and 14 px of a 224 px image (figure 3)."""
    sides = [
        parse_key(key).out_resolution
        for key in (
            "t2t.performer(in=3,e=64,k=7,s=4)@224",
            "t2t.performer(in=64,e=64,k=3,s=2)@56",
            "t2t.embed(in=64,d=256,k=3,s=2)@28",
        )
    ]
    assert sides == [56, 28, 14]


def heads_of(query, key, value, heads):
    """softmax(q k / sqrt(head_dim)) v, head by head."""
    mixed = [
        ((q @ k.transpose(1, 2)) / q.shape[-1] ** 0.5).softmax(-1) @ v
        for q, k, v in zip(*(x.chunk(heads, -1) for x in (query, key, value)), strict=True)
    ]
    return torch.cat(mixed, -1)


def attended(branch, x):
    query, key, value = branch.qkv(branch.norm(x)).chunk(3, -1)
    return x + branch.proj(heads_of(query, key, value, branch.heads))


def as_map(tokens, side):
    """Token 1 + row * side + column is the pixel of that row and column."""
    rows = [tokens[:, row * side : (row + 1) * side] for row in range(side)]
    return torch.stack(rows, 1).permute(0, 3, 1, 2)


def as_tokens(image):
    return torch.cat([image[:, :, row].transpose(1, 2) for row in range(image.shape[2])], 1)


def h_swish(x):
    return x * (x + 3).clamp(0, 6) / 6


def test_localvit_layer():
    layer = seeded_module("localvit.layer(d=12,heads=2,ratio=4,r=12)@3")
    x = drawn(2, 10, 12)
    with torch.no_grad():
        y = attended(layer.attention, x)
        image = as_map(y[:, 1:], 3)
        expand, depthwise, excitation, project = layer.local
        wide = h_swish(
            depthwise.bn(
                F.conv2d(
                    h_swish(expand.bn(F.conv2d(image, expand.conv.weight))),
                    depthwise.conv.weight,
                    padding=1,
                    groups=48,
                )
            )
        )
        gate = F.linear(
            wide.mean((2, 3)), excitation.squeeze.weight.flatten(1), excitation.squeeze.bias
        ).relu()
        gate = F.linear(gate, excitation.excite.weight.flatten(1), excitation.excite.bias)
        wide = wide * ((gate + 3).clamp(0, 6) / 6)[:, :, None, None]
        image = image + project.bn(F.conv2d(wide, project.conv.weight))
        torch.testing.assert_close(layer(x), torch.cat((y[:, :1], as_tokens(image)), 1), **EXACT)


def test_ceit_layer():
    """The class token passes by the convolutions: the residual adds the normed token to it."""
    layer = seeded_module("ceit.layer(d=12,heads=2,ratio=4)@3")
    x = drawn(2, 10, 12)
    with torch.no_grad():
        y = attended(layer.attention, x)
        z = layer.norm(y)
        conv1, bn1, _, conv2, bn2, _, conv3, bn3 = layer.local
        image = F.gelu(bn1(F.conv2d(as_map(z[:, 1:], 3), conv1.weight, conv1.bias)))
        image = F.gelu(bn2(F.conv2d(image, conv2.weight, conv2.bias, padding=1, groups=48)))
        image = bn3(F.conv2d(image, conv3.weight, conv3.bias))
        torch.testing.assert_close(layer(x), y + torch.cat((z[:, :1], as_tokens(image)), 1), **EXACT)


ENCODER = "ceit.encoder(d=12,heads=2,ratio=4,depth=3,classes=5)@3"


@pytest.mark.parametrize("layers", [3, 2])
def test_ceit_attends_over_all_class_tokens(layers):
    """The last class token is the one query; a layer left out repeats the class token before it."""
    blocks = parse_keys([ENCODER] + ["ceit.layer(d=12,heads=2,ratio=4)@3"] * layers)
    encoder = build_seeded(lambda: build_group(blocks), 1)
    x = drawn(2, 10, 12)
    with torch.no_grad():
        seen, y = [], x
        for layer in encoder.layers:
            y = layer(y)
            seen.append(y[:, 0])
        seen += [seen[-1]] * (3 - layers)
        tokens = torch.stack(seen, 1) + encoder.layer_positions
        normed = encoder.norm1(tokens)
        key, value = encoder.key_value(normed).chunk(2, -1)
        last = tokens[:, 2:] + encoder.proj(heads_of(encoder.query(normed[:, 2:]), key, value, 2))
        last = last + encoder.fc2(F.gelu(encoder.fc1(encoder.norm2(last))))
        expected = encoder.head(encoder.norm(last))[:, 0]
        torch.testing.assert_close(encoder(x), expected, **EXACT)


D, HEADS, N = 16, 2, 17
X_VIT = drawn(1, N, D)


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
    ours = seeded_module(f"vit.layer(d={D},heads={HEADS},ratio=4,n={N})@4")
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
        module = seeded_module(f"vit.tome(d={D},heads={HEADS},ratio=2,n={n},r={count})@4")
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
    module = seeded_module(f"vit.evit(d={D},heads={HEADS},ratio=2,n={N},k={kept})@4")
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
