"""T2T-ViT's soft split, Performer and embedding against their formulas."""

import math
from typing import Any

import torch
import torch.nn.functional as F

from orchestrator.export.lower.source import build_seeded
from search.blocks import parse_key
from search.networks import module_of
from search.networks.token_transformers import SoftSplit, sinusoids

EXACT: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}


def drawn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def test_soft_split_is_unfold():
    x = drawn(2, 3, 17, 17)
    expected = F.unfold(x, 7, padding=2, stride=4).transpose(1, 2)
    assert torch.equal(SoftSplit(3, 7, 4, 2)(x), expected)


def test_performer_is_attention_of_random_features():
    """Written with the N x N matrix that the method never makes; weights so small that features matter."""
    step = build_seeded(lambda: module_of(parse_key("t2t.performer(in=4,e=8,k=3,s=2)@9")), 1)
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
    embed = build_seeded(lambda: module_of(parse_key("t2t.embed(in=4,d=12,k=3,s=2)@7")), 1)
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
