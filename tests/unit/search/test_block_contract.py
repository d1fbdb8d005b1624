"""The contract of all kinds of blocks, figures worked out by hand, fusion, and keys and chains that are refused."""

import contextlib
import random
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from luts.format.errors import UsageError
from orchestrator.export.lower.source import build_seeded
from search.blocks import (
    Conv,
    FcHead,
    MBConv,
    MobileViTLayer,
    boundary_bytes,
    check_chain,
    kinds,
    parse_key,
    parse_keys,
    peak_activation_bytes,
    register,
)
from search.blocks.spec import make_divisible
from search.networks import build_block, build_network, module_of
from search.networks.layers import Constant, WeightValue, fuse_for_inference
from search.spaces import get_arch, get_space, list_spaces
from search.spaces.plugins import load_plugin
from search.supernet.model.supernet import Supernet
from tests.support.block_checks import check_kind, peak_bytes
from tests.support.errors import raises
from tests.support.own_code import own_code_forgotten

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "blocks.md"
DOCUMENTED_CODE = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
KINDS = kinds()
SPACE_SPECS = [spec for space in list_spaces() for spec in space.block_specs()]


@pytest.mark.parametrize("kind", KINDS)
def test_kind_agrees_with_its_module(kind):
    check_kind(KINDS[kind])


def test_parameters_of_spaces_agree_with_modules():
    by_kind = {}
    for spec in SPACE_SPECS:
        by_kind.setdefault(spec.kind, {})[spec.params()] = spec
    rng = random.Random(0)
    for specs in by_kind.values():
        for spec in rng.sample(list(specs.values()), min(len(specs), 60)):
            with torch.device("meta"):
                module = module_of(spec)
            assert sum(p.numel() for p in module.parameters()) == spec.params(), spec.key


def test_keys_of_spaces_read_back():
    assert {spec.kind for spec in SPACE_SPECS} <= set(KINDS)
    for spec in SPACE_SPECS:
        assert parse_key(spec.key) == spec


def test_keys_read_as_documented():
    assert Conv(256, 3, 16, 3, 2).key == "conv(in=3,out=16,k=3,s=2)@256"
    assert MBConv(128, 16, 24, 3, 1, 2).key == "mbconv(in=16,out=24,k=3,e=1,s=2)@128"
    layer = MobileViTLayer(32, 48, 3, 32, 2.0, 2)
    assert layer.key == "mvit.layer(d=48,heads=3,head_dim=32,ratio=2,patch=2)@32"
    assert MobileViTLayer(32, 48, 3, 32, 1.5, 2).key.count("ratio=1.5") == 1
    assert FcHead(16, 112, 1000).key == "head.fc(in=112,classes=1000)@16"


class Activated(nn.BatchNorm2d):
    """Batch normalisation and more: it must not become a part of a convolution."""

    def forward(self, input):  # noqa: A002
        return super().forward(input).relu()


INVALID_KEYS = {
    "invalid_block_key": [
        "",
        "conv",
        "conv(in=3,out=16,k=3,s=2)",
        "conv(in=3,out=16,k=3)@256",
        "conv(in=3,out=16,k=3,s=2,x=1)@256",
        "conv(in=3,in=3,out=16,k=3,s=2)@256",
        "conv(in=-3,out=16,k=3,s=2)@256",
        "conv(in=0,out=16,k=3,s=2)@256",
        "conv(in=999999,out=16,k=3,s=2)@256",
        "conv(in=3.5,out=16,k=3,s=2)@256",
        "conv(out=16,in=3,k=3,s=2)@256",
        "conv(in=03,out=16,k=3,s=2)@256",
        "conv(in=3,out=16,k=3,s=2)@0",
        "x" * 10_000,
    ],
    "invalid_block_parameter": [
        "evit.cga(c=16,heads=3,qk=4,v=8,kernels=53,window=7)@10",
        "evit.cga(c=16,heads=2,qk=4,v=8,kernels=54,window=7)@10",
        "evit.cga(c=1,heads=2,qk=4,v=8,kernels=55,window=7)@10",
        "mix.window(c=16,heads=2,w=7)@16",
        "mix.sr(c=16,heads=2,s=4)@6",
        "mix.linear(c=16,heads=3)@8",
        "mix.rope(c=16,heads=3)@8",
        "mix.rope(c=12,heads=2)@8",
        "pos.sinusoid(c=6)@8",
        "embed.cross(in=3,d=7,s=4)@16",
        "embed.cross(in=3,d=8,s=4)@20",
        "vit.layer(d=16,heads=3,ratio=2,n=17)@4",
        "vit.tome(d=16,heads=2,ratio=2,n=17,r=9)@4",
        "vit.evit(d=16,heads=2,ratio=2,n=17,k=16)@4",
    ],
    "unknown_block_kind": ["nosuch(in=3)@256"],
}


