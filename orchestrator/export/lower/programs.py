"""Designed programs: chains that repeat one kind of operator, and operators that run outside the delegate.

A name, `chain:KIND-SEED` or `portable:KIND-SEED`, decides modules and sizes, by whole numbers alone, so that it is
the same program on each machine. Together they hold what networks of many families hold (docs/operators.md).
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luts.format.errors import UsageError, unknown

Shape = tuple[int, ...]
Designed = tuple[list[nn.Module], Shape]
"""Modules in order of execution, and the shape of the input."""

SIDES = (112, 96, 80, 64, 56, 48, 40, 32, 28, 24, 20, 16, 14, 12, 10, 8, 7)
WIDTHS = (
    8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 72, 80, 88, 96, 112, 120, 128, 144, 160, 184, 192, 216, 240, 256,
    288, 320, 368, 384, 432, 480, 512, 576, 640, 672, 768, 864, 960, 1024, 1152,
)  # fmt: skip
TOKENS = (16, 49, 50, 64, 100, 144, 196, 197, 256, 400, 784)
"""Sizes of maps, channels and sequences in published mobile networks."""

CHAIN_COST, ELEMENT_COST, MAX_REPEATS = 150_000_000, 40, 12
"""A chain has as many repetitions as these MACs hold, 2.5 ms of a desktop core, if an element that is moved costs
as much as 40 MACs.
"""


class Apply(nn.Module):
    """A function of a tensor as a module, or with `inner` of a tensor and what the inner module returns for it."""

    def __init__(self, function: Callable[..., Tensor], inner: nn.Module | None = None) -> None:
        """Take the function, and the inner module."""
        super().__init__()
        self.function, self.inner = function, inner

    def forward(self, x: Tensor) -> Tensor:
        """Return the function's value."""
        return self.function(x) if self.inner is None else self.function(x, self.inner(x))


class Program(nn.Sequential):
    """A designed program; `input_shape` is that of its input."""

    def __init__(self, name: str) -> None:
        """Build `chain:KIND-SEED` or `portable:KIND-SEED`; raises UsageError for an unknown kind."""
        origin, _, kind = name.rpartition("-")[0].partition(":")
        known = {"chain": CHAINS, "portable": PORTABLE}[origin]
        if kind not in known:
            raise UsageError(unknown(f"kind of {origin}", kind, known), code="unknown_network")
        modules, self.input_shape = known[kind](random.Random(name))
        super().__init__(*modules)


def _width(rng: random.Random, side: int, most: tuple[int, int, int], least: int = 8) -> int:
    """Return a number of channels up to `most` of maps up to 16, up to 32 and above 32 pixels wide."""
    limit = most[0] if side <= 16 else most[1] if side <= 32 else most[2]
    return rng.choice([width for width in WIDTHS if least <= width <= limit])


