"""Designed programs: chains that repeat one kind of operator, and operators that run outside the delegate.

A name, `chain:KIND-SEED` or `portable:KIND-SEED`, decides modules and sizes by whole numbers alone: it is the same
program on each machine. Together they hold what networks of many families hold (docs/operators.md).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luts.format.errors import UsageError, unknown

IMAGES = (256, 224, 192, 160)
SIDES = (112, 96, 80, 64, 56, 48, 40, 32, 28, 24, 20, 16, 14, 12, 10, 8, 7)
WIDTHS = (
    8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 72, 80, 88, 96, 112, 120, 128, 144, 160, 184, 192, 216, 240, 256,
    288, 320, 368, 384, 432, 480, 512, 576, 640, 672, 768, 864, 960, 1024, 1152,
)  # fmt: skip
TOKENS = (1, 16, 49, 50, 64, 100, 144, 196, 197, 256, 400, 784)
"""Sizes of images, maps, channels and sequences in published mobile networks."""

CHAIN_COST, ELEMENT_COST, MAX_REPEATS = 150_000_000, 40, 12
"""A chain has as many repetitions as these MACs hold, 2.5 ms of a desktop core, an element moved costing 40."""

ACTIVATIONS = (nn.GELU, nn.SiLU, nn.Hardswish, nn.ReLU6, nn.Sigmoid, nn.Hardsigmoid, nn.Tanh)
POOLS = (nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(3, 1), nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2, 2))


class Sizes(NamedTuple):
    """The side of a map, or a number of tokens, and channels; `rng` draws what else there is."""

    rng: random.Random
    side: int
    width: int


class Apply(nn.Module):
    """A function of a tensor as a module, or with `inner` of a tensor and what the inner module returns for it."""

    def __init__(self, function: Callable[..., Tensor], inner: nn.Module | None = None) -> None:
        """Take the function, and the inner module."""
        super().__init__()
        self.function, self.inner = function, inner

    def forward(self, x: Tensor) -> Tensor:
        """Return the function's value."""
        return self.function(x) if self.inner is None else self.function(x, self.inner(x))


TO_LAST, TO_FIRST = Apply(lambda x: x.permute(0, 2, 3, 1)), Apply(lambda x: x.permute(0, 3, 1, 2))


class Program(nn.Sequential):
    """A designed program; `input_shape` is that of its input."""

    def __init__(self, name: str) -> None:
        """Build `chain:KIND-SEED` or `portable:KIND-SEED`; raises UsageError for an unknown kind."""
        origin, _, kind = name.rpartition("-")[0].partition(":")
        known: Mapping[str, object] = CHAINS if origin == "chain" else PORTABLE
        if kind not in known:
            raise UsageError(unknown(f"kind of {origin}", kind, known), code="unknown_network")
        rng, most = random.Random(name), tuple[int, ...]((128, 128, 128))
        if origin == "chain":
            _, most, build = CHAINS[kind]
            side = rng.choice({0: TOKENS, 1: IMAGES}.get(len(most), SIDES))
            width = most[0] if len(most) == 1 else _width(rng, side, most or (640, 640, 640))
            modules = build(Sizes(rng, side, width))
        else:
            side, width = rng.choice(SIDES[4:13]), 4 * rng.choice((4, 6, 8, 12, 16, 24, 32))
            # Of a sum, so that a delegate outputs the map, as in a network.
            modules = [Apply(lambda x: x + x), Apply(PORTABLE[kind])]
        super().__init__(*modules)
        self.input_shape = (1, width, side, side) if most else (1, side, width)


def _width(rng: random.Random, side: int, most: Sequence[int]) -> int:
    limit = most[0] if side <= 16 else most[1] if side <= 32 else most[2]
    return rng.choice([width for width in WIDTHS if width <= limit])


