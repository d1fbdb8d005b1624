"""Layers that blocks are made of, attention and tokens as XNNPACK takes them, and fusion for inference.

Attention is two rank-3 `bmm`: 4-D matmul and `scaled_dot_product_attention` lower to expand and squeeze
copies that XNNPACK does not take. Tokens and maps change with channels last, the order in which XNNPACK keeps
maps.
"""

from __future__ import annotations

import copy
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval
from typing_extensions import override


class ConvBnAct(nn.Sequential):
    """Convolution without bias, BN, and an activation unless it is None; padding keeps the side at stride 1."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        *,
        act: nn.Module | None,
    ):
        super().__init__()
        self.add_module(
            "conv", nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        )
        self.add_module("bn", nn.BatchNorm2d(outputs))
        if act is not None:
            self.add_module("act", act)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each pixel: (B, C, H, W) to the same."""

    @override
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Residual(nn.Sequential):
    """Modules in sequence, and the input added to their output."""

    @override
    def forward(self, x: Tensor) -> Tensor:
        y = x
        for part in self:
            y = part(y)
        return x + y


class Classifier(nn.Module):
    """Global average pool and linear classifier: (B, C, H, W) -> (B, classes).

    A 1x1 convolution to `middle` channels with BN and `act` comes first if `middle` is given.
    """

    def __init__(self, inputs: int, classes: int, middle: int | None = None, *, act: nn.Module | None):
        super().__init__()
        self.conv = ConvBnAct(inputs, middle, act=act) if middle else nn.Identity()
        self.fc = nn.Linear(middle or inputs, classes)

    @override
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).mean((2, 3), keepdim=True).flatten(1))


def to_tokens(x: Tensor) -> Tensor:
    """Return maps (B, C, H, W) as tokens (B, H * W, C)."""
    batch, channels, height, width = x.shape
    return x.permute(0, 2, 3, 1).reshape(batch, height * width, channels)


