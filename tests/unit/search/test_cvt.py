"""CvT's layers against the paper's formulas, written out with torch's own attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from search.blocks import parse_key
from search.networks import build_block
from search.spaces.published import PUBLISHED
from tests.support.block_checks import EXACT, check_block


@pytest.mark.parametrize(
    "key",
    [
        "cvt.layer(d=16,heads=2,ratio=2)@5",
        "cvt.layer(d=12,heads=3,ratio=4)@8",
        "cvt.token_layer(d=16,heads=2,ratio=2)@4",
        "cvt.tokens(d=8)@3",
    ],
)
def test_blocks(key: str) -> None:
    check_block(parse_key(key))


def projected(part: Any, normed: Tensor, prefix: int, side: int, heads: int) -> Tensor:
    """(B, n, d) -> (B, heads, n', head_dim): convolution, BN and linear layer, the class token left as it is."""
    pixels = normed[:, prefix:].transpose(1, 2).unflatten(2, (side, side))
    tokens = part.conv(pixels).flatten(2).transpose(1, 2)
    tokens = part.linear(torch.cat((normed[:, :prefix], tokens), 1))
    return tokens.unflatten(2, (heads, -1)).transpose(1, 2)


@pytest.mark.parametrize(
    "key", ["cvt.layer(d=16,heads=2,ratio=2)@5", "cvt.token_layer(d=16,heads=2,ratio=2)@5"]
)
def test_attention_of_convolved_tokens(key: str) -> None:
    torch.manual_seed(0)
    layer, x = build_block(parse_key(key))
    layer.eval()
    x = torch.randn_like(x)
    prefix = 1 if "token" in key else 0
    tokens = x if prefix else x.flatten(2).transpose(1, 2)
    normed = layer.norm1(tokens)
    q, k, v = (projected(part, normed, prefix, 5, 2) for part in (layer.q, layer.k, layer.v))
    assert (q.shape[2], k.shape[2]) == (25 + prefix, 9 + prefix)
    mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    tokens = tokens + layer.proj(mixed)
    tokens = tokens + layer.fc2(F.gelu(layer.fc1(layer.norm2(tokens))))
    expected = tokens if prefix else tokens.transpose(1, 2).unflatten(2, (5, 5))
    torch.testing.assert_close(layer(x), expected, **EXACT)


def test_class_token_comes_first() -> None:
    block, x = build_block(parse_key("cvt.tokens(d=8)@3"))
    x = torch.randn_like(x)
    torch.testing.assert_close(block(x)[:, 0], block.class_token[0])
    torch.testing.assert_close(block(x)[0, 5], x[0, :, 1, 1])


def test_stages_of_cvt_13() -> None:
    kinds = [block.key.partition("(")[0] for block in PUBLISHED.get("cvt-13").blocks()]
    assert kinds == [
        "embed.overlap",
        "cvt.layer",
        *("embed.overlap", "cvt.layer", "cvt.layer"),
        *("embed.overlap", "cvt.tokens"),
        *["cvt.token_layer"] * 10,
        "head.token",
    ]