def _times(macs: int, elements: int, build: Callable[[], list[nn.Module]]) -> list[nn.Module]:
    repeats = max(1, min(MAX_REPEATS, CHAIN_COST // (macs + ELEMENT_COST * elements)))
    return [module for _ in range(repeats) for module in build()]


def _conv(inner: int, outer: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inner, outer, kernel, stride, kernel // 2, groups=groups), nn.ReLU()]


def _dense(at: Sizes, kernels: Sequence[int], most: Sequence[int]) -> list[nn.Module]:
    a, kernel, b = at.width, at.rng.choice(kernels), _width(at.rng, at.side, most)
    macs, elements = 2 * a * b * (at.side * kernel) ** 2, at.side**2 * (a + b)
    return _times(macs, elements, lambda: [*_conv(a, b, kernel), *_conv(b, a, kernel)])


def _grouped(at: Sizes, kernels: Sequence[int], groups: Sequence[int]) -> list[nn.Module]:
    able = [n for n in groups if at.width % n == 0 and (n == at.width or 4 <= at.width // n <= 32)]
    kernel, n = at.rng.choice(kernels), at.rng.choice(able)
    macs, elements = 2 * at.width**2 // n * (at.side * kernel) ** 2, 2 * at.width * at.side**2
    return _times(macs, elements, lambda: _conv(at.width, at.width, kernel, 1, n))


def _strided(at: Sizes) -> list[nn.Module]:
    width, modules = at.width, list[nn.Module]()
    for _ in range(at.rng.choice((2, 3, 4))):
        wider = at.rng.choice([w for w in WIDTHS if width <= w <= max(48, 2 * width)])
        modules += _conv(width, wider, at.rng.choice((3, 3, 3, 5, 7, 1)), 2)
        modules += _conv(wider, wider, at.rng.choice((3, 3, 5)), at.rng.choice((1, 2)), wider)
        width = wider
    return modules


def _squeeze_excite(at: Sizes) -> nn.Module:
    few = max(8, at.width // at.rng.choice((4, 8, 16, 24)))
    layers = *_conv(at.width, few), nn.Conv2d(few, at.width, 1), nn.Sigmoid()
    return Apply(torch.mul, nn.Sequential(nn.AdaptiveAvgPool2d(1), *layers))


def _linear(at: Sizes) -> list[nn.Module]:
    a, b = at.width, at.width * at.rng.choice((1, 2, 3, 4))
    return _times(2 * a * b * at.side, at.side * (a + b), lambda: [nn.Linear(a, b), nn.Linear(b, a)])


def _attention(at: Sizes) -> list[nn.Module]:
    _, tokens, width = at
    heads = at.rng.choice([n for n in (1, 2, 3, 4, 6, 8) if width % n == 0])

    def attend(x: Tensor) -> Tensor:
        q, k, v = x.reshape(1, tokens, 3, heads, width // heads).permute(2, 0, 3, 1, 4).unbind(0)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(1, tokens, width)

    macs, elements = tokens * width * (3 * width + 2 * tokens), tokens * (6 * width + 2 * heads * tokens)
    return _times(macs, elements, lambda: [nn.Linear(width, 3 * width), Apply(attend)])


CHAINS: Mapping[str, tuple[int, tuple[int, ...], Callable[[Sizes], list[nn.Module]]]] = {
    "pointwise": (14, (1152, 320, 96), lambda at: _dense(at, (1,), (1152, 320, 160))),
    "depthwise": (9, (1152, 480, 144), lambda at: _grouped(at, (3, 3, 3, 3, 5, 5, 7, 9), (at.width,))),
    "depthwise_large": (4, (640, 320, 96), lambda at: _grouped(at, (7, 7, 9), (at.width,))),
    "dense": (10, (512, 256, 64), lambda at: _dense(at, (3, 3, 3, 3, 5), (256, 128, 128))),
    "linear": (10, (), _linear),
    "attention": (8, (), _attention),
    "grouped": (6, (768, 384, 128), lambda at: _grouped(at, (1, 3, 3), (2, 4, 8, 16, 32))),
    "activation": (6, (960, 960, 128), lambda at: [at.rng.choice(ACTIVATIONS)()] * 6),
    "strided": (6, (384, 192, 48), _strided),
    "squeeze_excite": (5, (960, 960, 144), lambda at: [_squeeze_excite(at) for _ in range(4)]),
    "stem": (4, (3,), _strided),
    "patches": (4, (3,), lambda at: [nn.Conv2d(3, at.rng.choice(WIDTHS[6:]), n := at.rng.choice((4, 8, 16)), n)]),
    "pool": (4, (256, 256, 96), lambda at: [at.rng.choice(POOLS)] * 2),
    "map_norm": (6, (432, 240, 96), lambda at: [TO_LAST, nn.LayerNorm(at.width), TO_FIRST] * 4),
    "token_norm": (3, (), lambda at: [nn.LayerNorm(at.width) for _ in range(6)]),
    "addition": (3, (512, 512, 128), lambda _: [Apply(lambda x: x + x.sigmoid())] * 4),
    "concatenation": (2, (384, 384, 96), lambda _: [Apply(lambda x: torch.cat(x.chunk(2, 1)[::-1], 1))] * 4),
}  # fmt: skip
"""Number of each kind in a whole suite, more where sizes vary more and networks spend more; most channels of maps
up to 16, up to 32 and above 32 pixels wide, 3 for images, none for tokens; the modules.
"""


def _flipped(size: int) -> Tensor:
    return torch.arange(size).flip(0)


PORTABLE: Mapping[str, Callable[[Tensor], Tensor]] = {
    "pow_root": lambda x: (x * x + 1.0).pow(-0.5), "pow": lambda x: (x.abs() + 1.0).pow(2.5),
    "sum_last": lambda x: x.sum(-1), "sum_channels": lambda x: x.sum(1),
    "sum_split": lambda x: x.reshape(1, 2, -1, *x.shape[2:]).sum(1), "sum_map": lambda x: x.sum((2, 3)),
    "mean_channels": lambda x: x.mean(1, keepdim=True), "mean_last": lambda x: x.flatten(2).mean(-1),
    "softmax_channels": lambda x: x.flatten(2).softmax(1),
    "softmax_split": lambda x: x.reshape(1, 2, -1, *x.shape[2:]).softmax(1),
    "average_padded": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "average_uncounted": lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
    "average_ceiling": lambda x: F.avg_pool2d(x[:, :, 1:, 1:], 2, 2, ceil_mode=True, count_include_pad=False),
    "group_norm": lambda x: F.group_norm(x, 1), "group_norm8": lambda x: F.group_norm(x, 8),
    "layer_norm": lambda x: F.layer_norm(x, x.shape[1:]),
    "layer_norm_channels": lambda x: F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2]).permute(0, 3, 1, 2),
    "expand_channel": lambda x: x[:, :1].expand(x.shape).clone() + x,
    "expand_mean": lambda x: x.mean((2, 3), keepdim=True).expand(x.shape) * x,
    "nearest": lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest"),
    "nearest_strided": lambda x: F.interpolate(x[:, :, ::2, ::2], scale_factor=2.0, mode="nearest") * x,
    "index_map": lambda x: x[:, :, _flipped(x.shape[2])[:, None], _flipped(x.shape[3])],
    "index_rows": lambda x: x.reshape(-1, 8)[_flipped(x.numel() // 8)],
    "index_select": lambda x: torch.index_select(x, 1, _flipped(x.shape[1])),
    "roll": lambda x: torch.roll(x, (3, 3), (2, 3)), "unfold": lambda x: F.unfold(x, 3, 1, 1),
    "where": lambda x: torch.where(x > 0.1, x, torch.zeros_like(x)),
    "variance": lambda x: x.var((2, 3), keepdim=True) * x, "strided_slice": lambda x: x[:, :, ::2, 1::2],
    "divide": lambda x: x / (x[:, :1] + 99.0),
    "bilinear": lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"),
    "normalize_channels": lambda x: F.normalize(x, dim=1),
    "normalize_last": lambda x: F.normalize(x.flatten(2), dim=-1),
    "repeat": lambda x: x.unsqueeze(2).repeat(1, 1, 2, 1, 1).flatten(1, 2),
    "alias": lambda x: torch.cat([x, x[:, : x.shape[1]]], 1)[:, : x.shape[1]],
    "shuffle": lambda x: x.reshape(1, 2, -1, *x.shape[2:]).transpose(1, 2).reshape(x.shape),
    "maximum_channels": lambda x: x.amax(1, keepdim=True) + x,
    "bicubic": lambda x: F.interpolate(x[:, :8], size=(48, 48), mode="bicubic"),
}  # fmt: skip
"""Functions of a map (1, C, H, W), each a program; more than one size shows what a stride costs."""
