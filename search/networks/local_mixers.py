"""Modules of the mixers of neighbourhoods, windows and stripes: (B, C, H, W) to the same shape."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from search.blocks import local_mixers as specs
from search.networks.efficientvit import cut_windows
from search.networks.layers import (
    ConvBnAct,
    FixedValue,
    RelativeBias,
    attention,
    join_heads,
    split_heads,
    to_map,
    to_tokens,
    unfolding_weights,
)
from search.networks.mixers import WindowAttention
from search.networks.network import module_of


@module_of.register(specs.SpatialShift)
class SpatialShift(nn.Module):
    """Linear layer, GELU, shifts of quarters of the channels, linear layer (S2-MLP)."""

    def __init__(self, spec: specs.SpatialShift):
        super().__init__()
        self.quarter = spec.channels // 4
        self.fc1 = nn.Conv2d(spec.channels, spec.channels, 1)
        self.fc2 = nn.Conv2d(spec.channels, spec.channels, 1)

    @override
    def forward(self, x: Tensor) -> Tensor:
        x, size = F.gelu(self.fc1(x)), self.quarter
        down, up, right, left = (x[:, start : start + size] for start in range(0, 4 * size, size))
        shifted = (
            torch.cat((down[:, :, :1], down[:, :, :-1]), 2),
            torch.cat((up[:, :, 1:], up[:, :, -1:]), 2),
            torch.cat((right[..., :1], right[..., :-1]), 3),
            torch.cat((left[..., 1:], left[..., -1:]), 3),
        )
        return self.fc2(torch.cat(shifted, 1))


@module_of.register(specs.AxialShift)
class AxialShift(nn.Module):
    """Linear layer, shifts along either axis with a linear layer each, linear layer of the sum (AS-MLP)."""

    def __init__(self, spec: specs.AxialShift):
        super().__init__()
        self.size = -(-spec.channels // specs.AXIAL_SHIFTS)
        self.fc1 = ConvBnAct(spec.channels, spec.channels, act=nn.GELU())
        self.along = nn.ModuleList(ConvBnAct(spec.channels, spec.channels, act=nn.GELU()) for _ in range(2))
        self.fc2 = nn.Conv2d(spec.channels, spec.channels, 1)

    @override
    def forward(self, x: Tensor) -> Tensor:
        x, reach = self.fc1(x), specs.AXIAL_SHIFTS // 2
        both: list[Tensor] = []
        for axis, linear in zip((2, 3), self.along, strict=True):
            wide = F.pad(x, (0, 0, reach, reach) if axis == 2 else (reach, reach))
            groups = enumerate(torch.split(wide, self.size, 1))
            parts = [group.narrow(axis, start, x.shape[axis]) for start, group in groups]
            both.append(linear(torch.cat(parts, 1)))
        return self.fc2(both[0] + both[1])


class ShiftedBias(RelativeBias):
    """Relative bias, and -100 between pixels that the roll brought together: () -> (1, windows * heads, n, n)."""

    def __init__(self, window: int, heads: int, side: int):
        super().__init__(window, heads)
        place = torch.arange(side, device="cpu")
        part = (place >= side - window).float() + (place >= side - window // 2)
        regions = cut_windows((3 * part[:, None] + part)[None, None], window).flatten(1)
        self.mask = FixedValue(-100.0 * (regions[:, None] != regions[:, :, None]))

    @override
    def forward(self) -> Tensor:
        mask: Tensor = self.mask(self.table)
        return (super().forward() + mask[:, None]).reshape(1, -1, *mask.shape[1:])


@module_of.register(specs.ShiftedWindowAttention)
class ShiftedWindowAttention(WindowAttention):
    """Attention inside windows of the map rolled by half a window (Swin)."""

    def __init__(self, spec: specs.ShiftedWindowAttention):
        super().__init__(spec)
        self.biases = (spec.resolution // spec.window) ** 2
        self.bias = ShiftedBias(spec.window, spec.heads, spec.resolution)

    @override
    def cut(self, x: Tensor) -> Tensor:
        return super().cut(rolled(x, self.window // 2))

    @override
    def join(self, x: Tensor, batch: int, height: int, width: int) -> Tensor:
        return rolled(super().join(x, batch, height, width), height - self.window // 2)


def rolled(x: Tensor, start: int) -> Tensor:
    """Return the map whose rows and columns begin with number `start`, as `torch.roll` by -start."""
    x = torch.cat((x[:, :, start:], x[:, :, :start]), 2)
    return torch.cat((x[..., start:], x[..., :start]), 3)


@module_of.register(specs.GridAttention)
class GridAttention(WindowAttention):
    """Attention among window^2 pixels spread evenly over the map (MaxViT)."""

    @override
    def cut(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        side, rows, columns = self.window, height // self.window, width // self.window
        x = x.permute(0, 2, 3, 1).reshape(batch, side, rows, width * channels).transpose(1, 2)
        x = x.reshape(batch * rows, side, side, columns, channels).permute(0, 3, 1, 2, 4)
        return x.reshape(batch * rows * columns, side * side, channels)

    @override
    def join(self, x: Tensor, batch: int, height: int, width: int) -> Tensor:
        side, rows, columns = self.window, height // self.window, width // self.window
        x = x.reshape(batch * rows, columns, side, side, x.shape[2]).permute(0, 2, 3, 1, 4)
        x = x.reshape(batch, rows, side, width * x.shape[4]).transpose(1, 2)
        return x.reshape(batch, height, width, x.shape[3] // width).permute(0, 3, 1, 2)


@module_of.register(specs.FocalAttention)
class FocalAttention(WindowAttention):
    """Attention to the pixels of a window and to all windows, pooled (Focal Transformer)."""

    def __init__(self, spec: specs.FocalAttention):
        super().__init__(spec)
        self.pool = nn.Linear(spec.window**2, 1)
        self.far_bias = RelativeBias(spec.resolution // spec.window, spec.heads)

    @override
    def forward(self, x: Tensor) -> Tensor:
        batch, heads, tokens = x.shape[0], self.heads, self.cut(x)
        count, area, _ = tokens.shape
        windows = count // batch
        q, k, v = split_heads(self.qkv(tokens), 3, heads)
        pooled = self.pool(tokens.transpose(1, 2)).reshape(batch, windows, -1)
        _, far_k, far_v = split_heads(F.linear(pooled, self.qkv.weight, self.qkv.bias), 3, heads)

        def by_heads(x: Tensor) -> Tensor:
            """Reorder (B * windows * heads, area, d) to (B * heads, windows * area, d)."""
            swapped = x.reshape(batch, windows, heads, area, x.shape[2]).transpose(1, 2)
            return swapped.reshape(batch * heads, windows * area, x.shape[2])

        def by_windows(x: Tensor) -> Tensor:
            """Reorder (B * heads, windows * area, d) to (B * windows * heads, area, d)."""
            return x.reshape(batch, heads, windows, -1).transpose(1, 2).reshape(-1, area, x.shape[-1])

        q = q * q.shape[2] ** -0.5
        near = torch.bmm(q, k.transpose(1, 2)).reshape(count, heads, -1) + self.bias().flatten(2)
        far = torch.bmm(by_heads(q), far_k.transpose(1, 2)).reshape(batch, heads * windows, area, windows)
        far = by_windows(far + self.far_bias().reshape(1, heads * windows, 1, windows))
        scores = torch.cat((near.reshape(-1, area, area), far), 2).softmax(2)
        far = torch.bmm(by_heads(scores[..., area:]), far_v)
        mixed = torch.bmm(scores[..., :area], v) + by_windows(far)
        return self.join(self.proj(join_heads(mixed, heads)), batch, *x.shape[2:])


@module_of.register(specs.CrossStripeAttention)
class CrossStripeAttention(nn.Module):
    """Half of the heads attend within rows of the map, half within columns (CSWin)."""

    def __init__(self, spec: specs.CrossStripeAttention):
        super().__init__()
        half = spec.channels // 2
        self.heads, self.window = spec.heads // 2, spec.window
        self.qkv = nn.ModuleList(nn.Linear(spec.channels, 3 * half) for _ in range(2))
        self.proj = nn.Linear(spec.channels, spec.channels)

    @override
    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, _ = x.shape
        halves: list[Tensor] = []
        for qkv in self.qkv:  # the second half runs on the transposed map, whose rows are the columns
            x = x.transpose(2, 3) if halves else x
            stripes = qkv(to_tokens(x)).reshape(-1, self.window * x.shape[3], 3 * channels // 2)
            mixed = attention(stripes, self.heads).reshape(batch, -1, channels // 2)
            halves.append(to_map(mixed, x.shape[2]))
        mixed = torch.cat((halves[0], halves[1].transpose(2, 3)), 1)
        return to_map(self.proj(to_tokens(mixed)), height)


@module_of.register(specs.OutlookAttention)
class OutlookAttention(nn.Module):
    """Neighbourhoods mixed by weights that a linear layer makes of their centre, and added (VOLO)."""

    def __init__(self, spec: specs.OutlookAttention):
        super().__init__()
        self.area, self.padding, self.head_dim = spec.kernel**2, spec.kernel // 2, spec.head_dim
        self.v = nn.Conv2d(spec.channels, spec.channels, 1, bias=False)
        self.attn = nn.Linear(spec.channels, spec.heads * self.area**2)
        self.proj = nn.Conv2d(spec.channels, spec.channels, 1)
        unfold = unfolding_weights(spec.channels, spec.kernel, "cpu")
        self.unfold = FixedValue(unfold)
        self.fold = FixedValue(unfold.flip(2, 3).reshape(spec.channels, self.area, *unfold.shape[2:]))

    @override
    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, _ = x.shape
        weights = self.attn(to_tokens(x)).reshape(-1, self.area, self.area)
        weights = (weights * self.head_dim**-0.5).softmax(-1)
        columns = F.conv2d(self.v(x), self.unfold(x), padding=self.padding, groups=channels)
        columns = to_tokens(columns).reshape(-1, self.head_dim, self.area)
        mixed = torch.bmm(columns, weights.transpose(1, 2)).reshape(batch, -1, channels * self.area)
        mixed = F.conv2d(to_map(mixed, height), self.fold(x), padding=self.padding, groups=channels)
        return self.proj(mixed)


class OffsetBias(RelativeBias):
    """One learned number a head and offset between a pixel and its neighbours: () -> (1, N * heads, k^2)."""

    def __init__(self, kernel: int, heads: int, side: int):
        super().__init__(kernel, heads)
        self.side = side

    @override
    def forward(self) -> Tensor:
        kernel, place = self.window, torch.arange(self.side, device=self.table.device)
        first = (place - kernel // 2).clamp(0, self.side - kernel) - place + kernel - 1
        offset = first[:, None] + place[None, :kernel]
        index = offset[:, None, :, None] * (2 * kernel - 1) + offset[None, :, None, :]
        return self.table[index.reshape(-1, kernel**2)].transpose(1, 2).reshape(1, -1, kernel**2)


@module_of.register(specs.NeighbourAttention)
class NeighbourAttention(nn.Module):
    """Attention of each pixel to the k x k nearest ones (NAT)."""

    def __init__(self, spec: specs.NeighbourAttention):
        super().__init__()
        self.kernel, self.head_dim = spec.kernel, spec.head_dim
        self.q, self.k, self.v = (nn.Conv2d(spec.channels, spec.channels, 1) for _ in range(3))
        self.unfold = FixedValue(unfolding_weights(spec.channels, spec.kernel, "cpu"))
        self.bias = OffsetBias(spec.kernel, spec.heads, spec.resolution)
        self.proj = nn.Linear(spec.channels, spec.channels)

    def neighbourhoods(self, x: Tensor) -> Tensor:
        """Return the values of the k x k nearest pixels: (B * N * heads, head_dim, k^2)."""
        edge, side = self.kernel // 2, x.shape[2]
        x = F.conv2d(x, self.unfold(x), padding=edge, groups=x.shape[1])
        for axis in (2, 3):
            first, last = x.narrow(axis, edge, 1), x.narrow(axis, side - edge - 1, 1)
            x = torch.cat((*[first] * edge, x.narrow(axis, edge, side - 2 * edge), *[last] * edge), axis)
        return to_tokens(x).reshape(-1, self.head_dim, self.kernel**2)

    @override
    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, _ = x.shape
        q, k, v = self.q(x), self.k(x), self.v(x)
        q = to_tokens(q).reshape(-1, 1, self.head_dim) * self.head_dim**-0.5
        scores = torch.bmm(q, self.neighbourhoods(k)).reshape(batch, -1, self.kernel**2) + self.bias()
        scores = scores.softmax(-1).reshape(-1, 1, self.kernel**2)
        mixed = torch.bmm(scores, self.neighbourhoods(v).transpose(1, 2)).reshape(batch, -1, channels)
        return to_map(self.proj(mixed), height)
