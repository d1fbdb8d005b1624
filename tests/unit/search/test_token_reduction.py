"""Layers that reduce tokens against their gather forms and papers' equations; the spaces that search them."""

import dataclasses
import itertools
import math
import random
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F

from luts.format.errors import UsageError
from orchestrator.export.lower.source import build_seeded
from search.blocks import parse_key
from search.networks import build_network, module_of
from search.networks.layers import attention_scores, join_heads, split_heads
from search.networks.vit import one_hot, ranks
from search.spaces import Arch, arch_from_json, get_arch, get_space
from search.spaces.stages import Stage, expand_stage
from search.spaces.vit import REDUCERS
from search.supernet.model.supernet import Supernet
from tests.support.errors import raises

EXACT: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}
CIFAR, TOKENS = get_space("vit-tokens-cifar"), get_space("vit-tokens")
SIZES = [(66, 6), (65, 5), (197, 14)]
"""Even and odd numbers of tokens, and sides of maps."""


def seeded_module(key: str) -> Any:
    return build_seeded(lambda: module_of(parse_key(key)), 1).eval()


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def attended(module, x):
    """Keys, scores and the tokens after attention, as the layer computes them."""
    q, k, v = split_heads(module.qkv(module.norm1(x)), 3, module.heads)
    scores = attention_scores(q, k, module.heads)
    return k, scores, x + module.proj(join_heads(torch.bmm(scores, v), module.heads))


def class_attention(module, scores):
    return scores[:, 0, 1:].unflatten(0, (-1, module.heads)).mean(1)


def gathered(x, places):
    """The class token and those of `places` (B, k) among the others."""
    rows = x[:, 1:].gather(1, places[:, :, None].expand(-1, -1, x.shape[2]))
    return torch.cat((x[:, :1], rows), 1)


def test_of_equal_scores_the_first_is_the_larger():
    scores = torch.tensor([[[0.25, 0.5, 0.25, 0.5, 0.75, 0.25]]])
    assert ranks(scores).tolist() == [[[3, 1, 4, 2, 0, 5]]]
    assert one_hot(ranks(scores), 3)[0].argmax(1).tolist() == [4, 1, 3]
    assert one_hot(ranks(scores), 6).sum((1, 2)).item() == 6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_ranks_are_those_of_a_sort(dtype):
    """Neighbouring numbers of the type are told apart."""
    steps = torch.arange(64)[torch.randperm(64, generator=torch.Generator().manual_seed(0))]
    close = 1.0 + steps * torch.finfo(dtype).eps
    for scores in (drawn(197), close, drawn(197).softmax(0) * 197):
        scores = scores.to(dtype)
        order = scores.sort(descending=True, stable=True).indices
        assert torch.equal(ranks(scores[None, None])[0, 0].long().argsort(), order)


@torch.no_grad()
@pytest.mark.parametrize(("n", "side"), SIZES)
@pytest.mark.parametrize("kind", ["topk", "evit"])
def test_pruning_by_products_equals_the_gather_form(kind, n, side):
    kept = math.ceil(0.7 * (n - 1))
    module = seeded_module(f"vit.{kind}(d=16,heads=2,ratio=2,n={n},k={kept})@{side}")
    x = drawn(3, n, 16)
    _, scores, y = attended(module, x)
    weights = class_attention(module, scores)
    most, places = weights.topk(kept)
    stay = gathered(y, places)
    if kind == "evit":
        fused = torch.bmm(weights[:, None], y[:, 1:]) - torch.bmm(most[:, None], stay[:, 1:])
        stay = torch.cat((stay, fused), 1)
    torch.testing.assert_close(module(x), module.feed(stay), **EXACT)


@torch.no_grad()
@pytest.mark.parametrize(("n", "side"), SIZES)
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_merging_by_products_equals_the_gather_form(n, side, rate):
    r = math.floor(rate * (n - 1))
    module = seeded_module(f"vit.tome(d=16,heads=2,ratio=2,n={n},r={r})@{side}")
    x = drawn(3, n, 16)
    keys, _, y = attended(module, x)
    metric = F.normalize(keys.unflatten(0, (-1, 2)).mean(1), dim=-1)
    best, partner = (metric[:, 2::2] @ metric[:, 1::2].transpose(1, 2)).max(-1)
    order = best.argsort(descending=True)
    chosen, others = order[:, :r], order[:, r:].sort().values
    target = partner.gather(1, chosen)

    def joined(z):
        def wide(places):
            return places[:, :, None].expand(-1, -1, z.shape[2])

        even = z[:, 2::2]
        sums = z[:, 1::2].scatter_add(1, wide(target), even.gather(1, wide(chosen)))
        return torch.cat((z[:, :1], even.gather(1, wide(others)), sums), 1)

    sizes = joined(torch.ones(3, n, 1))
    tokens, own = module.step(x, None)
    torch.testing.assert_close(own, sizes)
    torch.testing.assert_close(tokens, module.feed(joined(y) / sizes), **EXACT)


