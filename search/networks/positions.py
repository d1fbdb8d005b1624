"""Modules of positions, and of attention by relative position: (B, C, H, W) to the same shape."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from search.blocks import positions as specs
from search.networks.layers import (
    FixedValue,
    RelativeBias,
    Residual,
    WeightValue,
    attend,
    attention,
    resized,
    split_heads,
    to_map,
    to_tokens,
)
from search.networks.mixers import MultiHeadAttention
from search.networks.network import module_of
from search.networks.transformers import sinusoids

ROPE_BASE = 100.0
"""Base of RoPE's frequencies: images have fewer positions in a row than texts (Heo et al. 2024, section 3.2)."""

FIRE_SCALE = 0.1
"""Initial c of FIRE's logarithm (Li et al. 2024, appendix)."""

FIRE_EPS = 1e-6
"""Added to the divisor of FIRE's distance (Li et al. 2024, appendix)."""


class LearnedTable(WeightValue):
    """Vectors of a map of `base` pixels a side, interpolated for another side: () -> (1, C, side, side)."""

    def __init__(self, channels: int, base: int, side: int):
        super().__init__()
        self.side = side
        self.table = nn.Parameter(torch.empty(1, channels, base, base))
        nn.init.trunc_normal_(self.table, std=0.02)

    @override
    def forward(self, like: Tensor | None = None) -> Tensor:
        return resized(self.table, self.side)


class AddTable(nn.Module):
    """Adds a table (1, C, H, W) to every map."""

    def __init__(self, table: WeightValue):
        super().__init__()
        self.table = table

    @override
    def forward(self, x: Tensor) -> Tensor:
        return x + self.table(x)


def _fixed(values: Callable[..., Tensor], *sizes: int) -> FixedValue:
    """Return a value that follows from sizes, with storage even where modules are built without it."""
    with torch.device("cpu"):
        return FixedValue(values(*sizes))


@module_of.register
def _(spec: specs.LearnedPositions) -> nn.Module:
    return AddTable(LearnedTable(spec.channels, spec.base, spec.resolution))


@module_of.register
def _(spec: specs.SinusoidPositions) -> nn.Module:
    return AddTable(_fixed(sinusoid_map, spec.channels, spec.resolution))


@module_of.register
def _(spec: specs.Peg) -> nn.Module:
    conv = nn.Conv2d(spec.channels, spec.channels, 3, padding=1, groups=spec.channels)
    return Residual(OrderedDict(conv=conv))