def to_map(x: Tensor, height: int) -> Tensor:
    """Return tokens (B, H * W, C) as maps (B, C, H, W)."""
    batch, tokens, channels = x.shape
    return x.reshape(batch, height, tokens // height, channels).permute(0, 3, 1, 2)


def unfolding_weights(channels: int, kernel: int, device: str | None = None) -> Tensor:
    """Return weights (channels * k^2, 1, k, k) of a depthwise convolution that unfolds k x k neighbourhoods."""
    places = torch.eye(kernel**2, device=device).reshape(kernel**2, 1, kernel, kernel)
    return places.repeat(channels, 1, 1, 1)


class WeightValue(nn.Module, ABC):
    """A module without an input: a value computed from its parameters alone."""

    @abstractmethod
    def forward(self) -> Tensor:
        """Return the value."""


class Constant(WeightValue):
    """A constant computed from weights."""

    value: Tensor

    def __init__(self, value: Tensor):
        super().__init__()
        self.register_buffer("value", value.contiguous())

    @override
    def forward(self, like: Tensor | None = None) -> Tensor:
        return self.value


class FixedValue(WeightValue):
    """A value that follows from shapes alone, on the device of an activation; a constant once fused.

    It is no buffer, and given on the CPU: a supernet's modules have parameters only and are built without storage.
    """

    def __init__(self, value: Tensor):
        super().__init__()
        self.value = value

    @override
    def forward(self, like: Tensor | None = None) -> Tensor:
        return self.value if like is None else self.value.to(like.device)


class ParallelConvs(nn.ModuleList):
    """1x1 convolutions of one map: (B, C, H, W) to the output of each; one convolution and slices once fused."""

    def __init__(self, channels: int, outputs: Sequence[int]):
        super().__init__(nn.Conv2d(channels, each, 1) for each in outputs)
        self.channels, self.ends = channels, tuple(itertools.accumulate(outputs))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the output of each."""
        if len(self) == len(self.ends):
            return tuple(conv(x) for conv in self)
        y = self[0](x)
        return tuple(y[:, start:end] for start, end in itertools.pairwise((0, *self.ends)))

    def fuse(self) -> None:
        """Make one convolution of all."""
        fused = nn.Conv2d(self.channels, self.ends[-1], 1)
        fused.load_state_dict(
            {name: torch.cat([conv.get_parameter(name) for conv in self]) for name in ("weight", "bias")}
        )
        self._modules = {"0": fused}


def fuse_for_inference(module: nn.Module) -> nn.Module:
    """Return a copy of an eval-mode module that computes the same (to rounding) with fewer operations.

    In an `nn.Sequential`, BN is fused into the convolution before it, else into the linear layer after it;
    each `WeightValue` becomes a constant, `ParallelConvs` become one convolution. Only exactly these classes
    change: a subclass may do more in its forward. BN without such a neighbour stays. Networks of timm merge
    their parallel branches first (RepViT, FastViT), as their papers do before they measure.
    """
    module = copy.deepcopy(module)
    if type(module).__module__.startswith("timm."):
        from timm.utils.model import reparameterize_model

        module = reparameterize_model(module, inplace=True)
    for part in module.modules():
        if isinstance(part, nn.Sequential):
            _fuse_pairs(part)
    for part in list(module.modules()):
        for name, child in part.named_children():
            if isinstance(child, WeightValue):
                with torch.no_grad():
                    setattr(part, name, Constant(child()))
            if isinstance(child, ParallelConvs):
                child.fuse()
    return module


def _fuse_pairs(chain: nn.Sequential) -> None:
    for first, second in itertools.pairwise(list(chain._modules)):
        before, after = chain._modules[first], chain._modules[second]
        if type(before) is nn.Conv2d and type(after) is nn.BatchNorm2d and after.track_running_stats:
            chain._modules[first] = fuse_conv_bn_eval(before, after)
            chain._modules[second] = nn.Identity()
        if type(before) is nn.BatchNorm1d and type(after) is nn.Linear and before.track_running_stats:
            chain._modules[first] = nn.Identity()
            chain._modules[second] = fuse_bn_linear(before, after)


@torch.no_grad()
def fuse_bn_linear(norm: nn.BatchNorm1d, linear: nn.Linear) -> nn.Linear:
    """Return one linear layer for `linear(norm(x))`: W (s x + t) + b = (W s) x + (W t + b)."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    if norm.bias is not None:
        shift = shift + norm.bias
    fused = nn.Linear(linear.in_features, linear.out_features, device=scale.device, dtype=scale.dtype)
    fused.weight.copy_(linear.weight * scale)
    fused.bias.copy_(linear.weight @ shift if linear.bias is None else linear.weight @ shift + linear.bias)
    return fused.train(linear.training)


def split_heads(x: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """Split (B, N, parts * heads * head_dim) into `parts` tensors (B * heads, N, head_dim)."""
    batch, tokens, channels = x.shape
    head_dim = channels // (parts * heads)
    x = x.reshape(batch, tokens, parts * heads, head_dim).transpose(1, 2)
    if parts == 1:
        return (x.reshape(batch * heads, tokens, head_dim),)
    return tuple(
        x[:, start : start + heads].reshape(batch * heads, tokens, head_dim)
        for start in range(0, parts * heads, heads)
    )


def join_heads(x: Tensor, heads: int) -> Tensor:
    """Join heads (B * heads, N, head_dim) to (B, N, heads * head_dim)."""
    _, tokens, head_dim = x.shape
    x = x.reshape(-1, heads, tokens, head_dim)
    return x.transpose(1, 2).reshape(-1, tokens, heads * head_dim)


def attention_scores(q: Tensor, k: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """Return softmax of q k^T / sqrt(head_dim) + bias over the M keys: (B * heads, N, M).

    `q` is (B * heads, N, head_dim), `k` (B * heads, M, head_dim); `bias` is broadcast over (B, heads, N, M).
    """
    scores = torch.bmm(q * q.shape[2] ** -0.5, k.transpose(1, 2))
    if bias is not None and heads == 1:  # XNNPACK refuses to add to a map of one channel
        scores = scores + bias.reshape(bias.shape[0], *bias.shape[2:])
    elif bias is not None:
        _, queries, keys = scores.shape
        scores = (scores.reshape(-1, heads, queries, keys) + bias).reshape(-1, queries, keys)
    return scores.softmax(-1)


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """Return attention (B, N, heads * head_dim) of the tensors of `split_heads`."""
    return join_heads(torch.bmm(attention_scores(q, k, heads, bias), v), heads)


def attention(qkv: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """Return softmax(q k^T / sqrt(head_dim) + bias) v: (B, N, heads * head_dim).

    `qkv` is (B, N, 3 * heads * head_dim); `bias` is broadcast over (B, heads, N, N).
    """
    q, k, v = split_heads(qkv, 3, heads)
    return attend(q, k, v, heads, bias)


def positive_features(x: Tensor, features: Tensor, halves: Tensor) -> Tensor:
    """Return exp(W x - |x|^2 / 2) / sqrt(m), (B, N, d) to (B, N, m): products of two estimate exp(q k).

    (Choromanski et al. 2021, equation 5.) `halves` is (1, d) of 0.5: the sum is a linear layer, which XNNPACK has.
    """
    return (F.linear(x, features) - F.linear(x * x, halves)).exp() * (1 / math.sqrt(len(features)))


class RelativeBias(WeightValue):
    """Swin's relative position bias (Liu et al. 2021, equation 4): one number a head and offset in a window.

    () -> (1, heads, window^2, window^2) for a window of `window` pixels a side. The table is that of a window
    of `base` pixels, by default the same, and is interpolated for others, as Swin is fine-tuned.
    """

    def __init__(self, window: int, heads: int, base: int | None = None):
        super().__init__()
        self.window = window
        self.table = nn.Parameter(torch.zeros((2 * (base or window) - 1) ** 2, heads))
        nn.init.trunc_normal_(self.table, std=0.02)

    @override
    def forward(self) -> Tensor:
        table: Tensor = self.table
        offsets, heads = 2 * self.window - 1, table.shape[1]
        if len(table) != offsets**2:
            base = math.isqrt(len(table))
            table = resized(table.T.reshape(1, heads, base, base), offsets).reshape(heads, -1).T
        place = torch.arange(self.window, device=table.device)
        offset = place[:, None] - place[None, :] + self.window - 1
        index = offset[:, None, :, None] * offsets + offset[None, :, None, :]
        return table[index.reshape(self.window**2, self.window**2)].permute(2, 0, 1)[None]


def resized(table: Tensor, side: int) -> Tensor:
    """Return maps (B, C, H, H) of weights interpolated bicubically to (B, C, side, side)."""
    if table.shape[2] == side:
        return table
    return functional.interpolate(table, (side, side), mode="bicubic", align_corners=False)
