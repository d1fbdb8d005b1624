"""CeiT's layer with LeFF and its layer-wise class-token attention (Yuan et al. 2021, figures 4 and 5)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search.blocks import BlockSpec
from search.blocks.ceit import CeitEncoder, CeitLayer, CeitStem
from search.networks.attention import attend, split_heads
from search.networks.layers import ConvBnAct
from search.networks.maps import to_map, to_tokens
from search.networks.module import module_around, module_of
from search.networks.tokens import NORM_EPS, AttentionBranch


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

    def forward(self, x: Tensor) -> Tensor:
        x = self.attention(x)
        y = self.norm(x)
        return x + torch.cat((y[:, :1], to_tokens(self.local(to_map(y[:, 1:], self.side)))), 1)


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
        logits: Tensor = self.head(self.norm(last)).flatten(1)
        return logits


def stem(spec: CeitStem) -> nn.Sequential:
    """(B, inputs, H, W) -> (B, outputs, H / 4, W / 4): convolution with BN, pool."""
    conv = ConvBnAct(spec.inputs, spec.outputs, spec.kernel, 2, act=False)
    return nn.Sequential(conv, nn.MaxPool2d(3, 2, padding=1))


module_of.register(CeitStem, stem)
module_of.register(CeitLayer, CeitLayerModule)
module_around.register(CeitEncoder, CeitEncoderModule)