@torch.no_grad()
def test_a_token_between_two_equal_partners_is_split():
    """All keys are equal: every even token is as similar to each of the odd ones."""
    module = seeded_module("vit.tome(d=16,heads=2,ratio=2,n=9,r=4)@3")
    _, sizes = module.step(drawn(1, 1, 16).expand(1, 9, -1), None)
    assert sizes[0, :, 0].tolist() == [1, 2, 2, 2, 2]


@torch.no_grad()
def test_token_fusion_drops_or_gives_means_the_length_of_their_longest_token():
    """The pairs are ToMe's, whose means have other lengths; after a layer that drops nothing has a size."""
    shape = "d=16,heads=2,ratio=2,n=37,r=12"
    tome = seeded_module(f"vit.tome({shape})@6")
    dropping, mlerp = (seeded_module(f"vit.{kind}({shape})@6") for kind in ("drop", "mlerp"))
    x = drawn(3, 37, 16)
    keys, scores, y = attended(tome, x)
    means, sizes = tome.reduce(y, keys, scores, None)
    kept, ones = dropping.reduce(y, keys, scores, None)
    assert torch.equal(ones, torch.ones_like(sizes))
    torch.testing.assert_close(kept[:, -18:], y[:, 1::2])
    torch.testing.assert_close(kept[:, :-18], means[:, :-18])
    fused, own = mlerp.reduce(y, keys, scores, None)
    assert torch.equal(own, sizes)
    metric = F.normalize(keys.unflatten(0, (-1, 2)).mean(1), dim=-1)
    best, partner = (metric[:, 2::2] @ metric[:, 1::2].transpose(1, 2)).max(-1)
    longest = y.norm(dim=2)[:, 1::2].clone()
    for image, even in itertools.product(range(3), range(18)):
        if (best[image] > best[image, even]).sum() < 12:
            target = partner[image, even]
            longest[image, target] = max(longest[image, target], y[image, 2 + 2 * even].norm())
    assert (sizes[:, -18:] > 2).any()
    torch.testing.assert_close(fused[:, -18:].norm(dim=2), longest)
    torch.testing.assert_close(F.normalize(fused, dim=2), F.normalize(means, dim=2))


def test_token_fusion_drops_in_early_layers_and_merges_in_late_ones():
    arch = arch_with(reducer="fusion", keep=0.5, first=1, every=2, depth=4)
    assert tokens_of(arch) == [65, 33, 33, 17]
    assert [key.partition("(")[0] for key in arch.keys()[2:6]] == [
        "vit.drop",
        "vit.layer",
        "vit.mlerp",
        "vit.layer",
    ]


@torch.no_grad()
def test_patch_merger_is_the_papers_equation():
    """softmax((X W)^T) X over all but the class token (Renggli et al. 2022, section 3)."""
    module = seeded_module("vit.merger(d=16,heads=2,ratio=2,n=37,k=9)@6")
    x = drawn(2, 37, 16)
    _, _, y = attended(module, x)
    weights = torch.einsum("bnd,kd->bkn", y[:, 1:], module.merge.weight).softmax(-1)
    merged = torch.einsum("bkn,bnd->bkd", weights, y[:, 1:])
    torch.testing.assert_close(module(x), module.feed(torch.cat((y[:, :1], merged), 1)), **EXACT)


