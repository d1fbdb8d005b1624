"""Mobile-Former's parts against formulas worked out here, its size against the authors', and timm's registry."""

import math

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from luts.format.errors import UsageError
from search.blocks.timm_networks import create_backbone, create_classifier, native_side
from search.networks.mobile_former import (
    HEADS,
    DynamicRelu,
    Former,
    FormerToMobile,
    MobileFormer,
    MobileToFormer,
)

DIM, CHANNELS = 8, 4


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def attention_by_loops(queries, keys, values, heads):
    """(N, C), (M, C), (M, C) -> (N, C)."""
    width, out = queries.shape[1] // heads, torch.zeros(len(queries), values.shape[1])
    for head in range(heads):
        own = slice(head * width, (head + 1) * width)
        for row, query in enumerate(queries[:, own]):
            scores = torch.stack([query @ key / math.sqrt(width) for key in keys[:, own]])
            out[row, own] = scores.softmax(0) @ values[:, own]
    return out


def test_dynamic_relu_takes_the_larger_of_two_lines_from_the_first_token():
    act = DynamicRelu(1, DIM)
    for parameter in act.parameters():
        nn.init.zeros_(parameter)
    act.slopes[2].bias.data = torch.tensor(
        [1.5, -1.5]
    )  # hard sigmoid: 0.75 and 0.25, so a = 1.5 and b = -0.5
    x = torch.tensor([2.0, -2.0]).reshape(1, 1, 1, 2)
    assert act(x, drawn(1, 3, DIM)).flatten().tolist() == [3.0, 1.0]


def test_tokens_attend_to_pixels_as_they_are_with_a_gate_of_0_to_2():
    bridge = MobileToFormer(CHANNELS, DIM).eval()
    x, tokens = drawn(1, CHANNELS, 2, 3), drawn(1, 3, DIM)
    pixels = x[0].flatten(1).T
    read = attention_by_loops(bridge.query(tokens[0]), pixels, pixels, HEADS) * 2 * bridge.gate(tokens[0])
    expected = bridge.norm(tokens[0] + bridge.project(read))
    torch.testing.assert_close(bridge(x, tokens)[0], expected)


def test_the_former_normalises_after_each_half():
    former, tokens = Former(DIM).eval(), drawn(1, 3, DIM)
    mixed = attention_by_loops(former.query(tokens[0]), tokens[0], tokens[0], 4)
    half = former.norm(tokens[0] + former.project(mixed))
    torch.testing.assert_close(former(tokens)[0], former.mlp_norm(half + former.mlp(half)))


def test_pixels_attend_to_tokens():
    bridge = FormerToMobile(CHANNELS, DIM).eval()
    x, tokens = drawn(1, CHANNELS, 2, 3), drawn(1, 3, DIM)
    pixels = x[0].flatten(1).T
    read = attention_by_loops(pixels, bridge.key(tokens[0]), bridge.value(tokens[0]), HEADS)
    torch.testing.assert_close(bridge(x, tokens)[0].flatten(1).T, pixels + read)


def test_96m_has_the_published_size():
    assert native_side("mobile_former_96m") == 224
    network = create_classifier("mobile_former_96m", 224).eval()
    assert isinstance(network, MobileFormer)
    assert sum(parameter.numel() for parameter in network.parameters()) == 4_583_972  # 4.6 M
    with FlopCounterMode(display=False) as counter:
        assert network(torch.zeros(1, 3, 224, 224)).shape == (1, 1000)
    assert counter.get_total_flops() / 2 == pytest.approx(96e6, rel=0.05)


def test_classes_and_images_of_other_sizes():
    network = create_classifier("mobile_former_96m", 64, 10).eval()
    assert network(drawn(2, 3, 64, 64)).shape == (2, 10)


def test_it_outputs_no_maps():
    with pytest.raises(UsageError, match="outputs no feature maps"):
        create_backbone("mobile_former_96m", 224)
