"""Mixers whose cost grows with the tokens: one context of all of them, read by each."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search.blocks import mixer_linear as specs
from search.networks.attention import join_heads, split_heads
from search.networks.maps import to_map, to_tokens
from search.networks.module import module_of

NORM_EPS = 1e-12
"""Smallest norm that is divided by, as in `torch.nn.functional.normalize`."""


class SeparableAttention(nn.Module):
    """MobileViTv2 (Mehta & Rastegari 2022, section 3.1): one channel of scores weighs keys into a context."""

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels
        self.qkv = nn.Conv2d(channels, 1 + 2 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        qkv = self.qkv(x)
        q, k, v = qkv[:, :1], qkv[:, 1 : 1 + channels], qkv[:, 1 + channels :]
        scores = q.reshape(batch, 1, height * width).softmax(-1)
        context = torch.bmm(k.reshape(batch, channels, height * width), scores.transpose(1, 2))
        out: Tensor = self.out(v.relu() * context.reshape(batch, channels, 1, 1))
        return out


class AdditiveAttention(nn.Module):
    """SwiftFormer's efficient additive attention (Shaker et al. 2023, equations 6 to 8), one head.

    Norms and sums over tokens are matrix products, which XNNPACK has; it has no `sum`.
    """

    ones: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.scale = channels**-0.5
        self.to_query = nn.Linear(channels, channels)
        self.to_key = nn.Linear(channels, channels)
        self.score = nn.Linear(channels, 1, bias=False)
        self.proj = nn.Linear(channels, channels)
        self.final = nn.Linear(channels, channels)
        self.register_buffer("ones", torch.ones(1, channels), persistent=False)

    def _normalised(self, x: Tensor) -> Tensor:
        """Each token of unit length."""
        return x / F.linear(x * x, self.ones).sqrt().clamp(min=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        tokens = to_tokens(x)
        query = self._normalised(self.to_query(tokens))
        key = self._normalised(self.to_key(tokens))
        scores = (self.score(query) * self.scale).transpose(1, 2)
        length = torch.bmm(scores, scores.transpose(1, 2)).sqrt().clamp(min=NORM_EPS)
        context = torch.bmm(scores / length, query)
        return to_map(self.final(self.proj(context * key) + query), x.shape[2])


def _features(x: Tensor) -> Tensor:
    """elu(x) + 1, written without `elu`, which ExecuTorch's XNNPACK backend leaves outside of delegates."""
    return x.relu() + x.clamp(max=0).exp()


class LinearAttention(nn.Module):
    """Katharopoulos et al. 2020, equation 5, feature map elu(x) + 1 (equation 7): keys times values first."""

    ones: Tensor

    def __init__(self, channels: int, heads: int, tokens: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.register_buffer("ones", torch.ones(1, tokens), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = split_heads(self.qkv(to_tokens(x)), 3, self.heads)
        q, k = _features(q), _features(k).transpose(1, 2)
        mixed = torch.bmm(q, torch.bmm(k, v)) / torch.bmm(q, F.linear(k, self.ones))
        return to_map(self.proj(join_heads(mixed, self.heads)), x.shape[2])


module_of.register(specs.SeparableAttention, lambda spec: SeparableAttention(spec.channels))
module_of.register(specs.AdditiveAttention, lambda spec: AdditiveAttention(spec.channels))
module_of.register(
    specs.LinearAttention, lambda spec: LinearAttention(spec.channels, spec.heads, spec.tokens)
)
