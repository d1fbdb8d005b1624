"""Modules of transformers with a class token; shapes are static.

Embedding, head and attention branch of T2T-ViT, CeiT and LocalViT.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from search.blocks import BlockSpec
from search.blocks.transformers import (
    CeitEncoder,
    CeitLayer,
    Embedding,
    LocalVitLayer,
    T2tLayer,
    T2tPerformer,
    TokenHead,
)
from search.networks.layers import (
    ConvBnAct,
    Residual,
    attend,
    attention,
    positive_features,
    split_heads,
    to_map,
    to_tokens,
    unfolding_weights,
)
from search.networks.network import module_around, module_of

NORM_EPS = 1e-6
"""Epsilon of LayerNorm in ViT, DeiT, CeiT and LocalViT."""

T2T_NORM_EPS = 1e-5
"""Epsilon of LayerNorm in the code of T2T-ViT's authors."""

DIVISION_EPS = 1e-8
"""Added to the divisor of the Performer's attention, as in the authors' code."""


@module_of.register(Embedding)
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

    @override
    def forward(self, x: Tensor) -> Tensor:
        tokens = self.project(x).flatten(2).transpose(1, 2)
        first = self.class_token if len(x) == 1 else self.class_token.expand(len(x), -1, -1)
        return torch.cat((first, tokens), 1) + self.positions


def sinusoids(tokens: int, dim: int) -> Tensor:
    """Return (1, tokens, dim): sin and cos of position / 10000^(2i/dim) (Vaswani et al. 2017, section 3.5)."""
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

    @override
    def forward(self, x: Tensor) -> Tensor:
        return x + self.proj(attention(self.qkv(self.norm(x)), self.heads))


@module_of.register(TokenHead)
class TokenClassifier(nn.Module):
    """(B, 1 + N, d) -> (B, classes), from the class token alone: LayerNorm is token by token."""

    def __init__(self, spec: TokenHead):
        super().__init__()
        self.norm = nn.LayerNorm(spec.inputs, NORM_EPS)
        self.fc = nn.Linear(spec.inputs, spec.classes)

    @override
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(x[:, :1])).flatten(1)


class SoftSplit(nn.Module):
    """(B, C, H, W) -> (B, N, C k^2): overlapping windows, channels in the order of `unfold`.

    A depthwise convolution with k^2 fixed kernels a channel, each 1 at one pixel: XNNPACK has it, but no
    unfold.
    """

    pick: Tensor

    def __init__(self, inputs: int, kernel: int, stride: int, padding: int):
        super().__init__()
        self.stride, self.padding, self.inputs = stride, padding, inputs
        self.register_buffer("pick", unfolding_weights(inputs, kernel), persistent=False)

    @override
    def forward(self, x: Tensor) -> Tensor:
        return to_tokens(F.conv2d(x, self.pick, None, self.stride, self.padding, groups=self.inputs))


@module_of.register(T2tPerformer)
class Performer(nn.Module):
    """(B, C, H, W) -> (B, e, H', W'): soft split, attention by random features, MLP.

    Sums over channels and tokens are linear layers of one output, which XNNPACK takes.
    """

    features: Tensor
    halves: Tensor
    ones: Tensor

    def __init__(self, spec: T2tPerformer):
        super().__init__()
        dim, self.side = spec.dim, spec.out_resolution
        self.split = SoftSplit(spec.inputs, spec.kernel, spec.stride, spec.padding)
        self.norm1 = nn.LayerNorm(spec.window, T2T_NORM_EPS)
        self.kqv = nn.Linear(spec.window, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim, T2T_NORM_EPS)
        self.fc1 = nn.Linear(dim, dim)
        self.fc2 = nn.Linear(dim, dim)
        orthogonal = nn.init.orthogonal_(torch.empty(spec.features, dim))
        self.register_buffer("features", orthogonal * math.sqrt(spec.features))
        self.register_buffer("halves", torch.full((1, dim), 0.5), persistent=False)
        self.register_buffer("ones", torch.ones(1, self.side**2), persistent=False)

    @override
    def forward(self, x: Tensor) -> Tensor:
        tokens = self.attend(self.split(x))
        tokens = tokens + self.fc2(F.gelu(self.fc1(self.norm2(tokens))))
        return to_map(tokens, self.side)

    def attend(self, tokens: Tensor) -> Tensor:
        """Return values plus projected attention, as in T2T-ViT: (B, N, C k^2) -> (B, N, e)."""
        mixed = self.kqv(self.norm1(tokens))
        dim = mixed.shape[2] // 3
        keys, queries = (
            positive_features(part, self.features, self.halves)
            for part in (mixed[..., :dim], mixed[..., dim : 2 * dim])
        )
        values, across = mixed[..., 2 * dim :], keys.transpose(1, 2)
        total = torch.bmm(queries, F.linear(across, self.ones).reshape(len(tokens), -1, 1))
        attended = torch.bmm(queries, torch.bmm(across, values)) / (total + DIVISION_EPS)
        return values + self.proj(attended)