@pytest.mark.parametrize(
    ("code", "key"), [(code, key) for code, keys in INVALID_KEYS.items() for key in keys]
)
def test_invalid_key_is_refused_in_one_line(code, key):
    with raises(code) as refused:
        parse_key(key)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    "module", [nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4)), nn.Sequential(nn.Conv2d(3, 4, 1), Activated(4))]
)
def test_norms_that_cannot_be_fused_stay(module):
    assert type(fuse_for_inference(module.eval())[1]) is type(module[1])


@given(st.text(max_size=60))
def test_no_text_breaks_the_key_parser(text):
    with contextlib.suppress(UsageError):
        assert parse_key(text).key == text


def test_kind_is_registered_once():
    with raises("name_taken"):
        register(KINDS["conv"])


@pytest.mark.parametrize(
    ("blocks", "code"),
    [
        ((), "empty_network"),
        (("conv(in=3,out=4,k=3,s=2)@8", "head.fc(in=5,classes=10)@4"), "blocks_do_not_fit"),
        (("mvit.layer(d=16,heads=2,head_dim=4,ratio=2,patch=2)@8",), "blocks_do_not_fit"),
        (("vit.shell(d=16)@4", "vit.layer(d=16,heads=2,ratio=2,n=16)@4"), "blocks_do_not_fit"),
        (("tokens.embed(in=3,d=12,k=4,s=4)@12", "head.fc(in=12,classes=5)@3"), "blocks_do_not_fit"),
        (
            (
                "tokens.embed(in=3,d=12,k=4,s=4)@12",
                "ceit.encoder(d=12,heads=2,ratio=4,depth=3,classes=5)@3",
                "ceit.layer(d=24,heads=2,ratio=4)@3",
            ),
            "blocks_do_not_fit",
        ),
    ],
)
def test_chain_that_does_not_fit_is_refused(blocks, code):
    with raises(code):
        check_chain(parse_keys(blocks))


def test_boundary_bytes_by_hand():
    blocks = parse_keys(["conv(in=3,out=4,k=3,s=2)@8", "head.fc(in=4,classes=10)@4"])
    assert boundary_bytes(blocks) == 4 * 4 * 4 * 4


def test_convolution_by_hand():
    conv = Conv(8, 3, 4, 3, 2)
    assert conv.out_resolution == 4
    assert conv.params() == 3 * 4 * 9 + 8
    assert conv.macs().conv_linear == 3 * 4 * 9 * 16
    assert conv.costs.traffic_elements == 3 * 64 + 4 * 16
    assert conv.costs.live_elements == 3 * 64 + 4 * 16
    (op,) = conv.ops()
    assert (op.kind, op.kernel, op.stride, op.groups) == ("conv", 3, 2, 1)
    assert (op.inputs[0].shape, op.output.shape) == ((1, 3, 8, 8), (1, 4, 4, 4))


def test_inverted_residual_traffic_by_hand():
    """Each operation reads and writes its maps; the depthwise one reads before the stride."""
    halving = parse_key("mbconv(in=8,out=16,k=3,e=2,s=2)@8")  # 16 channels in the middle, 8 px, then 4
    assert halving.costs.traffic_elements == (8 + 16) * 64 + (16 * 64 + 16 * 16) + (16 + 16) * 16
    narrow = parse_key("mbconv(in=8,out=16,k=3,e=1,s=2)@8")  # without expansion
    assert narrow.costs.traffic_elements == (8 * 64 + 8 * 16) + (8 + 16) * 16


