"""MobileViT and EfficientViT against timm's, and their spaces."""

import dataclasses
import random
from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models.efficientvit_msra import CascadedGroupAttention

from orchestrator.export.lower.source import build_seeded, settle
from search.blocks import parse_key
from search.networks import build_block, build_network
from search.networks.efficientvit import CascadedAttention, DistanceBias
from search.networks.layers import fuse_for_inference
from search.spaces import get_arch, get_space
from search.supernet.model.supernet import Supernet
from tests.support.errors import raises

EFFICIENTVIT_PARAMS = {0: 2.3, 1: 3.0, 2: 4.2, 3: 6.9, 4: 8.8, 5: 12.4}
"""Liu et al. 2023, table 2, in millions."""

EFFICIENTVIT_MACS = {0: 79, 1: 167, 2: 201, 3: 263, 4: 299, 5: 522}
"""The same table's FLOPs in millions, those of attention's products included."""


def _copy(network, theirs):
    """Give `network` the weights of timm's, where one convolution makes query, key and value."""
    attentions = [part for part in theirs.modules() if isinstance(part, CascadedGroupAttention)]
    own = [part for part in network.modules() if isinstance(part, CascadedAttention)]
    with torch.no_grad():
        for ours, given in zip(own, attentions, strict=True):
            _copy_in_order(ours.proj, given.proj)
            heads = zip(ours.heads, given.attention_biases, given.qkvs, given.dws, strict=True)
            for head, biases, qkv, mix in heads:
                head.bias.table.copy_(biases)
                _copy_in_order(head.mix, mix)
                sizes = (given.key_dim, given.key_dim, given.val_dim)
                for name, tensor in qkv.state_dict().items():
                    parts = tensor.split(sizes) if tensor.ndim else (tensor,) * 3
                    for part, values in zip((head.q, head.k, head.v), parts, strict=True):
                        part.state_dict()[name].copy_(values)
        _copy_in_order(network, theirs)


def _copy_in_order(ours, theirs):
    """All tensors outside attentions, by their place; of an attention's parts all."""
    whole = (CascadedAttention, CascadedGroupAttention)
    tensors = []
    for module in (ours, theirs):
        inside = tuple(f"{name}." for name, part in module.named_modules() if isinstance(part, whole))
        tensors.append([t for name, t in module.state_dict().items() if not name.startswith(inside)])
    for target, source in zip(*tensors, strict=True):
        target.copy_(source)


def _timm(size, **options):
    model: Any = build_seeded(lambda: timm.create_model(f"efficientvit_m{size}", **options), 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("attention_biases"):
                parameter.normal_(0, 0.5, generator=generator)
        settle(model, (torch.randn(1, 3, model.img_size, model.img_size, generator=generator),))
    return model


@pytest.mark.parametrize("size", range(6))
def test_parameters_and_macs_of_the_paper(size):
    arch = get_arch(f"efficientvit-m{size}")
    with torch.device("meta"):
        theirs = timm.create_model(f"efficientvit_m{size}")
    assert arch.params() == sum(p.numel() for p in theirs.parameters())
    assert arch.params() / 1e6 == pytest.approx(EFFICIENTVIT_PARAMS[size], abs=0.08)
    assert round(arch.macs().total / 1e6) == EFFICIENTVIT_MACS[size]


@pytest.mark.parametrize(("size", "resolution"), [(0, 224), (1, 224), (2, 192), (3, 256), (4, 224), (5, 224)])
def test_efficientvit_equals_timm(size, resolution):
    """Maps of 14 px are cut into windows; at 192 and 256 px, maps of 12, 16 and 8 px are padded to whole ones."""
    theirs = _timm(size, img_size=resolution)
    arch = get_arch(f"efficientvit-m{size}").with_resolution(resolution)
    ours = build_network(arch.blocks()).eval()
    _copy(ours, theirs)
    x = ours.example_input()
    with torch.no_grad():
        expected, deployed = theirs(x), fuse_for_inference(ours)
        scale = float(expected.abs().max())
        torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-5 * scale)
        torch.testing.assert_close(deployed(x), expected, rtol=1e-5, atol=1e-5 * scale)
    assert expected.std() > 0.01
    assert not any(isinstance(part, torch.nn.modules.batchnorm._BatchNorm) for part in deployed.modules())


@pytest.mark.parametrize("v", [4, 8, 12])
def test_cascade_adds_common_channels(v):
    """Equation 3: the second head sees the first one's output, added to its split where both have channels."""
    spec = parse_key(f"evit.cga(c=16,heads=2,qk=4,v={v},kernels=33,window=7)@7")
    module = build_seeded(lambda: build_block(spec)[0], 0)
    x = torch.randn(1, 16, 7, 7, generator=torch.Generator().manual_seed(0))
    seen = {}
    module.heads[0].register_forward_hook(lambda _m, _i, out: seen.update(first=out))
    module.heads[1].register_forward_hook(lambda _m, given, _out: seen.update(second=given[0]))
    with torch.no_grad():
        module(x)
    common = min(v, 8)
    expected = x[:, 8:] + F.pad(seen["first"][:, :common], (0, 0, 0, 0, 0, 8 - common))
    assert torch.equal(seen["second"], expected)


