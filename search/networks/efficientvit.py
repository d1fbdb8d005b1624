"""Modules of EfficientViT (Liu et al. 2023), written so that they lower into one XNNPACK delegate.

Query, key and value of a head are convolutions of their own, which run on slices of a supernet's weights.
Attention is two rank-3 `bmm` over tokens with channels last; windows are cut and joined within rank 4.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from search.blocks.efficientvit import BnFcHead, CascadedGroupAttention, FfnBlock, OverlapStem, PatchMerging
from search.networks.layers import ConvBnAct, Residual, WeightValue, to_tokens
from search.networks.network import module_of


@module_of.register
def overlap_stem(spec: OverlapStem) -> nn.Module:
    """Create 3x3 convolutions of stride 2 with BN from each width to the next, ReLU between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(spec.widths):
        layers += [ConvBnAct(inputs, outputs, 3, 2, act=None), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@module_of.register
def ffn_block(spec: FfnBlock) -> nn.Module:
    """Create depthwise 3x3, then two 1x1 with ReLU between them, each with a residual; same shape."""
    mix: OrderedDict[str, nn.Module] = OrderedDict(
        conv=ConvBnAct(spec.channels, spec.channels, 3, groups=spec.channels, act=None)
    )
    return nn.Sequential(OrderedDict(mix=Residual(mix), feed=feed_forward(spec)))


def feed_forward(spec: FfnBlock) -> Residual:
    """Create the two 1x1 convolutions of an FFN block, with a residual."""
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        expand=ConvBnAct(spec.channels, spec.hidden, act=None),
        act=nn.ReLU(),
        project=ConvBnAct(spec.hidden, spec.channels, act=None),
    )
    return Residual(parts)


@module_of.register(PatchMerging)
class PatchMerge(nn.Module):
    """(B, inputs, H, W) -> (B, outputs, ceil(H / 2), ceil(W / 2))."""

    def __init__(self, spec: PatchMerging):
        super().__init__()
        middle = spec.middle
        self.expand = ConvBnAct(spec.inputs, middle, act=None)
        self.depthwise = ConvBnAct(middle, middle, 3, 2, groups=middle, act=None)
        self.squeeze = nn.Conv2d(middle, spec.squeezed, 1)
        self.excite = nn.Conv2d(spec.squeezed, middle, 1)
        self.project = ConvBnAct(middle, spec.outputs, act=None)
        self.act = nn.ReLU()

    @override
    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.depthwise(self.act(self.expand(x))))
        gate = self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))).sigmoid()
        return self.project(x * gate)


@module_of.register(BnFcHead)
class NormClassifier(nn.Module):
    """Global average pool, BN, linear classifier: (B, C, H, W) -> (B, classes)."""

    def __init__(self, spec: BnFcHead):
        super().__init__()
        norm, linear = nn.BatchNorm1d(spec.inputs), nn.Linear(spec.inputs, spec.classes)
        self.fc = nn.Sequential(OrderedDict(bn=norm, linear=linear))

    @override
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3), keepdim=True).flatten(1))


class DistanceBias(WeightValue):
    """One learned bias for each distance (|dy|, |dx|) in a window of `side` pixels: () -> (N, N).

    `table` is (side^2,), row by row in dy, as LeViT's and timm's for each head.
    """

    def __init__(self, side: int):
        super().__init__()
        self.side = side
        self.table = nn.Parameter(torch.empty(side * side))
        nn.init.trunc_normal_(self.table, std=0.02)

    @override
    def forward(self) -> Tensor:
        along = torch.arange(self.side, device=self.table.device)
        apart = (along[:, None] - along[None, :]).abs()
        index = apart[:, None, :, None] * self.side + apart[None, :, None, :]
        return self.table[index.reshape(self.side**2, self.side**2)]


class CascadeHead(nn.Module):
    """One head: (B, split, side, side) -> (B, v, side, side), attention over the N = side^2 pixels.

    A kernel of 0 means no convolution over the query.
    """

    def __init__(self, split: int, qk_dim: int, v_dim: int, kernel: int, side: int):
        super().__init__()
        self.bias = DistanceBias(side)
        self.q = ConvBnAct(split, qk_dim, act=None)
        self.k = ConvBnAct(split, qk_dim, act=None)
        self.v = ConvBnAct(split, v_dim, act=None)
        self.mix = ConvBnAct(qk_dim, qk_dim, kernel, groups=qk_dim, act=None) if kernel else nn.Identity()

    @override
    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        q, k, v = to_tokens(self.mix(self.q(x))), to_tokens(self.k(x)), to_tokens(self.v(x))
        scores = (torch.bmm(q * q.shape[2] ** -0.5, k.transpose(1, 2)) + self.bias()).softmax(-1)
        out = torch.bmm(scores, v).reshape(batch, height, width, v.shape[2])
        return out.permute(0, 3, 1, 2)


@module_of.register(CascadedGroupAttention)
class CascadedAttention(nn.Module):
    """(B, C, H, W) to the same: cascaded group attention within windows, and a residual."""

    def __init__(self, spec: CascadedGroupAttention):
        super().__init__()
        self.side = spec.side
        self.splits = spec.splits
        self.heads = nn.ModuleList(
            CascadeHead(split, spec.qk_dim, spec.v_dim, kernel, spec.side)
            for split, kernel in zip(spec.splits, spec.kernel_sizes, strict=True)
        )
        self.proj = nn.Sequential(nn.ReLU(), ConvBnAct(spec.heads * spec.v_dim, spec.channels, act=None))

    @override
    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        if height == self.side and width == self.side:
            return x + self._attend(x)
        windows = self._attend(cut_windows(x, self.side))
        return x + join_windows(windows, batch, height, width)

    def _attend(self, x: Tensor) -> Tensor:
        outputs: list[Tensor] = []
        start = 0
        for head, split in zip(self.heads, self.splits, strict=True):
            part = x[:, start : start + split] if len(self.splits) > 1 else x
            start += split
            if outputs:
                part = _add_common(part, outputs[-1])
            outputs.append(head(part))
        return self.proj(torch.cat(outputs, 1) if len(outputs) > 1 else outputs[0])


def cut_windows(x: Tensor, side: int) -> Tensor:
    """Cut (B, C, H, W) into (B * windows, C, side, side); a map that does not divide is zero-padded."""
    height, width = x.shape[2:]
    if height % side or width % side:
        x = F.pad(x, (0, -width % side, 0, -height % side))
    batch, channels, height, width = x.shape
    rows, columns = height // side, width // side
    x = x.permute(0, 2, 3, 1).reshape(batch * rows, side, columns, side * channels)
    x = x.transpose(1, 2).reshape(batch * rows * columns, side, side, channels)
    return x.permute(0, 3, 1, 2)


def join_windows(x: Tensor, batch: int, height: int, width: int) -> Tensor:
    """Join windows to maps (B, C, height, width) without padding; the inverse of `cut_windows`."""
    channels, side = x.shape[1], x.shape[2]
    rows, columns = -(-height // side), -(-width // side)
    x = x.permute(0, 2, 3, 1).reshape(batch * rows, columns, side, side * channels)
    x = x.transpose(1, 2).reshape(batch, rows * side, columns * side, channels).permute(0, 3, 1, 2)
    return x[:, :, :height, :width] if height % side or width % side else x


def _add_common(part: Tensor, before: Tensor) -> Tensor:
    """Add `before` to the channels of `part` that both have."""
    own, given = part.shape[1], before.shape[1]
    if given > own:
        before = before[:, :own]
    if given < own:
        return torch.cat((part[:, :given] + before, part[:, given:]), 1)
    return part + before