@torch.no_grad()
def test_scores_are_those_of_dynamicvit():
    """Equations 2 to 5 with local and global features concatenated, image by image."""
    module = seeded_module("vit.scored(d=16,heads=2,ratio=2,n=37,k=9)@6")
    x, scorer = drawn(2, 37, 16), module.scorer
    _, _, y = attended(module, x)
    stay = []
    for image in y:
        normed = scorer.norm(image[1:])
        common = F.gelu(scorer.common(normed)).mean(0).expand(36, -1)
        features = torch.cat((F.gelu(scorer.local(normed)), common), 1)
        weight = torch.cat((scorer.from_local.weight, scorer.from_common.weight), 1)
        scores = scorer.score(F.gelu(F.linear(features, weight, scorer.from_local.bias)))[:, 0]
        stay.append(torch.cat((image[:1], image[1:][scores.topk(9).indices])))
    torch.testing.assert_close(module(x), module.feed(torch.stack(stay)), **EXACT)


def test_scores_learn_through_the_tokens_that_stay():
    module = seeded_module("vit.scored(d=16,heads=2,ratio=2,n=37,k=9)@6").train()
    x = drawn(2, 37, 16)
    out = module(x)
    torch.testing.assert_close(out, module.eval()(x), rtol=0, atol=0)
    out.square().sum().backward()
    assert module.scorer.score.weight.grad.abs().max() > 1e-4


@torch.no_grad()
def test_idle_tokens_are_unchanged_and_the_others_see_each_other_alone():
    idle = seeded_module("vit.idle(d=16,heads=2,ratio=2,n=37,k=9)@6")
    plain = seeded_module("vit.layer(d=16,heads=2,ratio=2,n=10)@6")
    plain.load_state_dict(idle.state_dict())
    x = drawn(2, 37, 16)
    query, keys, _ = idle.qkv(idle.norm1(x)).chunk(3, -1)
    scores = (query[:, :1] * keys).sum(2)[:, 1:]
    places = scores.topk(9).indices
    out = idle(x)
    torch.testing.assert_close(gathered(out, places), plain(gathered(x, places)), **EXACT)
    resting = torch.ones(2, 36).scatter(1, places, 0).bool()
    assert torch.equal(out[:, 1:][resting], x[:, 1:][resting])
    assert not torch.equal(out, x)


def tokens_of(arch):
    return [block.tokens for block in arch.blocks() if block.enclosed_by]


def arch_with(space: Any = CIFAR, **values: Any) -> Arch:
    (stage,) = space.stages
    named = {name: allowed[-1] for name, allowed in stage.choices} | values
    named["reducer"] = list(REDUCERS).index(named["reducer"])
    row = tuple(named[name] for name in stage.names)
    return Arch(space, space.default_resolution, "fc", space.default_classes, (row,))


def test_tokens_of_evit_by_hand():
    """0.7 of 196 is 137.2, of 139 97.3, of 99 69.3; the class token and the fused one come on top."""
    assert tokens_of(get_arch("vit-evit-deit-tiny")) == [197] * 4 + [140] * 3 + [100] * 3 + [72] * 2


@pytest.mark.parametrize(
    ("reducer", "counts"),
    [
        ("none", [65, 65, 65, 65, 65]),
        ("topk", [65, 33, 33, 17, 17]),
        ("evit", [65, 34, 34, 19, 19]),
        ("scored", [65, 33, 33, 17, 17]),
        ("merger", [65, 33, 33, 17, 17]),
        ("tome", [65, 33, 33, 17, 17]),
        ("idle", [65, 65, 65, 65, 65]),
    ],
)
def test_half_of_64_tokens_stay_twice(reducer, counts):
    arch = arch_with(reducer=reducer, keep=0.5, first=1, every=2)
    assert tokens_of(arch) == counts
    if reducer != "none":
        places = [place for place, key in enumerate(arch.keys(), -1) if key.startswith(f"vit.{reducer}(")]
        assert places == [1, 3]


def test_a_network_without_reduction_has_one_description():
    none = arch_with(reducer="none", keep=1, first=1, every=1)
    assert none == arch_with(reducer="idle", keep=1, first=2) == arch_with(reducer="none", keep=0.5, every=2)
    assert '"keep":1' in none.to_json()
    written = none.to_json().replace('"keep":1', '"keep":0.5')
    assert arch_from_json(written) == none
    assert sum(arch.stages[0] == none.stages[0] for arch in CIFAR) == 1
    (stage,) = CIFAR.stages
    reducing = 2 * 2 * 2 * (len(REDUCERS) - 1)
    assert len(stage.options) == 2 * 3 * 2 * 1 * (1 + reducing)


