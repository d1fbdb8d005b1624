"""Block keys and costs: by hand, against built networks, and under hostile input."""

import contextlib
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from luts.format.errors import UsageError
from search.blocks import (
    Conv,
    FcHead,
    MBConv,
    MobileViTLayer,
    boundary_bytes,
    check_chain,
    parse_key,
    parse_keys,
)
from search.networks import module_of
from search.spaces import get_arch, list_spaces

ALL_SPECS = [spec for space in list_spaces() for spec in space.block_specs()]


def test_every_key_of_every_space_reads_back_as_its_block():
    for spec in ALL_SPECS:
        assert parse_key(spec.key) == spec


def test_keys_read_as_documented():
    assert Conv(256, 3, 16, 3, 2).key == "conv(in=3,out=16,k=3,s=2)@256"
    assert MBConv(128, 16, 24, 3, 1, 2).key == "mbconv(in=16,out=24,k=3,e=1,s=2)@128"
    assert (
        MobileViTLayer(32, 48, 3, 32, 2.0, 2).key == "mvit.layer(d=48,heads=3,head_dim=32,ratio=2,patch=2)@32"
    )
    assert MobileViTLayer(32, 48, 3, 32, 1.5, 2).key.count("ratio=1.5") == 1
    assert FcHead(16, 112, 1000).key == "head.fc(in=112,classes=1000)@16"


@pytest.mark.parametrize(
    "key",
    [
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
        "nosuch(in=3)@256",
        "conv(in=3,out=16,k=3,s=2)@0",
        "x" * 10_000,
    ],
)
def test_bad_keys_are_refused_in_one_line(key):
    with pytest.raises(UsageError) as refused:
        parse_key(key)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


@given(st.text(max_size=60))
def test_no_text_breaks_the_key_parser(text):
    with contextlib.suppress(UsageError):
        assert parse_key(text).key == text


def test_costs_of_a_convolution_by_hand():
    conv = Conv(8, 3, 4, 3, 2)
    assert conv.out_resolution == 4
    assert conv.params() == 3 * 4 * 9 + 8
    assert conv.macs().conv_linear == 3 * 4 * 9 * 16
    assert conv.traffic_elements() == 3 * 64 + 4 * 16


def test_traffic_of_an_inverted_residual_by_hand():
    """Elements read and written by each operation; what the depthwise one reads lies before the stride."""
    halving = parse_key("mbconv(in=8,out=16,k=3,e=2,s=2)@8")  # 16 channels in its middle, 8 px, then 4
    assert halving.traffic_elements() == (8 + 16) * 64 + (16 * 64 + 16 * 16) + (16 + 16) * 16
    adding = parse_key(
        "mbconv(in=16,out=16,k=5,e=4,s=1)@8"
    )  # 64 channels in its middle, and the sum of two maps
    assert adding.traffic_elements() == (16 + 64) * 64 + 2 * 64 * 64 + (64 + 16) * 64 + 2 * 16 * 64
    narrow = parse_key("mbconv(in=8,out=16,k=3,e=1,s=2)@8")  # without expansion
    assert narrow.traffic_elements() == (8 * 64 + 8 * 16) + (8 + 16) * 16


def test_costs_of_a_transformer_layer_by_hand():
    layer = MobileViTLayer(4, 8, 3, 4, 2.0, 2)
    inner, hidden, tokens, patches = 12, 16, 16, 4
    assert layer.params() == (16 + 8 * 36 + 36 + inner * 8 + 8) + (16 + 8 * hidden + hidden + hidden * 8 + 8)
    linear = tokens * (8 * 36 + inner * 8 + 2 * 8 * hidden)
    assert layer.macs().conv_linear == linear
    assert layer.macs().total == linear + 2 * tokens * patches * inner


def test_parameters_of_every_block_agree_with_its_module():
    by_kind = {}
    for spec in ALL_SPECS:
        by_kind.setdefault(spec.kind, {})[spec.params()] = spec
    rng = random.Random(0)
    for spec in (
        s for found in by_kind.values() for s in rng.sample(list(found.values()), min(len(found), 60))
    ):
        with torch.device("meta"):
            module = module_of(spec)
        assert sum(p.numel() for p in module.parameters()) == spec.params(), spec.key


def test_boundary_bytes_by_hand():
    blocks = parse_keys(["conv(in=3,out=4,k=3,s=2)@8", "head.fc(in=4,classes=10)@4"])
    assert boundary_bytes(blocks) == 4 * 4 * 4 * 4


def test_a_chain_that_does_not_fit_names_both_blocks():
    blocks = parse_keys(["conv(in=3,out=4,k=3,s=2)@8", "head.fc(in=5,classes=10)@4"])
    with pytest.raises(UsageError, match=r"head\.fc\(in=5.*conv\(in=3"):
        check_chain(blocks)


def test_a_layer_outside_its_shell_is_refused():
    blocks = list(get_arch("autovit-xxs-paper").blocks())
    layer = next(i for i, block in enumerate(blocks) if isinstance(block, MobileViTLayer))
    blocks[0], blocks[layer] = blocks[layer], blocks[0]
    with pytest.raises(UsageError, match=r"does not stand in a mvit\.shell that fits it"):
        check_chain(blocks)
