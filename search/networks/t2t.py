"""T2T-ViT's soft split, Performer and layer (Yuan et al. 2021, section 3; Choromanski et al. 2021)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search.blocks.t2t import T2tLayer, T2tPerformer
from search.networks.maps import to_map, to_tokens
from search.networks.module import module_of
from search.networks.tokens import AttentionBranch

NORM_EPS = 1e-5
"""Of LayerNorm in the authors' code."""

DIVISION_EPS = 1e-8
"""Added to the sum that attention is divided by, as there."""


class SoftSplit(nn.Module):
    """(B, C, H, W) -> (B, N, C k^2): windows that overlap, the order of channels that of `unfold`.

    A depthwise convolution with k^2 fixed kernels a channel, each 1 at one place: XNNPACK has it, and no unfold.
    """

    pick: Tensor

    def __init__(self, inputs: int, kernel: int, stride: int, padding: int):
        super().__init__()
        self.stride, self.padding, self.inputs = stride, padding, inputs
        places = torch.eye(kernel * kernel).reshape(kernel * kernel, 1, kernel, kernel)
        self.register_buffer("pick", places.repeat(inputs, 1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return to_tokens(F.conv2d(x, self.pick, None, self.stride, self.padding, groups=self.inputs))


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
        self.norm1 = nn.LayerNorm(spec.window, NORM_EPS)
        self.kqv = nn.Linear(spec.window, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim, NORM_EPS)
        self.fc1 = nn.Linear(dim, dim)
        self.fc2 = nn.Linear(dim, dim)
        orthogonal = nn.init.orthogonal_(torch.empty(spec.features, dim))
        self.register_buffer("features", orthogonal * math.sqrt(spec.features))
        self.register_buffer("halves", torch.full((1, dim), 0.5), persistent=False)
        self.register_buffer("ones", torch.ones(1, self.side**2), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.attend(self.split(x))
        tokens = tokens + self.fc2(F.gelu(self.fc1(self.norm2(tokens))))
        return to_map(tokens, self.side)

    def attend(self, tokens: Tensor) -> Tensor:
        """(B, N, C k^2) -> (B, N, e): values plus projected attention, as T2T has it."""
        mixed = self.kqv(self.norm1(tokens))
        dim = mixed.shape[2] // 3
        keys, queries = self.map_features(mixed[..., :dim]), self.map_features(mixed[..., dim : 2 * dim])
        values, across = mixed[..., 2 * dim :], keys.transpose(1, 2)
        total = torch.bmm(queries, F.linear(across, self.ones).reshape(len(tokens), -1, 1))
        attended = torch.bmm(queries, torch.bmm(across, values)) / (total + DIVISION_EPS)
        out: Tensor = values + self.proj(attended)
        return out

    def map_features(self, x: Tensor) -> Tensor:
        """exp(W x - |x|^2 / 2) / sqrt(m), positive features whose products estimate exp(q k)."""
        shifted = F.linear(x, self.features) - F.linear(x * x, self.halves)
        return shifted.exp() * (1 / math.sqrt(len(self.features)))


class T2tLayerModule(nn.Module):
    """(B, N, d) to the same shape: pre-norm attention and MLP, each with a residual."""

    def __init__(self, spec: T2tLayer):
        super().__init__()
        self.attention = AttentionBranch(spec.dim, spec.heads, qkv_bias=False, eps=NORM_EPS)
        self.norm = nn.LayerNorm(spec.dim, NORM_EPS)
        self.fc1 = nn.Linear(spec.dim, spec.hidden)
        self.fc2 = nn.Linear(spec.hidden, spec.dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attention(x)
        out: Tensor = x + self.fc2(F.gelu(self.fc1(self.norm(x))))
        return out


module_of.register(T2tPerformer, Performer)
module_of.register(T2tLayer, T2tLayerModule)
