"""Layers that merge or prune tokens, against their papers' formulas written out token by token."""

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block

from orchestrator.export.lower.source import build_seeded
from search.blocks import parse_key, parse_keys
from search.networks import build_group, build_network, module_of
from tests.support.errors import raises

D, HEADS, N = 16, 2, 17
X = torch.randn(1, N, D, generator=torch.Generator().manual_seed(3))


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
    torch.testing.assert_close(ours(X), theirs(X), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_merging_twice_weights_tokens_by_pixels():
    sizes, expected = torch.ones(N), X[0]
    tokens, own_sizes = X, None
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
    _, scores, attended = attention_of(module, X[0])
    weight = scores[:, 0].mean(0)
    order = sorted(range(1, N), key=lambda place: -weight[place])
    fused = sum(weight[place] * attended[place] for place in order[kept:])
    expected = mlp(module, torch.stack([attended[place] for place in (0, *order[:kept])] + [fused]))
    torch.testing.assert_close(module(X)[0], expected, rtol=1e-5, atol=1e-5)


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


def test_layers_that_do_not_follow_are_refused():
    blocks = parse_keys(("vit.shell(d=16)@4", "vit.layer(d=16,heads=2,ratio=2,n=16)@4"))
    with raises("blocks_do_not_fit"):
        build_group(blocks)
