"""Mixers whose cost grows with a product of tokens: all with all, inside windows, or with fewer keys."""

from __future__ import annotations

from torch import Tensor, nn

from search.blocks import mixer_attention as specs
from search.networks.attention import RelativeBias, attend, attention, split_heads
from search.networks.maps import to_map, to_tokens
from search.networks.module import module_of


class MultiHeadAttention(nn.Module):
    """Self-attention of all tokens (Vaswani et al. 2017, section 3.2)."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return to_map(self.proj(attention(self.qkv(to_tokens(x)), self.heads)), x.shape[2])


class WindowAttention(nn.Module):
    """Self-attention inside windows that do not overlap, with Swin's relative bias."""

    def __init__(self, channels: int, heads: int, window: int):
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv = nn.Linear(channels, 3 * channels)
        self.bias = RelativeBias(window, heads)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        side, rows, columns = self.window, height // self.window, width // self.window
        x = x.permute(0, 2, 3, 1).reshape(batch * rows, side, columns, side, channels)
        x = x.permute(0, 2, 1, 3, 4).reshape(batch * rows * columns, side * side, channels)
        x = self.proj(attention(self.qkv(x), self.heads, self.bias()))
        x = x.reshape(batch * rows, columns, side, side, channels).permute(0, 2, 1, 3, 4)
        return x.reshape(batch, height, width, channels).permute(0, 3, 1, 2)


class SpatialReductionAttention(nn.Module):
    """Queries of all tokens, keys and values of a map that a strided convolution made smaller (PVT)."""

    def __init__(self, channels: int, heads: int, reduction: int):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        self.sr = nn.Conv2d(channels, channels, reduction, reduction)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        (q,) = split_heads(self.q(to_tokens(x)), 1, self.heads)
        k, v = split_heads(self.kv(self.norm(to_tokens(self.sr(x)))), 2, self.heads)
        return to_map(self.proj(attend(q, k, v, self.heads)), x.shape[2])


module_of.register(specs.MultiHeadAttention, lambda spec: MultiHeadAttention(spec.channels, spec.heads))
module_of.register(
    specs.WindowAttention, lambda spec: WindowAttention(spec.channels, spec.heads, spec.window)
)
module_of.register(
    specs.SpatialReductionAttention,
    lambda spec: SpatialReductionAttention(spec.channels, spec.heads, spec.reduction),
)
