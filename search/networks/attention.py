"""Attention as two rank-3 `bmm`: 4-D matmul and `scaled_dot_product_attention` lower to expand and squeeze
copies that XNNPACK does not take."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from search.networks.fusion import OfWeights


def split_heads(x: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """(B, N, parts * heads * head_dim) -> `parts` times (B * heads, N, head_dim)."""
    batch, tokens, channels = x.shape
    head_dim = channels // (parts * heads)
    x = x.reshape(batch, tokens, parts * heads, head_dim).transpose(1, 2)
    if parts == 1:
        return (x.reshape(batch * heads, tokens, head_dim),)
    return tuple(
        x[:, start : start + heads].reshape(batch * heads, tokens, head_dim)
        for start in range(0, parts * heads, heads)
    )


def join_heads(x: Tensor, heads: int) -> Tensor:
    """(B * heads, N, head_dim) -> (B, N, heads * head_dim)."""
    _, tokens, head_dim = x.shape
    x = x.reshape(-1, heads, tokens, head_dim)
    return x.transpose(1, 2).reshape(-1, tokens, heads * head_dim)


def attention_scores(q: Tensor, k: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """Softmax over the M keys of q k^T / sqrt(head_dim) + bias: (B * heads, N, M).

    Args:
        q: (B * heads, N, head_dim).
        k: (B * heads, M, head_dim).
        heads: Heads of one attention.
        bias: Broadcast over (B, heads, N, M).
    """
    scores = torch.bmm(q * q.shape[2] ** -0.5, k.transpose(1, 2))
    if bias is not None and heads == 1:  # XNNPACK refuses to add to a map of one channel
        scores = scores + bias.reshape(bias.shape[0], *bias.shape[2:])
    elif bias is not None:
        _, queries, keys = scores.shape
        scores = (scores.reshape(-1, heads, queries, keys) + bias).reshape(-1, queries, keys)
    return scores.softmax(-1)


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """Attention of what `split_heads` gave: (B, N, heads * head_dim)."""
    return join_heads(torch.bmm(attention_scores(q, k, heads, bias), v), heads)


def attention(qkv: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """(B, N, 3 * heads * head_dim) -> (B, N, heads * head_dim): softmax(q k^T / sqrt(head_dim) + bias) v."""
    q, k, v = split_heads(qkv, 3, heads)
    return attend(q, k, v, heads, bias)


class RelativeBias(OfWeights):
    """Swin's relative position bias (Liu et al. 2021, equation 4): one number a head and offset in a window."""

    index: Tensor

    def __init__(self, window: int, heads: int):
        super().__init__()
        self.table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.table, std=0.02)
        place = torch.arange(window)
        offset = place[:, None] - place[None, :] + window - 1
        rows, columns = offset[:, None, :, None], offset[None, :, None, :]
        index = (rows * (2 * window - 1) + columns).reshape(window**2, window**2)
        self.register_buffer("index", index, persistent=False)

    def forward(self) -> Tensor:
        """(1, heads, window^2, window^2)."""
        return self.table[self.index].permute(2, 0, 1)[None]