def test_inverted_residual_addition_moves_three_maps():
    """The addition reads the input and the projection, and writes the sum; it once counted two maps."""
    adding = parse_key("mbconv(in=16,out=16,k=5,e=4,s=1)@8")  # 64 channels in the middle
    convolutions = (16 + 64) * 64 + 2 * 64 * 64 + (64 + 16) * 64
    assert adding.costs.traffic_elements == convolutions + 3 * 16 * 64
    assert list(adding.ops())[-1].traffic == 3 * 16 * 64


def test_transformer_layer_by_hand():
    layer = MobileViTLayer(4, 8, 3, 4, 2.0, 2)
    inner, hidden, tokens, patches = 12, 16, 16, 4
    assert layer.params() == (16 + 8 * 36 + 36 + inner * 8 + 8) + (16 + 8 * hidden + hidden + hidden * 8 + 8)
    linear = tokens * (8 * 36 + inner * 8 + 2 * 8 * hidden)
    assert layer.macs().conv_linear == linear
    assert layer.macs().total == linear + 2 * tokens * patches * inner


def test_attention_mixers_by_hand():
    """4 N d^2 + 2 N^2 d, and 2 w^2 N d within windows."""
    assert parse_key("mix.mha(c=16,heads=2)@8").macs().total == 4 * 64 * 16**2 + 2 * 64**2 * 16
    assert parse_key("mix.window(c=16,heads=2,w=4)@8").macs().total == 4 * 64 * 16**2 + 2 * 16 * 64 * 16


def test_localvit_and_ceit_layers_by_hand():
    """DeiT-T's width at 14 x 14 px."""
    local = parse_key("localvit.layer(d=192,heads=4,ratio=4,r=192)@14")
    ceit = parse_key("ceit.layer(d=192,heads=3,ratio=4)@14")
    attention = 2 * 192 + 192 * 576 + 576 + 192 * 192 + 192
    convolutions, norms = 2 * 192 * 768 + 9 * 768, 2 * (768 + 768 + 192)
    assert local.params() == attention + convolutions + norms + 768 * 4 * 2 + 4 + 768
    assert ceit.params() == attention + 2 * 192 + convolutions + 2 * 768 + 192 + norms
    linear = 197 * 4 * 192 * 192
    assert ceit.macs().conv_linear == linear + 196 * convolutions
    assert ceit.macs().total == ceit.macs().conv_linear + 2 * 197 * 197 * 192
    assert local.macs().conv_linear == ceit.macs().conv_linear + 2 * 768 * 4
    assert local.costs.depthwise_macs == ceit.costs.depthwise_macs == 196 * 9 * 768


def test_shufflenet_units_by_hand():
    splits = parse_key("shufflenet.unit(in=8,out=8,s=1)@5")
    strided = parse_key("shufflenet.unit(in=6,out=8,s=2)@5")
    assert splits.params() == 4 * 4 + 9 * 4 + 4 * 4 + 3 * 8
    assert splits.costs.depthwise_macs == 9 * 4 * 25
    assert strided.macs().total == 6 * 4 * 25 + (9 * 4 + 4 * 4) * 9 + (9 * 6 + 6 * 4) * 9


def test_eesp_unit_by_hand():
    """96 channels at 28 px: 24 after the reduction."""
    spec = parse_key("espnet.eesp(c=96,dil=4)@28")
    convolutions = 96 // 4 * 24 + 4 * 24 * 9 + 96 // 4 * 96
    norms_and_slopes = 3 * 24 + 3 * 96 + 2 * 96
    assert spec.params() == convolutions + norms_and_slopes + 96
    assert spec.macs().total == convolutions * 28**2
    assert spec.costs.depthwise_macs == 4 * 24 * 9 * 28**2


def test_cascaded_attention_peak_memory():
    """Peak memory of a small map, where it once counted a query too many."""
    spec = parse_key("evit.cga(c=32,heads=2,qk=16,v=16,kernels=33,window=7)@4")
    assert 4 * spec.costs.live_elements == peak_bytes(*build_block(spec)) == 4 * 1792