def test_bias_is_that_of_the_distance():
    bias = DistanceBias(3)
    table = bias.table.detach().reshape(3, 3)
    for a, b in [(0, 0), (0, 5), (7, 2), (3, 4)]:
        expected = table[abs(a // 3 - b // 3), abs(a % 3 - b % 3)]
        assert bias()[a, b] == expected


def test_splits_share_the_channels_evenly():
    block: Any = parse_key("evit.cga(c=64,heads=3,qk=16,v=22,kernels=755,window=7)@14")
    assert block.splits == (22, 21, 21)
    assert block.kernel_sizes == (7, 5, 5)
    assert block.windows == 4


def test_sandwiches_share_attention_weights():
    supernet = Supernet(get_space("efficientvit-nano"))
    rows = tuple(tuple(max(v) for _, v in stage.choices) for stage in supernet.space.stages)
    thick = dataclasses.replace(supernet.space.sample(random.Random(0)), stages=rows)
    index = supernet.space.stages[0].names.index("ffns")
    thin = dataclasses.replace(thick, stages=((*rows[0][:index], 1, *rows[0][index + 1 :]), *rows[1:]))
    left = {part.source for part in supernet.slices(thick)} - {part.source for part in supernet.slices(thin)}
    slots = {"_".join(source.split(".")[1].split("_")[1:]) for source in left}
    assert slots == {"0before1", "0after1", "1before1", "1after1"}
    assert {source.split(".")[1].split("_")[0] for source in left} == {"stage1"}


def test_fewer_heads_take_wider_slices():
    supernet = Supernet(get_space("efficientvit-cga").with_classes(10))
    arch = get_arch("efficientvit-m2").with_classes(10)
    stored = dict(supernet.named_parameters())["slots.stage3_0attention.heads.0.q.conv.weight"]
    taken = dict(supernet.extract(arch).named_parameters())["17.heads.0.q.conv.weight"]
    assert stored.shape[:2] == (16, 384 // 2)
    assert torch.equal(taken, stored[:16, : 224 // 2])


@pytest.mark.parametrize(
    ("space", "middle"), [("efficientvit-cga", "efficientvit-m2"), ("mobilevit", "mobilevit-xs")]
)
def test_published_networks_are_among_the_spaces_sizes(space, middle):
    params = [get_space(space).sample(random.Random(seed)).params() for seed in range(200)]
    assert min(params) < get_arch(middle).params() < max(params)


@pytest.mark.parametrize(("name", "resolution"), [("efficientvit-m0", 200), ("mobilevit-xs", 224)])
def test_unsupported_resolution_is_refused(name, resolution):
    with raises("not_in_space"):
        get_arch(name).with_resolution(resolution).blocks()


MOBILEVIT_PARAMS = {"xxs": 1.3e6, "xs": 2.3e6, "s": 5.6e6}
"""Mehta & Rastegari 2022, figure 6."""


@pytest.mark.parametrize(
    ("size", "resolution"), [("xxs", 320), ("xs", 192), ("s", 256), ("xxs", 160), ("xs", 288)]
)
def test_mobilevit_equals_timm(size, resolution):
    theirs = build_seeded(lambda: timm.create_model(f"mobilevit_{size}"), 0)
    arch = get_arch(f"mobilevit-{size}").with_resolution(resolution)
    ours = build_network(arch.blocks()).eval()
    assert sum(p.numel() for p in theirs.parameters()) == arch.params()
    assert round(arch.params() / 1e6, 1) == MOBILEVIT_PARAMS[size] / 1e6
    weights = theirs.state_dict().values()
    ours.load_state_dict(dict(zip(ours.state_dict(), weights, strict=True)))
    x = ours.example_input()
    with torch.no_grad():
        expected = theirs(x)
        torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    assert expected.std() > 0.01


def test_heads_and_their_channels_shrink_together():
    """A smaller dimension keeps the first channels of every head of query, key and value, not the first heads."""
    supernet = Supernet(get_space("mobilevit").with_classes(10))
    arch = get_arch("mobilevit-xxs").with_classes(10)
    stored = dict(supernet.named_parameters())["slots.transformer1_1.layers.0.qkv.weight"]
    taken = dict(supernet.extract(arch).named_parameters())["6.layers.0.qkv.weight"]
    assert (stored.shape, taken.shape) == ((3 * 144, 144), (3 * 64, 64))
    second_head_of_keys = stored[144 + 36 : 144 + 36 + 16, :64]
    assert torch.equal(taken[64 + 16 : 64 + 32], second_head_of_keys)


def test_only_odd_maps_are_resized():
    """The last map has 5, 6, 8, 9 and 10 px at the sampler's sizes."""
    for resolution, side in ((160, 5), (192, 6), (256, 8), (288, 9), (320, 10)):
        keys = get_arch("mobilevit-xxs").with_resolution(resolution).keys()
        stretched = [key for key in keys if key.startswith("mvit.stretched")]
        assert stretched == ([f"mvit.stretched(c=80,d=96,patch=2)@{side}"] if side % 2 else [])
        assert f"mvit.shell(c=64,d=80,patch=2)@{2 * side}" in keys
    odd = get_arch("autovit-xxs-paper").with_resolution(224).keys()
    assert "mvit.shell(c=80,d=80,patch=2)@7" in odd, "AutoViT's block pads"


def test_former_resolutions_keep_their_digest():
    before = "719f73113450"
    space = get_space("mobilevit")
    former = replace(space, resolutions=(192, 256, 320), former_resolutions=())
    assert former.digest != space.digest
    assert former.digest in space.digests
    assert former.digest.startswith(before)


def test_subnet_of_odd_maps_equals_the_supernet():
    supernet = Supernet(get_space("mobilevit").with_classes(10))
    arch = get_arch("mobilevit-xxs").with_classes(10).with_resolution(160)
    x = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    network = supernet.extract(arch).train()
    with torch.no_grad():
        torch.testing.assert_close(supernet(x, arch), network(x), rtol=1e-4, atol=1e-4)
