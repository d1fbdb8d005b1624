"""Modules of CvT: layers on maps (B, C, H, W) or on a class token and a map's pixels (B, 1 + N, d)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from search.blocks.cvt import ConvolutionalAttention, CvtTokens
from search.networks.layers import ConvBnAct, attend, split_heads, to_map, to_tokens
from search.networks.network import module_of


class Projection(nn.Module):
    """A depthwise convolution of all tokens but the class token, then a linear layer: (B, n, d) -> (B, n', d)."""

    def __init__(self, spec: ConvolutionalAttention, stride: int):
        super().__init__()
        self.side, self.prefix = spec.resolution, spec.prefix
        self.conv = ConvBnAct(spec.dim, spec.dim, 3, stride, spec.dim, act=None)
        self.linear = nn.Linear(spec.dim, spec.dim)

    @override
    def forward(self, x: Tensor) -> Tensor:
        tokens = to_tokens(self.conv(to_map(x[:, self.prefix :], self.side)))
        return self.linear(torch.cat((x[:, : self.prefix], tokens), 1) if self.prefix else tokens)


@module_of.register(ConvolutionalAttention)
class CvtLayer(nn.Module):
    """Attention of convolutional projections and MLP, with residuals."""

    def __init__(self, spec: ConvolutionalAttention):
        super().__init__()
        self.heads, self.prefix, self.side = spec.heads, spec.prefix, spec.resolution
        self.norm1 = nn.LayerNorm(spec.dim)
        self.q, self.k, self.v = (Projection(spec, stride) for stride in (1, 2, 2))
        self.proj = nn.Linear(spec.dim, spec.dim)
        self.norm2 = nn.LayerNorm(spec.dim)
        self.fc1 = nn.Linear(spec.dim, int(spec.mlp_ratio * spec.dim))
        self.fc2 = nn.Linear(int(spec.mlp_ratio * spec.dim), spec.dim)

    @override
    def forward(self, x: Tensor) -> Tensor:
        tokens = x if self.prefix else to_tokens(x)
        normed = self.norm1(tokens)
        (q,), (k,), (v,) = (split_heads(part(normed), 1, self.heads) for part in (self.q, self.k, self.v))
        tokens = tokens + self.proj(attend(q, k, v, self.heads))
        tokens = tokens + self.fc2(F.gelu(self.fc1(self.norm2(tokens))))
        return tokens if self.prefix else to_map(tokens, self.side)


@module_of.register(CvtTokens)
class WithClassToken(nn.Module):
    """(B, C, H, W) -> (B, 1 + H * W, C)."""

    def __init__(self, spec: CvtTokens):
        super().__init__()
        self.class_token = nn.Parameter(torch.zeros(1, 1, spec.dim))
        nn.init.trunc_normal_(self.class_token, std=0.02)

    @override
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.class_token.expand(len(x), -1, -1), to_tokens(x)), 1)