def test_documented_block_satisfies_the_contract(tmp_path):
    path = tmp_path / "own_squeeze.py"
    path.write_text("\n".join(DOCUMENTED_CODE), encoding="utf-8")
    with own_code_forgotten():
        load_plugin(str(path))
        check_kind(kinds()["se"])
        assert parse_key("se(c=8,r=4)@4").params() == (8 * 2 + 2) + (2 * 8 + 8)
        space = get_space("squeezed-nano")
        arch = space.sample(random.Random(0))
        assert "se(" in " ".join(arch.keys())
        extracted = Supernet(space).extract(arch)
        assert sum(p.numel() for p in extracted.parameters()) == arch.params()


BN = (nn.BatchNorm1d, nn.BatchNorm2d)
BN_OF_JOINED_MAPS = {"deeplab.aspp", "deeplab.lite", "espnet.eesp", "espnet.trunk"}
"""Kinds that normalise what several convolutions give together: no single one could take it in."""


@pytest.mark.parametrize("kind", sorted(kinds()))
def test_every_kind_of_block_computes_the_same(kind):
    spec = parse_key(kinds()[kind].examples[-1])
    module = build_seeded(lambda: build_block(spec)[0], 0)
    _, x = build_block(spec)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    fused = fuse_for_inference(module)
    with torch.no_grad():
        expected = module(x)
        torch.testing.assert_close(fused(x), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    assert any(isinstance(part, BN) for part in fused.modules()) == (kind in BN_OF_JOINED_MAPS)
    assert not any(isinstance(part, WeightValue) and type(part) is not Constant for part in fused.modules())
    after = module.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_whole_network_computes_the_same():
    network = build_seeded(lambda: build_network(get_arch("autovit-xxs-paper").blocks()), 0)
    x = network.example_input()
    with torch.no_grad():
        expected = network(x)
        fused = fuse_for_inference(network)(x)
    torch.testing.assert_close(fused, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_norm_before_a_linear_layer_by_hand():
    """2 (x - 3) / sqrt(4) + 1, times 5, plus 7: 5 x - 3."""
    norm = nn.BatchNorm1d(1, eps=0)
    linear = nn.Linear(1, 1)
    with torch.no_grad():
        for tensor, value in [
            (norm.weight, 2),
            (norm.bias, 1),
            (norm.running_mean, 3),
            (norm.running_var, 4),
            (linear.weight, 5),
            (linear.bias, 7),
        ]:
            tensor.fill_(value)
    fused = fuse_for_inference(nn.Sequential(norm, linear).eval())
    assert fused(torch.tensor([[2.0]])).item() == pytest.approx(7)
    assert fused[1].weight.item() == pytest.approx(5)


@pytest.mark.parametrize(("width", "rounded"), [(11, 16), (17, 16), (18, 24), (20, 24), (3, 8)])
def test_width_is_never_rounded_down_by_more_than_a_tenth(width, rounded):
    """Of multiples of 8: 8 is the nearest to 11, but 27 % less; 16 is 6 % below 17, and 11 % below 18."""
    assert make_divisible(width) == rounded


def test_shufflenet_unit_traffic_by_hand():
    """Maps of half the channels have 4 x 25 elements: three convolutions, the join and its shuffle of 200."""
    splits = parse_key("shufflenet.unit(in=8,out=8,s=1)@5")
    assert splits.costs.traffic_elements == 3 * (100 + 100) + (100 + 100 + 200) + (200 + 200)


def test_inverted_residual_holds_its_input():
    """16 x 64 elements a map; the addition has input, projection and sum in memory."""
    assert parse_key("mbconv(in=16,out=16,k=3,e=1,s=1)@8").costs.live_elements == 3 * 16 * 64


def test_shell_holds_its_input_around_its_layers():
    shell = parse_key("mvit.shell(c=8,d=16,patch=2)@8")
    layer = parse_key("mvit.layer(d=16,heads=2,head_dim=4,ratio=1.5,patch=2)@8")
    assert peak_activation_bytes([shell, layer]) == 4 * (layer.costs.live_elements + 8 * 64)


def test_side_block_holds_its_input_for_the_next_block():
    """16 places: logits and offsets of 24 x 16 each and both joined, next to the input of 8 x 16."""
    side = parse_key("ssd.predict(in=8,boxes=6,classes=3)@4")
    assert peak_activation_bytes([side]) == 4 * (2 * 384 + 768 + 128)