@pytest.mark.parametrize(("keep", "reducer"), [(0, "topk"), (1.5, "merger")])
def test_a_rate_that_leaves_no_token_is_refused(keep, reducer):
    (stage,) = CIFAR.stages
    choices = tuple((name, (keep,) if name == "keep" else values) for name, values in stage.choices)
    other: Stage = dataclasses.replace(stage, choices=choices)
    values = tuple(
        {"keep": keep, "reducer": list(REDUCERS).index(reducer)}.get(name, allowed[-1])
        for name, allowed in stage.choices
    )
    with raises("bad_keep_rate") as refused:
        expand_stage(other, values, 3, 32)
    assert "\n" not in str(refused.value)
    assert "at most 1" in str(refused.value)


@pytest.mark.parametrize("kept", [0, 16])
def test_a_layer_says_how_many_tokens_it_can_keep(kept):
    layer: Any = parse_key("vit.topk(d=8,heads=2,ratio=2,n=17,k=9)@4")
    with pytest.raises(UsageError, match=f"k = {kept} of 16 tokens; keep 1 to 15"):
        dataclasses.replace(layer, kept=kept)


@torch.no_grad()
def test_deit_tiny_equals_timm():
    theirs: Any = build_seeded(lambda: timm.create_model("deit_tiny_patch16_224"), 0)
    arch = get_arch("vit-deit-tiny")
    ours: Any = build_network(arch.blocks()).eval()
    assert arch.params() == sum(p.numel() for p in theirs.parameters()) == 5_717_416
    renamed = {
        "patch_embed.proj": "0.project",
        "cls_token": "1.class_token",
        "pos_embed": "1.positions",
        "head": "2.fc",
    }
    renamed |= {"blocks": "1.layers", "norm": "1.norm"}
    state = {}
    for name, value in theirs.state_dict().items():
        start = next(start for start in renamed if name.startswith(start))
        own = renamed[start] + name[len(start) :].replace(".attn.", ".").replace(".mlp.", ".")
        state[own] = value
    ours.load_state_dict(state)
    x = drawn(1, 3, 224, 224)
    expected = theirs(x)
    torch.testing.assert_close(ours(x), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert expected.std() > 0.01


def test_reducing_layers_share_the_weights_of_plain_ones():
    supernet = Supernet(CIFAR)
    plain = {part.source for part in supernet.slices(arch_with(reducer="none", keep=1))}
    owns = {"topk": 0, "evit": 0, "tome": 0, "fusion": 0, "idle": 0, "merger": 1, "scored": 11}
    assert owns.keys() == REDUCERS.keys() - {"none"}
    for reducer, own in owns.items():
        for first, every, places in ((1, 1, (0, 1)), (1, 2, (0, 2)), (2, 2, (1, 3))):
            arch = arch_with(reducer=reducer, keep=0.5, first=first, every=every)
            used = {part.source for part in supernet.slices(arch)}
            assert used >= plain
            added = {source.split(".")[3] for source in used - plain}
            assert added == ({str(place) for place in places} if own else set())
            assert len(used - plain) == 2 * own


@pytest.mark.parametrize("space", [CIFAR, TOKENS], ids=lambda space: space.name)
def test_subnets_of_every_reducer_equal_their_networks(space):
    supernet, rng = Supernet(space.with_classes(4)), random.Random(0)
    x = drawn(2, 3, space.default_resolution, space.default_resolution)
    for reducer in REDUCERS:
        values = {name: rng.choice(allowed[:2]) for name, allowed in space.stages[0].choices}
        arch = arch_with(supernet.space, **values | {"reducer": reducer})
        network = supernet.extract(arch).train()
        assert sum(p.numel() for p in network.parameters()) == arch.params()
        with torch.no_grad():
            torch.testing.assert_close(supernet(x, arch), network(x), **EXACT)


def test_narrow_subnets_take_the_first_channels_of_positions():
    supernet = Supernet(CIFAR)
    arch = arch_with(reducer="none", keep=1, width=48, heads=4)
    stored, taken = dict(supernet.named_parameters()), dict(supernet.extract(arch).named_parameters())
    assert torch.equal(taken["1.positions"], stored["slots.encoder_1.positions"][:, :, :48])
    qkv = stored["slots.encoder_1.layers.0.qkv.weight"]
    assert qkv.shape == (3 * 4 * 32, 64), "4 heads at most, of up to 64 / 2 channels"
    assert torch.equal(taken["1.layers.0.qkv.weight"][12:24], qkv[32:44, :48])