def sinusoid_map(channels: int, side: int) -> Tensor:
    """Return (1, C, side, side): sinusoids of the row in the first C / 2 channels, of the column in the others."""
    along = sinusoids(side, channels // 2)[0].T
    rows, columns = along[:, :, None].expand(-1, -1, side), along[:, None, :].expand(-1, side, -1)
    return torch.cat((rows, columns))[None]


@module_of.register(specs.RotaryAttention)
class RotaryAttention(MultiHeadAttention):
    """Channels j and j + head_dim / 2 of a head are a pair that turns by an angle; angles are `rope_angles`."""

    def __init__(self, spec: specs.RotaryAttention):
        super().__init__(spec)
        self.cos = _fixed(rope_cosines, spec.head_dim, spec.resolution)
        self.sin = _fixed(rope_sines, spec.head_dim, spec.resolution)

    @override
    def forward(self, x: Tensor) -> Tensor:
        q, k, v = split_heads(self.qkv(to_tokens(x)), 3, self.heads)
        cos, sin = self.cos(x), self.sin(x)
        mixed = attend(rotated(q, cos, sin), rotated(k, cos, sin), v, self.heads)
        return to_map(self.proj(mixed), x.shape[2])


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return queries or keys (B * heads, N, head_dim) turned by their pixels' angles."""
    half = x.shape[2] // 2
    return x * cos + torch.cat((x[..., half:], x[..., :half]), 2) * sin


def rope_angles(head_dim: int, side: int) -> Tensor:
    """Return angles (N, head_dim / 2) of pixels: by the row in the first quarter of a head, then by the column.

    The t-th of both is position * 100^(-4 t / head_dim) (Heo et al. 2024, section 3.2).
    """
    rates = ROPE_BASE ** (-torch.arange(0, head_dim, 4, dtype=torch.float64) / head_dim)
    along = torch.arange(side, dtype=torch.float64)[:, None] * rates
    rows, columns = along[:, None].expand(-1, side, -1), along[None].expand(side, -1, -1)
    return torch.cat((rows, columns), 2).reshape(side**2, head_dim // 2)


def rope_cosines(head_dim: int, side: int) -> Tensor:
    """Return the factors (N, head_dim) of the channels themselves."""
    cos = rope_angles(head_dim, side).cos()
    return torch.cat((cos, cos), 1).float()


def rope_sines(head_dim: int, side: int) -> Tensor:
    """Return the factors (N, head_dim) of the other channels of their pairs."""
    sin = rope_angles(head_dim, side).sin()
    return torch.cat((-sin, sin), 1).float()


class FireBias(WeightValue):
    """FIRE's bias of two pixels by their distance: () -> (1, heads, N, N).

    b = f(psi(distance) / psi(max(L, diagonal))) with psi(x) = log(c x + 1), an MLP f of one hidden layer with
    ReLU, and learned c and L (Li et al. 2024). The paper's distance is i - j of a text, and its i, the largest
    one that a query sees, is here that of the map: larger maps are interpolated. L is the diagonal at first.
    """

    def __init__(self, side: int, heads: int):
        super().__init__()
        self.side = side
        self.scale = nn.Parameter(torch.tensor([FIRE_SCALE]))
        self.threshold = nn.Parameter(torch.tensor([self.diagonal]))
        self.fc1 = nn.Linear(1, specs.FIRE_HIDDEN)
        self.fc2 = nn.Linear(specs.FIRE_HIDDEN, heads)

    @property
    def diagonal(self) -> float:
        """Largest distance of two pixels."""
        return (self.side - 1) * math.sqrt(2)

    @override
    def forward(self) -> Tensor:
        along = torch.arange(self.side, device=self.scale.device)
        distances = (along[:, None] ** 2 + along[None, :] ** 2).float().sqrt().reshape(-1, 1)
        largest = self.threshold.abs().clamp(min=self.diagonal)
        near = self._psi(distances) / (self._psi(largest) + FIRE_EPS)
        # weights times values without the layers' calls: no work of the network that is exported
        hidden = F.relu(near * self.fc1.weight[:, 0] + self.fc1.bias)
        bias = (hidden[:, None] * self.fc2.weight).sum(2) + self.fc2.bias
        apart = (along[:, None] - along[None, :]).abs()
        index = apart[:, None, :, None] * self.side + apart[None, :, None, :]
        return bias[index.reshape(self.side**2, self.side**2)].permute(2, 0, 1)[None]

    def _psi(self, x: Tensor) -> Tensor:
        return (self.scale.abs() * x + 1).log()


class BiasedAttention(MultiHeadAttention):
    """Attention of all tokens with a bias (1, heads, N, N) that depends on weights alone."""

    def __init__(self, spec: specs.PositionalAttention, bias: WeightValue):
        super().__init__(spec)
        self.bias = bias

    @override
    def forward(self, x: Tensor) -> Tensor:
        mixed = attention(self.qkv(to_tokens(x)), self.heads, self.bias())
        return to_map(self.proj(mixed), x.shape[2])


@module_of.register
def _(spec: specs.FireAttention) -> nn.Module:
    return BiasedAttention(spec, FireBias(spec.resolution, spec.heads))


@module_of.register
def _(spec: specs.RelativeAttention) -> nn.Module:
    return BiasedAttention(spec, RelativeBias(spec.resolution, spec.heads, spec.base))
