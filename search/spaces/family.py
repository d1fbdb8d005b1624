"""How a stage's choice becomes blocks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from luts.errors import UsageError
from search.blocks import (
    BlockSpec,
    Conv,
    ConvHead,
    FcHead,
    MBConv,
    MbPoolHead,
    MobileViTLayer,
    MobileViTShell,
)

if TYPE_CHECKING:
    from search.spaces.space import Stage, Value

CONV_HEAD_EXPANSION = 4
"""Width of MobileViT's last 1x1 convolution over its input, in all three networks."""

Expand = Callable[[dict[str, "Value"], int, int], list[BlockSpec]]


def _conv(v: dict[str, Value], channels: int, resolution: int) -> list[BlockSpec]:
    return [Conv(resolution, channels, int(v["width"]), int(v["kernel"]), int(v["stride"]))]


def _mbconvs(v: dict[str, Value], channels: int, resolution: int) -> list[BlockSpec]:
    """`depth` inverted residuals; only the first changes width and resolution."""
    width, kernel, expansion = int(v["width"]), int(v["kernel"]), int(v["expansion"])
    first: BlockSpec = MBConv(resolution, channels, width, kernel, expansion, int(v["stride"]))
    rest: BlockSpec = MBConv(first.out_resolution, width, width, kernel, expansion, 1)
    return [first] + [rest] * (int(v["depth"]) - 1)


def _autovit(v: dict[str, Value], channels: int, resolution: int) -> list[BlockSpec]:
    """A transformer stage of AutoViT: the dimension follows from the width, heads have channels of their own."""
    dim = int(v["dim_scale"] * int(v["width"]) + v["dim_offset"])
    return _transformers(v, channels, resolution, dim, int(v["head_dim"]))


def _mobilevit(v: dict[str, Value], channels: int, resolution: int) -> list[BlockSpec]:
    """A transformer stage of MobileViT: the dimension is chosen, its heads share it."""
    dim = int(v["dim"])
    return _transformers(v, channels, resolution, dim, dim // int(v["heads"]))


def _transformers(
    v: dict[str, Value], channels: int, resolution: int, dim: int, head_dim: int
) -> list[BlockSpec]:
    """An MBConv that changes width and resolution, then a MobileViT block with `depth` layers."""
    width, patch = int(v["width"]), int(v["patch"])
    down = MBConv(resolution, channels, width, int(v["kernel"]), int(v["expansion"]), int(v["stride"]))
    side = down.out_resolution
    layer = MobileViTLayer(side, dim, int(v["heads"]), head_dim, float(v["mlp_ratio"]), patch)
    return [down, MobileViTShell(side, width, dim, patch)] + [layer] * int(v["depth"])


def _conv_head(resolution: int, channels: int, classes: int) -> BlockSpec:
    return ConvHead(resolution, channels, classes, CONV_HEAD_EXPANSION * channels)


_STAGES: dict[str, Expand] = {"conv": _conv, "mbconv": _mbconvs, "mvit": _autovit, "mobilevit": _mobilevit}
_HEADS: dict[str, Callable[[int, int, int], BlockSpec]] = {
    "fc": FcHead,
    "mbpool": MbPoolHead,
    "conv": _conv_head,
}


@functools.lru_cache(maxsize=1 << 16)
def expand_stage(
    stage: Stage, values: tuple[Value, ...], channels: int, resolution: int
) -> tuple[BlockSpec, ...]:
    """Blocks of one stage, given its input's channels and side in pixels."""
    named = dict(stage.fixed) | dict(zip(stage.names, values, strict=True))
    return tuple(_STAGES[stage.kind](named, channels, resolution))


def expand_head(head: str, channels: int, resolution: int, classes: int) -> BlockSpec:
    """The classifier block."""
    if head not in _HEADS:
        raise UsageError(f"unknown head {head!r}; known: {', '.join(_HEADS)}")
    return _HEADS[head](resolution, channels, classes)