@module_of.register(T2tLayer)
class T2tLayerModule(nn.Module):
    """(B, N, d) to the same shape: pre-norm attention and MLP, each with a residual."""

    def __init__(self, spec: T2tLayer):
        super().__init__()
        self.attention = AttentionBranch(spec.dim, spec.heads, qkv_bias=False, eps=T2T_NORM_EPS)
        self.norm = nn.LayerNorm(spec.dim, T2T_NORM_EPS)
        self.fc1 = nn.Linear(spec.dim, spec.hidden)
        self.fc2 = nn.Linear(spec.hidden, spec.dim)

    @override
    def forward(self, x: Tensor) -> Tensor:
        x = self.attention(x)
        return x + self.fc2(F.gelu(self.fc1(self.norm(x))))


@module_of.register(CeitLayer)
class CeitLayerModule(nn.Module):
    """(B, 1 + side^2, d) to the same shape: attention, then convolutions on all tokens but the class token."""

    def __init__(self, spec: CeitLayer):
        super().__init__()
        self.side = spec.resolution
        self.attention = AttentionBranch(spec.dim, spec.heads, qkv_bias=True)
        self.norm = nn.LayerNorm(spec.dim, NORM_EPS)
        self.local = nn.Sequential(
            nn.Conv2d(spec.dim, spec.hidden, 1),
            nn.BatchNorm2d(spec.hidden),
            nn.GELU(),
            nn.Conv2d(spec.hidden, spec.hidden, 3, padding=1, groups=spec.hidden),
            nn.BatchNorm2d(spec.hidden),
            nn.GELU(),
            nn.Conv2d(spec.hidden, spec.dim, 1),
            nn.BatchNorm2d(spec.dim),
        )

    @override
    def forward(self, x: Tensor) -> Tensor:
        x = self.attention(x)
        y = self.norm(x)
        return x + torch.cat((y[:, :1], to_tokens(self.local(to_map(y[:, 1:], self.side)))), 1)


@module_around.register(CeitEncoder)
class CeitEncoderModule(nn.Module):
    """(B, N, d) -> (B, classes): layers, attention of the last class token over every layer's, classifier."""

    def __init__(self, spec: CeitEncoder, layers: Sequence[BlockSpec]):
        super().__init__()
        self.heads, self.depth = spec.heads, spec.depth
        self.layers = nn.Sequential(*(module_of(layer) for layer in layers))
        self.layer_positions = nn.Parameter(torch.empty(1, spec.depth, spec.dim))
        nn.init.trunc_normal_(self.layer_positions, std=0.02)
        self.norm1 = nn.LayerNorm(spec.dim, NORM_EPS)
        self.query = nn.Linear(spec.dim, spec.dim)
        self.key_value = nn.Linear(spec.dim, 2 * spec.dim)
        self.proj = nn.Linear(spec.dim, spec.dim)
        self.norm2 = nn.LayerNorm(spec.dim, NORM_EPS)
        self.fc1 = nn.Linear(spec.dim, spec.hidden)
        self.fc2 = nn.Linear(spec.hidden, spec.dim)
        self.norm = nn.LayerNorm(spec.dim, NORM_EPS)
        self.head = nn.Linear(spec.dim, spec.classes)

    @override
    def forward(self, x: Tensor) -> Tensor:
        seen = []
        for layer in self.layers:
            x = layer(x)
            seen.append(x[:, :1])
        seen += [x[:, :1]] * (self.depth - len(seen))
        tokens = torch.cat(seen, 1) + self.layer_positions
        normed = self.norm1(tokens)
        (query,) = split_heads(self.query(normed[:, -1:]), 1, self.heads)
        keys, values = split_heads(self.key_value(normed), 2, self.heads)
        mixed = attend(query, keys, values, self.heads)
        last = tokens[:, -1:] + self.proj(mixed)
        last = last + self.fc2(F.gelu(self.fc1(self.norm2(last))))
        return self.head(self.norm(last)).flatten(1)


class Excitation(nn.Module):
    """Channels scaled by h-sigmoid(W2 relu(W1 mean)), with biases: (B, C, H, W) to the same shape."""

    def __init__(self, channels: int, squeezed: int):
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.excite = nn.Conv2d(squeezed, channels, 1)

    @override
    def forward(self, x: Tensor) -> Tensor:
        gate = self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu())
        return x * (F.relu6(gate + 3.0) * (1 / 6))


@module_of.register(LocalVitLayer)
class LocalVitLayerModule(nn.Module):
    """(B, 1 + side^2, d) to the same shape: attention on all tokens, convolutions on all but the first."""

    def __init__(self, spec: LocalVitLayer):
        super().__init__()
        self.side = spec.resolution
        self.attention = AttentionBranch(spec.dim, spec.heads, qkv_bias=True)
        self.local = Residual(
            ConvBnAct(spec.dim, spec.hidden, act=nn.Hardswish()),
            ConvBnAct(spec.hidden, spec.hidden, 3, groups=spec.hidden, act=nn.Hardswish()),
            Excitation(spec.hidden, spec.squeezed),
            ConvBnAct(spec.hidden, spec.dim, act=None),
        )

    @override
    def forward(self, x: Tensor) -> Tensor:
        x = self.attention(x)
        return torch.cat((x[:, :1], to_tokens(self.local(to_map(x[:, 1:], self.side)))), 1)