def _repeats(macs: int, elements: int, least: int = 1) -> int:
    return max(least, min(MAX_REPEATS, CHAIN_COST // (macs + ELEMENT_COST * elements)))


def _conv(inner: int, outer: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inner, outer, kernel, stride, kernel // 2, groups=groups), nn.ReLU()]


def _pointwise(rng: random.Random) -> Designed:
    side = rng.choice(SIDES)
    a, b = _width(rng, side, (1152, 320, 96)), _width(rng, side, (1152, 320, 160))
    repeats = _repeats(2 * a * b * side**2, side**2 * (a + b))
    return [m for _ in range(repeats) for m in (*_conv(a, b), *_conv(b, a))], (1, a, side, side)


def _dense(rng: random.Random) -> Designed:
    side, kernel = rng.choice(SIDES), rng.choice((3, 3, 3, 3, 3, 5))
    a = _width(rng, side, (512, 256, 64))
    b = rng.choice((a, _width(rng, side, (256, 128, 128))))
    repeats = _repeats(2 * a * b * side**2 * kernel**2, side**2 * (a + b))
    return [m for _ in range(repeats) for m in (*_conv(a, b, kernel), *_conv(b, a, kernel))], (
        1,
        a,
        side,
        side,
    )


def _strided(rng: random.Random) -> Designed:
    """From an image or a map to a small map, dense and depthwise."""
    side, width = rng.choice((224, 192, 160, 128, 112)), rng.choice((3, 3, 8, 16, 24, 32))
    shape, modules = (1, width, side, side), list[nn.Module]()
    for _ in range(rng.choice((2, 3, 4))):
        wider = rng.choice([w for w in WIDTHS if max(16, width) <= w <= max(64, 3 * width)])
        modules += _conv(width, wider, rng.choice((3, 3, 3, 5, 7, 1) if width > 3 else (3, 3, 5, 7)), 2)
        side, width = (side + 1) // 2, wider
        if side > 14 and rng.random() < 0.6:
            modules += _conv(width, width, rng.choice((3, 3, 5)), 2, width)
            side = (side + 1) // 2
        if side <= 14:
            break
    return modules, shape


def _patches(rng: random.Random) -> Designed:
    """Patches of an image, then of the map, without overlap."""
    size, side = rng.choice((2, 4, 4, 8, 16, 32)), rng.choice((224, 256, 192))
    width = rng.choice([w for w in WIDTHS if 32 <= w <= (512 if size >= 16 else 128)])
    modules: list[nn.Module] = [nn.Conv2d(3, width, size, size)]
    if size <= 4:
        modules.append(nn.Conv2d(width, rng.choice((width, 2 * width)), 2, 2))
    return modules, (1, 3, side, side)


def _depthwise(rng: random.Random) -> Designed:
    side, kernel = rng.choice(SIDES), rng.choice((3, 3, 3, 3, 5, 5, 7, 9))
    width = _width(rng, side, (1152, 480, 144))
    repeats = _repeats(4 * width * side**2 * kernel**2, 2 * width * side**2, 2)
    return [m for _ in range(repeats) for m in _conv(width, width, kernel, 1, width)], (1, width, side, side)


def _grouped(rng: random.Random) -> Designed:
    side, groups, each = (
        rng.choice(SIDES[4:]),
        rng.choice((2, 4, 8, 16, 32)),
        rng.choice((4, 8, 8, 16, 24, 32)),
    )
    width, kernel = groups * each, rng.choice((1, 3, 3, 3))
    repeats = _repeats(2 * width * each * side**2 * kernel**2, 2 * width * side**2, 2)
    return [m for _ in range(repeats) for m in _conv(width, width, kernel, 1, groups)], (1, width, side, side)


def _linear(rng: random.Random) -> Designed:
    tokens, a = rng.choice((1, *TOKENS)), rng.choice([w for w in WIDTHS if 32 <= w <= 640])
    b = a * rng.choice((1, 2, 3, 4))
    repeats = _repeats(2 * a * b * tokens, tokens * (a + b))
    return [m for _ in range(repeats) for m in (nn.Linear(a, b), nn.Linear(b, a))], (1, tokens, a)


def _attention(rng: random.Random) -> Designed:
    tokens, head = rng.choice(TOKENS[:-2]), rng.choice((16, 24, 32, 48, 64))
    heads = rng.choice((1, 2, 3, 4, 6, 8))
    repeats = _repeats(4 * heads * tokens**2 * head, 2 * heads * tokens**2 + 6 * tokens * heads * head)

    def attend(x: Tensor) -> Tensor:
        q, k, v = x.reshape(1, tokens, 3, heads, head).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v)
        y = y.transpose(1, 2).reshape(1, tokens, heads * head)
        return torch.cat([y, x[:, :, heads * head :]], -1)

    return [Apply(attend) for _ in range(repeats)], (1, tokens, 3 * heads * head)


def _norm(rng: random.Random) -> Designed:
    if rng.random() < 0.5:
        tokens = rng.choice((*TOKENS[1:], 3136))
        width = _width(rng, 16 if tokens < 300 else 64, (640, 640, 128), 32)
        return [nn.LayerNorm(width) for _ in range(4)], (1, tokens, width)
    side = rng.choice(SIDES[4:])
    width = _width(rng, side, (432, 240, 96), 32)
    last, first = Apply(lambda x: x.permute(0, 2, 3, 1)), Apply(lambda x: x.permute(0, 3, 1, 2))
    return [m for _ in range(4) for m in (last, nn.LayerNorm(width), first)], (1, width, side, side)


def _activation(rng: random.Random) -> Designed:
    side = rng.choice(SIDES)
    kind = rng.choice((nn.GELU, nn.SiLU, nn.Hardswish, nn.ReLU6, nn.Sigmoid, nn.Hardsigmoid, nn.Tanh))
    return [kind() for _ in range(6)], (1, _width(rng, side, (960, 960, 128), 16), side, side)


def _squeeze_excite(rng: random.Random) -> Designed:
    side, squeeze = rng.choice(SIDES), rng.choice((4, 8, 16, 24))
    width = _width(rng, side, (960, 960, 144), 16)
    few = max(8, width // squeeze)

    def gate() -> nn.Module:
        return nn.Sequential(
            nn.AdaptiveAvgPool2d(1), *_conv(width, few), nn.Conv2d(few, width, 1), nn.Sigmoid()
        )

    return [Apply(torch.mul, gate()) for _ in range(4)], (1, width, side, side)


def _addition(rng: random.Random) -> Designed:
    side = rng.choice(SIDES)
    width = _width(rng, side, (512, 512, 128), 16)
    residual = [Apply(torch.add, nn.Conv2d(width, width, 3, 1, 1, groups=width)) for _ in range(3)]
    return [*residual, Apply(lambda x: x * x.sigmoid() + x)], (1, width, side, side)


def _permutation(rng: random.Random) -> Designed:
    """From maps to tokens and back."""
    side = rng.choice(SIDES[4:])
    width = _width(rng, side, (384, 384, 96), 16)
    to_tokens = Apply(lambda x: x.flatten(2).transpose(1, 2))
    to_map = Apply(lambda x: x.transpose(1, 2).reshape(1, width, side, side))
    each = [
        (to_tokens, nn.Linear(width, 8), nn.Linear(8, width), to_map, *_conv(width, width, 3, 1, width))
        for _ in range(3)
    ]
    return [m for modules in each for m in modules], (1, width, side, side)


def _concatenation(rng: random.Random) -> Designed:
    side = rng.choice(SIDES)
    half = _width(rng, side, (192, 192, 48))
    swap = Apply(lambda x: torch.cat([x[:, half:], x[:, :half] + x[:, half:]], 1))
    return [swap] * 4, (1, 2 * half, side, side)


def _pool(rng: random.Random) -> Designed:
    kind, side = rng.choice(("max", "average", "half_max", "half_average")), rng.choice(SIDES)
    if kind.startswith("half"):
        side = rng.choice((112, 96, 56, 48))
    width = _width(rng, side, (256, 256, 96), 16)
    pools: dict[str, list[nn.Module]] = {
        "max": [nn.MaxPool2d(3, 1, 1)] * 3,
        "average": [nn.AvgPool2d(3, 1)] * 2,
        "half_max": [nn.MaxPool2d(3, 2, 1)] * 2,
        "half_average": [nn.AvgPool2d(2, 2)] * 2,
    }
    return pools[kind], (1, width, side, side)


CHAINS: Mapping[str, Callable[[random.Random], Designed]] = {
    "pointwise": _pointwise, "dense": _dense, "strided": _strided, "patches": _patches, "depthwise": _depthwise,
    "grouped": _grouped, "linear": _linear, "attention": _attention, "norm": _norm, "activation": _activation,
    "squeeze_excite": _squeeze_excite, "addition": _addition, "permutation": _permutation,
    "concatenation": _concatenation, "pool": _pool,
}  # fmt: skip


def _flipped(size: int) -> Tensor:
    return torch.arange(size).flip(0)


def _split(x: Tensor) -> Tensor:
    """Return (1, 2, C / 2, H, W) of (1, C, H, W)."""
    return x.reshape(1, 2, x.shape[1] // 2, *x.shape[2:])


MAPS = {
    "pow_root": lambda x: (x * x + 1.0).pow(-0.5),
    "pow": lambda x: (x.abs() + 1.0).pow(2.5),
    "sum_last": lambda x: x.sum(-1),
    "sum_channels": lambda x: x.sum(1),
    "sum_split": lambda x: _split(x).sum(1),
    "sum_map": lambda x: x.sum((2, 3)),
    "mean_channels": lambda x: x.mean(1, keepdim=True),
    "mean_last": lambda x: x.flatten(2).mean(-1),
    "softmax_channels": lambda x: x.flatten(2).softmax(1),
    "softmax_split": lambda x: _split(x).softmax(1),
    "average_padded": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "average_uncounted": lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
    "average_ceiling": lambda x: F.avg_pool2d(x[:, :, 1:, 1:], 2, 2, ceil_mode=True, count_include_pad=False),
    "group_norm": lambda x: F.group_norm(x, 1),
    "group_norm8": lambda x: F.group_norm(x, 8),
    "layer_norm": lambda x: F.layer_norm(x, x.shape[1:]),
    "layer_norm_channels": lambda x: F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2]).permute(0, 3, 1, 2),
    "expand_channel": lambda x: x[:, :1].expand(x.shape).clone() + x,
    "expand_mean": lambda x: x.mean((2, 3), keepdim=True).expand(x.shape) * x,
    "nearest": lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest"),
    "nearest_strided": lambda x: F.interpolate(x[:, :, ::2, ::2], scale_factor=2.0, mode="nearest") * x,
    "index_map": lambda x: x[:, :, _flipped(x.shape[2])[:, None], _flipped(x.shape[3])],
    "index_rows": lambda x: x.reshape(-1, 8)[_flipped(x.numel() // 8)],
    "index_select": lambda x: torch.index_select(x, 1, _flipped(x.shape[1])),
    "roll": lambda x: torch.roll(x, (3, 3), (2, 3)),
    "unfold": lambda x: F.unfold(x, 3, 1, 1),
    "where": lambda x: torch.where(x > 0.1, x, torch.zeros_like(x)),
    "variance": lambda x: x.var((2, 3), keepdim=True) * x,
    "strided_slice": lambda x: x[:, :, ::2, 1::2],
    "concatenate6": lambda x: torch.cat([x * float(factor) for factor in range(1, 7)], 1),
    "normalize_channels": lambda x: F.normalize(x, dim=1),
    "normalize_last": lambda x: F.normalize(x.flatten(2), dim=-1),
    "repeat": lambda x: x.unsqueeze(2).repeat(1, 1, 2, 1, 1).flatten(1, 2),
    "alias": lambda x: torch.cat([x, x[:, : x.shape[1]]], 1)[:, : x.shape[1]],
    "shuffle": lambda x: _split(x).transpose(1, 2).reshape(x.shape),
    "maximum_channels": lambda x: x.amax(1, keepdim=True) + x,
    "clone_last": lambda x: x.permute(0, 2, 3, 1).contiguous(),
    "bicubic": lambda x: F.interpolate(x[:, :8], size=(48, 48), mode="bicubic"),
}  # fmt: skip
"""Functions of a map (1, C, H, W); each is seen with two or more sizes, since a stride decides the cost of many."""


def _portable(function: Callable[[Tensor], Tensor], rng: random.Random) -> Designed:
    """Return the function of a sum: a delegate gives the map away, as in a network."""
    side = rng.choice((56, 40, 28, 20, 14))
    width = rng.choice((16, 24, 32, 48, 64, 96, 128))
    return [Apply(lambda x: x + x), Apply(function)], (1, width, side, side)


PORTABLE: Mapping[str, Callable[[random.Random], Designed]] = {
    kind: functools.partial(_portable, function) for kind, function in MAPS.items()
}
