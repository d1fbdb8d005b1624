"""Tokens of a map with a class token in front: embedding, attention branch, classifier."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from search.blocks.tokens import Embedding, TokenHead
from search.networks.attention import attention
from search.networks.module import module_of

NORM_EPS = 1e-6
"""Of LayerNorm, as ViT and what follows it have it."""


class TokenEmbedding(nn.Module):
    """(B, C, H, W) -> (B, 1 + N, d): convolution, class token, positions (learned or sinusoids)."""

    positions: Tensor

    def __init__(self, spec: Embedding):
        super().__init__()
        self.project = nn.Conv2d(spec.inputs, spec.dim, spec.kernel, spec.stride, spec.padding)
        self.class_token = nn.Parameter(torch.empty(1, 1, spec.dim))
        nn.init.trunc_normal_(self.class_token, std=0.02)
        shape = spec.output_shape
        if spec.learned_positions:
            self.positions = nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=0.02))
        else:
            self.register_buffer("positions", sinusoids(shape[1], shape[2]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.project(x).flatten(2).transpose(1, 2)
        first = self.class_token if len(x) == 1 else self.class_token.expand(len(x), -1, -1)
        return torch.cat((first, tokens), 1) + self.positions


def sinusoids(tokens: int, dim: int) -> Tensor:
    """(1, tokens, dim): sin and cos of position / 10000^(2i/dim) by turns (Vaswani et al. 2017, section 3.5)."""
    rates = 10000.0 ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angles = torch.arange(tokens, dtype=torch.float64)[:, None] * rates
    return torch.stack((angles.sin(), angles.cos()), -1).reshape(1, tokens, dim).float()


class AttentionBranch(nn.Module):
    """LayerNorm, multi-head self-attention and projection, added to the input; (B, N, d) to the same shape."""

    def __init__(self, dim: int, heads: int, *, qkv_bias: bool, eps: float = NORM_EPS):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim, eps)
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.proj(attention(self.qkv(self.norm(x)), self.heads))
        return out


class TokenClassifier(nn.Module):
    """(B, 1 + N, d) -> (B, classes), of the class token alone: LayerNorm is token by token."""

    def __init__(self, spec: TokenHead):
        super().__init__()
        self.norm = nn.LayerNorm(spec.inputs, NORM_EPS)
        self.fc = nn.Linear(spec.inputs, spec.classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.norm(x[:, :1])).flatten(1)
        return logits


module_of.register(Embedding, TokenEmbedding)
module_of.register(TokenHead, TokenClassifier)
